"""One step of CovidGAN: who moves whom, what is drawn, and what each switch does. Run eagerly: it is quicker."""

import numpy as np
import pytest
import tensorflow as tf

from cxr_tasks.gan.device import on_device
from cxr_tasks.gan.diff_augment import diff_augment
from cxr_tasks.gan.losses import gradient_penalty
from cxr_tasks.gan.sampling import sample_images
from cxr_tasks.gan.step import CovidGan
from tests.gan.gan_helpers import ALL_SWITCHES, noise, tiny

SWITCHES = {
    "label_smoothing": {"label_smoothing": 0.1},
    "diff_augment": {"diff_augment": True},
    "spectral_norm": {"spectral_norm": True},
    "r1": {"r1": 5.0},
    "projection": {"projection": True},
    "fake_class_loss": {"fake_class_loss": False},
    "d_learning_rate": {"d_learning_rate": 1.0e-3},
    "mixed_precision": {"mixed_precision": True},
    "latent_sd": {"latent_sd": 1.0},
}


@pytest.fixture(autouse=True)
def eager():
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def trained(steps=1, **changes):
    gan = CovidGan(tiny(**changes), 3, seed=0)
    for _ in range(steps):
        gan.train_step(*(part[:8] for part in noise()))
    return gan


def values(model):
    return [np.array(w) for w in model.trainable_weights]


def moved(before, model):
    return [not np.array_equal(a, b) for a, b in zip(before, values(model), strict=True)]


@pytest.fixture(scope="module")
def plain():
    """The discriminator after a step without any switch."""
    tf.config.run_functions_eagerly(True)
    return values(trained().discriminator)


@pytest.mark.parametrize("switches", [{}, ALL_SWITCHES], ids=["paper", "all switches"])
def test_each_step_moves_its_own_network_only(switches):
    gan = CovidGan(tiny(**switches), 3, seed=0)
    number, labels = tf.constant(0, tf.int64), tf.constant(noise()[1][:8], tf.int32)
    real = tf.repeat(tf.constant(noise()[0][:8, ..., None], tf.float32) / 127.5 - 1, 3, axis=-1)
    latent, fake_labels = gan.draws.generator_inputs(8, number)
    fake = gan.generator([latent, fake_labels[:, None]], training=True)
    before = {name: values(getattr(gan, name)) for name in ("generator", "discriminator")}

    gan.discriminator_step(real, labels, fake, fake_labels, number)

    assert not any(moved(before["generator"], gan.generator))
    assert all(moved(before["discriminator"], gan.discriminator))

    before["discriminator"] = values(gan.discriminator)
    _, gradient = gan.generator_loss(fake, fake_labels, number)

    assert not any(moved(before["discriminator"], gan.discriminator))
    assert gradient.shape == fake.shape and np.abs(gradient).max() > 0


@pytest.mark.parametrize(("frozen", "moving"), [("generator", "discriminator"), ("discriminator", "generator")])
def test_in_the_fused_step_each_optimiser_moves_its_own_network(frozen, moving):
    gan = CovidGan(tiny(), 3, seed=0)
    # With a learning rate of nothing one network must stand still, whatever the other's step does.
    getattr(gan, f"{frozen[0]}_optimizer").learning_rate = 0.0
    before = {name: values(getattr(gan, name)) for name in (frozen, moving)}

    gan.train_step(*(part[:8] for part in noise()))

    assert not any(moved(before[frozen], getattr(gan, frozen)))
    assert all(moved(before[moving], getattr(gan, moving)))


