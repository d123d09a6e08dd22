"""Where backbone weights come from: scaled random ones, files, and the sentences when there are none."""

from functools import cache

import keras
import numpy as np
import pytest

from cxr_tasks.classifiers.backbones import build_backbone
from cxr_tasks.classifiers.networks import on_frozen_backbone
from cxr_tasks.classifiers.registry import CLASSIFIERS
from cxr_tasks.classifiers.weights import (
    RESIDUAL_GAIN,
    SCALING_IMAGES,
    as_backbone_input,
    backbone_with_weights,
    scale_to_data,
    scaling_images,
)
from cxr_tasks.config import Settings
from cxr_tasks.errors import WeightsError

FROZEN = [name for name, classifier in CLASSIFIERS.items() if classifier.has_backbone]


@pytest.fixture(scope="module")
def images():
    # Smooth blobs, as like radiographs as noise can be: neighbouring pixels agree.
    coarse = np.random.default_rng(0).integers(0, 255, (24, 8, 8)).astype("uint8")
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


@pytest.fixture(scope="module")
def scaled(images):
    """Backbones with random weights that are scaled on the first images, by name."""
    return cache(lambda name: backbone_with_weights(name, 32, "random", "paper", images[:16], seed=0))


@pytest.mark.parametrize("name", FROZEN)
def test_scaled_random_weights_keep_images_apart(name, images, scaled):
    seen, unseen = images[:16], images[16:]
    plain = build_backbone(name, 32)

    for batch in (as_backbone_input(seen, name, "paper"), as_backbone_input(unseen, name, "paper")):
        features = np.asarray(scaled(name)(batch, training=False))
        spread = features.std(axis=0).mean()
        assert 0.05 < spread < 5
        # Features that are much the same for all images have a large mean beside it.
        assert spread > 0.2 * np.abs(features).mean()
    # Keras' own start lets the signal die, which is why the scaling exists.
    assert np.asarray(plain(batch, training=False)).std(axis=0).mean() < 0.01


class LayerScale(keras.layers.Layer):
    """As in keras.applications' ConvNeXt, where it is private."""

    def __init__(self, init_values):
        super().__init__()
        self.init_values = init_values

    def build(self, shape):
        self.gamma = self.add_weight(shape=shape[-1:], initializer=keras.initializers.Constant(self.init_values))

    def call(self, x):
        return x * self.gamma


def test_a_branch_that_scales_itself_to_nothing_is_switched_on(images):
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 3, padding="same")(inputs)
    branch = LayerScale(1e-6)(keras.layers.Conv2D(4, 3, padding="same")(keras.layers.LayerNormalization()(x)))
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(keras.layers.Add()([x, branch])))

    scale_to_data(model, as_backbone_input(images, "resnet50", "paper"))

    assert [np.asarray(layer.gamma)[0] for layer in model.layers if isinstance(layer, LayerScale)] == [
        pytest.approx(RESIDUAL_GAIN)
    ]


@pytest.mark.parametrize(
    ("name", "last"),
    [("resnet50", "_3_bn"), ("efficientnetv2b0", "project_bn"), ("mobilenetv3", "project_bn"), ("densenet121", None)],
)
def test_residual_branches_start_small_and_nothing_else_does(name, last, scaled):
    model = scaled(name)
    added = sum(isinstance(layer, keras.layers.Add) for layer in model.layers)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    small = [layer.name for layer in norms if np.asarray(layer.gamma)[0] != 1]

    assert len(small) == added
    assert all(layer.endswith(last) for layer in small)


def test_random_weights_are_the_same_for_the_same_seed(images):
    first, again, other = (
        backbone_with_weights("vgg16", 32, "random", "paper", images, seed=seed).get_weights() for seed in (1, 1, 2)
    )

    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize("images", [5, SCALING_IMAGES, 1000])
def test_the_images_that_weights_are_scaled_on_are_keyed_by_seed_and_purpose(images):
    chosen = scaling_images(images, 0, "weight scaling")

    assert len(set(chosen)) == len(chosen) == min(images, SCALING_IMAGES) and set(chosen) <= set(range(images))
    np.testing.assert_array_equal(chosen, scaling_images(images, 0, "weight scaling"))
    for other in (scaling_images(images, 1, "weight scaling"), scaling_images(images, 0, "judge")):
        assert chosen.tolist() != other.tolist()


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
@pytest.mark.parametrize("name", ["vgg16", "mobilenetv3"])
def test_a_file_in_keras_format_loads(tmp_path, images, name, suffix):
    saved = build_backbone(name, 32)
    path = tmp_path / f"{name}{suffix}"
    saved.save(path) if suffix == ".keras" else saved.save_weights(path)

    loaded = backbone_with_weights(name, 32, str(path), "paper", images, seed=0)

    assert all(np.array_equal(a, b) for a, b in zip(saved.get_weights(), loaded.get_weights(), strict=True))


