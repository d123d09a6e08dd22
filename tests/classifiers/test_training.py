"""An arm's training on tiny images: it learns, both arms share a backbone, and the saved model is the trained one."""

from itertools import islice

import keras
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_tasks.classifiers.batches import BatchOrder, batches_of, training_batches
from cxr_tasks.classifiers.features import ArmFeatures, FrozenTrunk
from cxr_tasks.classifiers.networks import build_network
from cxr_tasks.classifiers.training import balanced_weights, fit_classifier, undersampled
from cxr_tasks.config import resolve
from cxr_tasks.data.dataset import Images
from cxr_tasks.errors import WeightsError

CLASSES = ["a", "b", "c"]


def images(n: int, seed: int, prefix: str) -> Images:
    """Classes that differ by where a bright square lies."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    pixels = rng.integers(0, 90, (n, 32, 32)).astype("uint8")
    for pixel, label in zip(pixels, labels, strict=True):
        pixel[4:16, 2 + 10 * label : 10 + 10 * label] += 150
    ids = np.array([f"{prefix}{i:064x}" for i in range(n)])
    rows = pd.DataFrame({"image_id": ids, "group": ids, "label": [CLASSES[k] for k in labels], "provenance": "real"})
    return Images(pixels, labels.astype(np.int64), ids, rows)


@pytest.fixture(scope="module")
def data():
    return images(120, 0, "t"), {"validation": images(30, 1, "v"), "test": images(30, 2, "s")}


def fit(data, name, augmentation=None, steps=None, **changes):
    """A trained arm and its network."""
    changes = {"image_size": 32, "epochs": 8, "learning_rate": 1e-3, **changes}
    settings = resolve("quick", {"classifiers": changes, "augmentation": augmentation or {}})
    train, held_out = data
    network = build_network(name, settings, train.pixels, seed=0)
    drawn = None if augmentation is None else settings.augmentation
    features = ArmFeatures(FrozenTrunk(network.fast_trunk), train, held_out, drawn, 0)
    return fit_classifier(
        network, features, train, held_out, CLASSES, settings.classifiers, seed=0, steps=steps
    ), network


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cnn", "vgg16"])
def test_an_arm_learns_and_its_model_gives_its_predictions(data, tmp_path, name):
    arm, network = fit(data, name)
    test = arm.predictions[arm.predictions["split"] == "test"]

    network.full.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")

    assert (test[CLASSES].to_numpy().argmax(1) == data[1]["test"].labels).mean() > 0.8
    np.testing.assert_allclose(
        loaded.predict(data[1]["test"].pixels[..., None], verbose=0), test[CLASSES].to_numpy(), atol=1e-3
    )


@pytest.mark.slow
def test_the_same_seed_gives_the_same_arm(data):
    first, again = (fit(data, "cnn", augmentation={}, epochs=2)[0].predictions for _ in range(2))

    pd.testing.assert_frame_equal(first, again, rtol=1e-4)


@pytest.mark.slow
def test_early_stopping_keeps_the_best_epoch(data):
    arm, _ = fit(data, "cnn", epochs=40, patience=2, learning_rate=3e-3)
    validation = arm.predictions[arm.predictions["split"] == "validation"]
    picked = validation[CLASSES].to_numpy()[np.arange(len(validation)), data[1]["validation"].labels]

    assert arm.history["val_loss"].idxmin() + 1 == arm.best_epoch
    assert len(arm.history) <= arm.best_epoch + 2
    assert -np.log(np.clip(picked, 1e-7, 1)).mean() == pytest.approx(arm.history["val_loss"].min(), abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cnn", "vgg16"])
def test_a_pool_of_views_feeds_what_drawing_on_the_fly_would_have_fed(data, name):
    on_the_fly, _ = fit(data, name, augmentation={"views": None}, epochs=3)
    pooled, _ = fit(data, name, augmentation={"views": 3}, epochs=3)

    difference = on_the_fly.predictions[CLASSES] - pooled.predictions[CLASSES]
    assert np.abs(difference.to_numpy()).max() < 1e-3


def test_views_are_made_once_and_come_around(data):
    settings = resolve("quick", {"augmentation": {"views": 2}})
    features = ArmFeatures(FrozenTrunk(None), data[0], data[1], settings.augmentation, 0)
    rows = np.arange(5)

    batches = [features.training(rows, turn) for turn in range(4)]

    assert np.array_equal(batches[0], batches[2]) and np.array_equal(batches[1], batches[3])
    assert not np.array_equal(batches[0], batches[1])
    assert len(features._views) == 2


def test_views_on_the_fly_are_those_of_a_pool(data):
    rows = np.array([7, 3, 11])
    settings = {views: resolve("quick", {"augmentation": {"views": views}}).augmentation for views in (None, 4)}
    live, pool = (ArmFeatures(FrozenTrunk(None), data[0], data[1], how, 5) for how in settings.values())

    for turn in range(4):
        np.testing.assert_array_equal(live.training(rows, turn), pool.training(rows, turn))


@pytest.mark.parametrize(("name", "half"), [("vgg16", "bfloat16"), ("vgg16", "float16"), ("mobilenetv3", "bfloat16")])
def test_a_backbone_in_half_precision_gives_nearly_the_same_features_and_the_model_stays_in_float32(data, name, half):
    built = {}
    for precision in ("float32", half):
        chosen = {"image_size": 32, "weights": {name: "random"}, "precision": precision}
        built[precision] = build_network(name, resolve("quick", {"classifiers": chosen}), data[0].pixels, seed=0)

    exact, near = (FrozenTrunk(network.fast_trunk)(data[0].pixels) for network in built.values())

    assert np.corrcoef(exact.ravel(), near.ravel())[0, 1] > 0.99
    assert not np.array_equal(exact, near)
    assert {layer.compute_dtype for layer in built[half].full.layers} == {"float32"}


def test_features_that_float16_cannot_hold_are_an_error():
    pixels = keras.Input((4, 4, 1))
    trunk = keras.Model(pixels, keras.layers.Rescaling(1e4)(pixels), name="vgg16_trunk")

    with pytest.raises(WeightsError, match="backbone vgg16 gives features that are no numbers or above"):
        FrozenTrunk(trunk)(np.full((2, 4, 4), 255, np.uint8))


def test_no_images_have_features_of_the_right_shape():
    pixels = keras.Input((8, 8, 1))
    trunk = keras.Model(pixels, keras.layers.Conv2D(3, 3)(pixels), name="small_trunk")

    assert FrozenTrunk(trunk)(np.empty((0, 8, 8), np.uint8)).shape == (0, 6, 6, 3)


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 100), st.integers(1, 4))
def test_each_pass_shows_every_image_once_in_an_order_of_its_own(images, batch_size, seed, ahead):
    turns = []

    def features(rows, turn):
        turns.append(turn)
        return rows

    weights = np.arange(images)
    batches = training_batches(features, np.eye(images), weights, BatchOrder(images, batch_size, seed), ahead)
    passes = []
    for turn in range(2):
        cut = [next(batches) for _ in range(batches_of(images, batch_size))]
        passes.append(np.concatenate([rows for rows, _, _ in cut]))
        for rows, targets, of_rows in cut:
            assert np.array_equal(targets.argmax(1), rows) and np.array_equal(of_rows, rows)
        assert all(len(rows) == batch_size for rows, _, _ in cut[:-1])
        assert turns.count(turn) == batches_of(images, ahead * batch_size)

    assert sorted(passes[0]) == sorted(passes[1]) == list(range(images))
    assert images < 9 or passes[0].tolist() != passes[1].tolist()


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 4), st.integers(0, 60), st.integers(0, 2))
def test_batches_from_the_middle_are_those_of_a_training_from_its_beginning(images, batch_size, ahead, first, detour):
    order = BatchOrder(images, batch_size, 3, detour)

    def begin(at):
        return training_batches(lambda rows, turn: rows + 100 * turn, np.eye(images), np.ones(images), order, ahead, at)

    for number, (whole, cut) in enumerate(zip(islice(begin(0), first, first + 9), begin(first), strict=False), first):
        assert all(np.array_equal(a, b) for a, b in zip(whole, cut, strict=True))
        turn, rows = order.of_batch(number)
        assert np.array_equal(whole[0], rows + 100 * turn)


def test_with_a_budget_of_steps_a_larger_set_takes_no_more_of_them(data):
    arm, _ = fit(data, "cnn", steps=2, epochs=3, patience=10)

    assert arm.steps == 6 and len(arm.history) == 3 and arm.train_size == 120


def test_undersampling_leaves_what_was_added_alone(data):
    train, held_out = data
    settings = resolve("quick", {"classifiers": {"image_size": 32, "epochs": 1, "undersample": True}})
    network = build_network("cnn", settings, train.pixels, seed=0)
    features = ArmFeatures(FrozenTrunk(None), train, held_out, None, 0)

    arm = fit_classifier(network, features, train, held_out, CLASSES, settings.classifiers, seed=0, added=20)

    assert arm.train_size == 20 + 3 * np.bincount(train.labels[:-20]).min()


def test_undersampling_keeps_as_many_of_each_class():
    labels = np.repeat([0, 1, 2], [5, 20, 9])

    kept = undersampled(labels, seed=0)

    assert np.bincount(labels[kept]).tolist() == [5, 5, 5]


def test_balanced_weights_give_each_class_the_same_say():
    labels = np.repeat([0, 1, 2], [5, 20, 25])

    shares = [balanced_weights(labels)[labels == k].sum() for k in range(3)]

    assert np.allclose(shares, shares[0])