def test_the_generator_trains_through_the_updated_discriminator_as_if_the_chain_rule_were_not_cut():
    gan = CovidGan(tiny(dropout=0.0), 3, seed=0)
    latent, labels = gan.draws.generator_inputs(8, tf.constant(0, tf.int64))
    weights = [v.value for v in gan.generator.trainable_variables]
    with tf.GradientTape(persistent=True) as tape:
        fake = gan.generator([latent, labels[:, None]], training=True)
        score, kind = gan.logits(fake, training=True)
        loss = tf.reduce_mean(tf.nn.softplus(-score)) + tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels, kind)
        )
    _, to_images = gan.generator_loss(fake, labels, tf.constant(0, tf.int64))

    whole, in_pieces = (
        [np.asarray(tf.convert_to_tensor(part)) for part in parts]
        for parts in (tape.gradient(loss, weights), tape.gradient(fake, weights, to_images))
    )
    # A bias before batch normalisation has no gradient but rounding.
    for a, b in zip(whole, in_pieces, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * max(np.abs(part).max() for part in whole))


def test_both_networks_have_weights_to_train():
    gan = CovidGan(tiny(), 3, seed=0)

    assert len(gan.discriminator.trainable_weights) == 5 * 4 + 4
    assert len(gan.g_optimizer.variables) > 2 * len(gan.generator.trainable_weights)


def test_labels_are_drawn_uniformly_from_every_class_and_latents_with_the_given_spread():
    gan = CovidGan(tiny(latent_sd=0.02), 3, seed=0)

    latent, labels = gan.draws.generator_inputs(3000, tf.constant(7, tf.int64))
    counts = np.bincount(labels.numpy(), minlength=3)

    # Chi-square with two degrees of freedom is above 13.8 once in a thousand.
    assert ((counts - 1000) ** 2 / 1000).sum() < 13.8
    assert latent.numpy().std() == pytest.approx(0.02, rel=0.02)
    assert latent.numpy().mean() == pytest.approx(0, abs=0.001)
    assert not np.array_equal(latent, gan.draws.generator_inputs(3000, tf.constant(8, tf.int64))[0])


def test_batch_statistics_move_in_training_and_not_when_images_are_made():
    gan = CovidGan(tiny(), 3, seed=0)

    def statistics():
        return [np.array(w) for w in gan.generator.non_trainable_weights]

    first = statistics()
    images = sample_images(gan.generator, np.array([0, 1, 2, 0]), tiny(), 5)
    second = statistics()
    gan.train_step(*(part[:8] for part in noise()))

    assert images.shape == (4, 32, 32) and images.dtype == np.uint8
    assert len(first) == 6 and all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(second, statistics(), strict=True))


def test_generated_images_are_in_range_and_depend_on_seed_and_purpose_only():
    gan = CovidGan(tiny(latent_sd=50.0), 3, seed=0)
    labels = np.array([0, 1, 2, 0])

    first, again, other = (sample_images(gan.generator, labels, tiny(), seed) for seed in (5, 5, 6))
    raw = gan.generator([np.full((1, 100), 50.0), np.zeros((1, 1))], training=False)

    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.abs(raw).max() <= 1


