"""Grad-CAM on models whose reasons are known, and on every kind of network that is saved."""

import keras
import numpy as np
import pytest
from keras import layers

from cxr_tasks.classifiers.backbones import build_backbone
from cxr_tasks.classifiers.cnn import build_cnn
from cxr_tasks.classifiers.grad_cam import grad_cam
from cxr_tasks.classifiers.networks import on_frozen_backbone

SIDE = 32


def bright_or_dark() -> keras.Model:
    """Class 0 is how much is brighter than 150, class 1 how much is darker than 100; nested like a saved one."""
    pixels = keras.Input((SIDE, SIDE, 1))
    trunk = keras.Model(pixels, layers.MaxPooling2D()(layers.Conv2D(2, 1, activation="relu", name="found")(pixels)))
    trunk.get_layer("found").set_weights([np.array([[[[1.0, -1.0]]]]), np.array([-150.0, 100.0])])
    maps = keras.Input(trunk.output_shape[1:])
    head = keras.Model(maps, layers.Dense(2, activation="softmax")(layers.GlobalAveragePooling2D()(maps)))
    head.layers[-1].set_weights([np.eye(2), np.zeros(2)])
    outside = keras.Input((SIDE, SIDE, 1))
    return keras.Model(outside, head(trunk(outside)))


@pytest.fixture
def images() -> np.ndarray:
    """Gray, with a bright patch above on the left and a dark one below on the right."""
    gray = np.full((3, SIDE, SIDE), 127, np.uint8)
    gray[:, 4:12, 4:12] = 240
    gray[:, 20:28, 20:28] = 10
    return gray


def test_the_heat_lies_where_the_class_was_seen(images, tmp_path):
    bright_or_dark().save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")

    heat = grad_cam(model, images, np.array([0, 1, 0]))

    half = SIDE // 2
    above, below = heat[:, :half, :half].sum((1, 2)), heat[:, half:, half:].sum((1, 2))
    np.testing.assert_allclose(above / heat.sum((1, 2)), [1, 0, 1])
    np.testing.assert_allclose(below / heat.sum((1, 2)), [0, 1, 0])
    assert heat.max(axis=(1, 2)) == pytest.approx([1, 1, 1])
    np.testing.assert_array_equal(heat[0], heat[2])


def test_the_model_predicts_as_before(images):
    model = bright_or_dark()
    before = model.predict(images[..., None], verbose=0)

    grad_cam(model, images, np.zeros(3, int))

    np.testing.assert_array_equal(model.predict(images[..., None], verbose=0), before)


@pytest.mark.parametrize("value", [0, 127, 255])
def test_an_image_of_one_value_gives_no_division_by_zero(value):
    heat = grad_cam(bright_or_dark(), np.full((1, SIDE, SIDE), value, np.uint8), np.array([0]))

    # Only the brightest is above the threshold, and then everywhere alike.
    assert np.unique(heat).tolist() == [float(value == 255)]


@pytest.mark.parametrize("name", ["cnn", "vgg16", "resnet50", "densenet121", "mobilenetv3"])
def test_it_runs_on_saved_networks_and_on_more_than_a_batch(name, tmp_path):
    side = 64
    if name == "cnn":
        built = build_cnn(side, 3, "paper")
    else:
        built = on_frozen_backbone(name, build_backbone(name, side), 3, "paper").full
    built.save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    images = np.random.default_rng(0).integers(0, 256, (17, side, side), dtype=np.uint8)

    heat = grad_cam(model, images, np.arange(17) % 3)

    assert heat.shape == images.shape and heat.dtype == np.float32
    assert np.isfinite(heat).all() and heat.min() >= 0 and heat.max() <= 1
    np.testing.assert_allclose(grad_cam(model, images[16:], np.array([16 % 3])), heat[16:], atol=1e-3)


def test_models_that_it_cannot_explain_are_refused(images):
    pixels = keras.Input((SIDE, SIDE, 1))
    flat = layers.Dense(2, activation="softmax")(layers.Flatten()(pixels))
    scored = layers.Dense(2)(layers.Flatten()(layers.Conv2D(1, 1)(pixels)))

    with pytest.raises(ValueError, match="no feature map"):
        grad_cam(keras.Model(pixels, flat), images, np.zeros(3, int))
    with pytest.raises(ValueError, match="softmax"):
        grad_cam(keras.Model(pixels, scored), images, np.zeros(3, int))
