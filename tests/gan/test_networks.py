"""CovidGAN's options: mixed precision, projection, and a spectral norm that leaves the stored kernels alone."""

import keras
import numpy as np
import pytest

from cxr_tasks.gan.networks import before_activation, build_discriminator, build_generator

SMALL = {"image_size": 32, "width": 0.05}


def images(count=4):
    return np.random.default_rng(0).uniform(-1, 1, (count, 32, 32, 3)).astype("float32")


def test_mixed_precision_keeps_variables_and_outputs_in_float32():
    generator = build_generator(**SMALL, dtype="mixed_bfloat16")
    discriminator = build_discriminator(**SMALL, dtype="mixed_bfloat16")

    hidden = next(layer for layer in discriminator.layers if isinstance(layer, keras.layers.Conv2D))
    assert hidden.compute_dtype == "bfloat16"
    assert {w.dtype for w in generator.weights + discriminator.trainable_weights} == {"float32"}
    assert generator.output.dtype == "float32" and {out.dtype for out in discriminator.outputs} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"


def test_a_projecting_discriminator_scores_images_with_their_labels_and_names_no_classes():
    discriminator = build_discriminator(**SMALL, projection=True, dropout=0.0)

    assert discriminator.output_shape == (None, 1)
    assert [tuple(shape.shape) for shape in discriminator.inputs] == [(None, 32, 32, 3), (None, 1)]
    first, second = (discriminator([images(), np.full((4, 1), k)], training=True) for k in (0, 1))
    assert not np.allclose(first, second, atol=1e-5)


def test_a_projection_is_the_linear_score_plus_the_inner_product_with_the_label():
    discriminator = build_discriminator(**SMALL, projection=True)
    layers = {type(layer).__name__: layer for layer in discriminator.layers}
    features = next(layer for layer in discriminator.layers if isinstance(layer, keras.layers.Flatten)).output
    phi = np.asarray(keras.Model(discriminator.inputs, features)([images(), np.ones((4, 1))]))

    logit = before_activation(discriminator)([images(), np.ones((4, 1), "int32")])

    expected = phi @ layers["Dense"].kernel + layers["Dense"].bias + phi @ layers["Embedding"].embeddings[1][:, None]
    np.testing.assert_allclose(logit, expected, atol=1e-5)


@pytest.mark.parametrize("projection", [False, True])
def test_logits_are_what_the_probabilities_are_made_of(projection):
    discriminator = build_discriminator(**SMALL, projection=projection)
    inputs = [images(), np.zeros((4, 1), "int32")] if projection else images()

    logits, outputs = before_activation(discriminator)(inputs), discriminator(inputs)

    real, score = (outputs, logits) if projection else (outputs[0], logits[0])
    np.testing.assert_allclose(real, 1 / (1 + np.exp(-np.asarray(score))), rtol=1e-5)


def test_spectral_norm_brings_the_largest_singular_value_to_one_and_keeps_the_stored_kernel():
    discriminator = build_discriminator(**SMALL, spectral_norm=True)
    plain = build_discriminator(**SMALL)
    wrapped = next(layer for layer in discriminator.layers if "spectral" in layer.name)
    before = np.array(wrapped.kernel)

    for _ in range(30):
        discriminator(images(), training=True)
    u = np.array(wrapped.vector_u)
    out = np.asarray(wrapped(images(), training=False))

    np.testing.assert_array_equal(before, wrapped.kernel)
    np.testing.assert_array_equal(u, wrapped.vector_u)
    sigma = np.linalg.svd(before.reshape(-1, before.shape[-1]), compute_uv=False)[0]
    unscaled = np.asarray(plain.layers[1](images()))
    np.testing.assert_allclose(out, unscaled / sigma, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("options", [{"spectral_norm": True}, {"spectral_norm": True, "projection": True}, {}])
def test_a_saved_discriminator_loads_as_it_was(tmp_path, options):
    discriminator = build_discriminator(**SMALL, **options)
    inputs = [images(), np.ones((4, 1), "int32")] if "projection" in options else images()
    discriminator.save(tmp_path / "d.keras")

    loaded = keras.models.load_model(tmp_path / "d.keras", compile=False)

    for a, b in zip(*(keras.tree.flatten(model(inputs)) for model in (discriminator, loaded)), strict=True):
        np.testing.assert_array_equal(a, b)