def test_a_missing_file_is_named(images):
    with pytest.raises(WeightsError, match=r"/nowhere/vgg16.h5 of vgg16 does not exist: correct classifiers.weights"):
        backbone_with_weights("vgg16", 32, "/nowhere/vgg16.h5", "paper", images, seed=0)


def test_a_file_of_another_network_is_refused(tmp_path, images):
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    other.save_weights(tmp_path / "other.weights.h5")

    with pytest.raises(WeightsError, match="does not fit the vgg16 backbone"):
        backbone_with_weights("vgg16", 32, str(tmp_path / "other.weights.h5"), "paper", images, seed=0)


@pytest.mark.parametrize("lost", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_a_file_with_numbers_that_are_not_finite_is_refused(tmp_path, images, suffix, lost):
    broken = build_backbone("vgg16", 32)
    weights = broken.get_weights()
    weights[-1][0] = lost
    broken.set_weights(weights)
    path = tmp_path / f"vgg16{suffix}"
    broken.save(path) if suffix == ".keras" else broken.save_weights(path)

    with pytest.raises(WeightsError) as refused:
        backbone_with_weights("vgg16", 32, str(path), "paper", images, seed=0)

    assert str(refused.value) == (
        f"The weights file {path} of vgg16 holds NaN or infinity in 1 of 26 weights, such as block5_conv3/bias: "
        "name a whole file in classifiers.weights.vgg16, or set it to imagenet or random."
    )


def test_weights_that_cannot_be_downloaded_say_what_to_do(monkeypatch, images):
    def refuse(**_):
        raise OSError("no network")

    monkeypatch.setattr(keras.applications, "VGG16", refuse)

    with pytest.raises(WeightsError, match=r"name it in classifiers\.weights\.vgg16, or set that to random"):
        backbone_with_weights("vgg16", 32, "imagenet", "paper", images, seed=0)


@pytest.mark.parametrize("name", FROZEN)
def test_imagenet_weights_are_asked_of_the_same_network(monkeypatch, images, name):
    known, asked = getattr(keras.applications, CLASSIFIERS[name].application), []

    def application(**arguments):
        asked.append(arguments.pop("weights"))
        return known(weights=None, **arguments)

    monkeypatch.setattr(keras.applications, CLASSIFIERS[name].application, application)
    model = backbone_with_weights(name, 32, "imagenet", "imagenet", images, seed=0)

    assert asked == ["imagenet"]
    assert model.output_shape == build_backbone(name, 32).output_shape


# What the network does itself, before its first convolution, comes on top of ``preprocess_input``.
PREPROCESSING = {
    "vgg16": (keras.applications.vgg16, None),
    "resnet50": (keras.applications.resnet50, None),
    "densenet121": (keras.applications.densenet, None),
    "efficientnetv2b0": (keras.applications.efficientnet_v2, keras.applications.EfficientNetV2B0),
    "mobilenetv3": (keras.applications.mobilenet_v3, keras.applications.MobileNetV3Large),
}


@pytest.mark.parametrize("name", FROZEN)
def test_imagenet_scaling_is_what_keras_applications_does(images, name):
    module, with_preprocessing = PREPROCESSING[name]
    expected = module.preprocess_input(np.repeat(images[..., None].astype("float32"), 3, axis=-1))
    if with_preprocessing:
        whole = with_preprocessing(weights=None, include_top=False, input_shape=(32, 32, 3))
        first = next(layer for layer in whole.layers if isinstance(layer, keras.layers.Conv2D))
        expected = keras.Model(whole.input, first.input).predict(expected, verbose=0)

    np.testing.assert_allclose(as_backbone_input(images, name, "imagenet"), expected, atol=1e-4)


@pytest.mark.parametrize("name", FROZEN)
def test_paper_scaling_divides_by_255_and_nothing_scales_again(images, name):
    model = build_backbone(name, 32)

    np.testing.assert_allclose(as_backbone_input(images, name, "paper")[..., 0], images / 255, atol=1e-6)
    assert not [layer for layer in model.layers if isinstance(layer, keras.layers.Rescaling)]


# One of each scaling, with and without pooling.
@pytest.mark.parametrize("name", ["vgg16", "densenet121", "mobilenetv3"])
def test_a_saved_classifier_scales_as_the_backbone_was_scaled(tmp_path, images, name):
    base = build_backbone(name, 32)
    network = on_frozen_backbone(name, base, 3, "imagenet")
    network.full.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")

    features = base.predict(as_backbone_input(images, name, "imagenet"), verbose=0)
    expected = network.head.predict(features, verbose=0)
    np.testing.assert_allclose(loaded.predict(images[..., None], verbose=0), expected, atol=1e-4)


def test_every_classifier_by_name_but_the_cnn_has_a_backbone():
    schema = Settings.model_json_schema()["$defs"]["ClassifierSettings"]["properties"]["names"]

    assert [*FROZEN, "cnn"] == list(CLASSIFIERS) == schema["items"]["enum"]
    assert set(PREPROCESSING) <= set(FROZEN)
    with pytest.raises(ValueError, match="cnn has no backbone"):
        build_backbone("cnn", 32)