def test_the_images_on_the_device_are_the_bytes_that_were_given():
    pixels, labels = noise()

    words, kept = on_device(pixels, labels)

    assert words.shape == (24, 32 * 32 // 8)
    np.testing.assert_array_equal(tf.reshape(tf.bitcast(words, tf.uint8), (24, 32, 32)), pixels)
    np.testing.assert_array_equal(kept, labels)


def test_a_seed_decides_everything():
    assert trained(steps=2).fingerprint() == trained(steps=2).fingerprint()


@pytest.mark.parametrize("switch", SWITCHES)
def test_each_switch_changes_the_training(switch, plain):
    changed = values(trained(**SWITCHES[switch]).discriminator)

    assert all(np.isfinite(w).all() for w in changed)
    assert [a.shape for a in plain] != [b.shape for b in changed] or any(
        not np.array_equal(a, b) for a, b in zip(plain, changed, strict=True)
    )


def test_label_smoothing_lowers_the_target_of_real_images_only():
    gan, smooth = CovidGan(tiny(dropout=0.0), 3, 0), CovidGan(tiny(dropout=0.0, label_smoothing=0.2), 3, 0)
    # Logits of 2 for the real and −1 for the generated batch.
    for each in (gan, smooth):
        scores = iter([tf.fill((8, 1), 2.0), tf.fill((8, 1), -1.0)])
        each._discriminate = lambda images, labels, scores=scores: (next(scores), None)
        each.d_optimizer.apply = lambda gradients, weights: None
    batch = (tf.zeros((8, 32, 32, 3)), tf.zeros(8, tf.int32)) * 2
    plain_loss, smooth_loss = (float(each.discriminator_step(*batch, tf.constant(0))[0]) for each in (gan, smooth))

    real = -(0.8 * np.log(1 / (1 + np.exp(-2))) + 0.2 * np.log(1 - 1 / (1 + np.exp(-2))))
    fake = -np.log(1 - 1 / (1 + np.exp(1)))
    assert smooth_loss == pytest.approx((real + fake) / 2, rel=1e-5)
    assert plain_loss < smooth_loss


def test_the_average_follows_every_generator_weight_and_makes_the_images():
    gan = CovidGan(tiny(ema=0.9), 3, seed=0)
    weights = [np.array(w) for w in gan.generator.weights]
    expected = weights
    for step in range(1, 3):
        gan.train_step(*(part[:8] for part in noise()))
        decay = min(0.9, (1 + step) / (10 + step))
        expected = [decay * e + (1 - decay) * np.array(w) for e, w in zip(expected, gan.generator.weights, strict=True)]

    for mean, should in zip(gan.averaged.weights, expected, strict=True):
        np.testing.assert_allclose(mean, should, rtol=1e-4, atol=1e-6)
    assert gan.sampler is gan.averaged and len(gan.averaged.weights) == len(weights)
    assert {id(v) for v in gan.averaged.variables}.isdisjoint(id(v) for v in gan.generator.variables)


def test_the_gradient_penalty_of_a_linear_score_is_half_its_squared_slope():
    images = tf.Variable(tf.random.stateless_normal((4, 8, 8, 3), (0, 0)))
    slope = tf.random.stateless_normal((8, 8, 3), (0, 1))
    with tf.GradientTape() as tape:
        score = tf.reduce_sum(images * slope, axis=(1, 2, 3))

    assert float(gradient_penalty(tape.gradient(score, images))) == pytest.approx(
        float(tf.reduce_sum(slope**2)) / 2, rel=1e-4
    )


def test_diff_augment_keeps_gray_gray_is_keyed_and_passes_gradients():
    images = tf.repeat(tf.random.stateless_uniform((6, 32, 32, 1), (0, 0), 0.5, 1.0), 3, axis=-1)
    key = tf.constant([3, 40], tf.int64)
    with tf.GradientTape() as tape:
        tape.watch(images)
        first = diff_augment(images, key)
    slope = tape.gradient(first, images).numpy()

    np.testing.assert_array_equal(first, diff_augment(images, key))
    assert not np.array_equal(first, diff_augment(images, key + tf.constant([0, 8], tf.int64)))
    np.testing.assert_allclose(first[..., 0], first[..., 2], atol=1e-6)
    assert np.isfinite(slope).all() and np.abs(slope).sum() > 0


def test_diff_augment_moves_by_an_eighth_at_most_and_cuts_a_square_of_half_the_side():
    side, count = 32, 200
    ramp = tf.cast(tf.range(1, side * side + 1), tf.float32)
    images = tf.tile(tf.reshape(ramp, (1, side, side, 1)), (count, 1, 1, 1))
    out = diff_augment(images, tf.constant([0, 0], tf.int64)).numpy()[..., 0]

    shifts = set()
    for image in out:
        kept = image != 0
        assert kept.sum() >= (side - side // 8) ** 2 - (side // 2) ** 2
        # Contrast and brightness are affine in the value, so a step to the right always adds the same.
        rows = np.diff(image, axis=1)[kept[:, 1:] & kept[:, :-1]]
        assert rows.std() < 0.01 * abs(rows.mean())
        shifts.add((int(np.argmax(kept.any(axis=1))), int(np.argmax(kept.any(axis=0)))))
    assert max(max(shift) for shift in shifts) <= side // 8 + side // 2
    assert len(shifts) > 4
