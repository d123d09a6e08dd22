"""Where backbone weights come from: scaled random ones, files, and the sentences when there are none."""

import keras
import numpy as np
import pytest

from cxr_tasks.errors import WeightsError
from cxr_tasks.networks import vgg16, weights
from cxr_tasks.networks.weights import as_backbone_input, backbone_with_weights


@pytest.fixture(scope="module")
def images():
    # Smooth blobs, as like radiographs as noise can be: neighbouring pixels agree.
    coarse = np.random.default_rng(0).integers(0, 255, (24, 8, 8)).astype("uint8")
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


@pytest.mark.parametrize("name", ["vgg16", "resnet50"])
def test_scaled_random_weights_keep_images_apart(name, images):
    scaled = backbone_with_weights(name, 32, "random", "paper", images, seed=0)
    plain = weights.BACKBONES[name](32)
    batch = as_backbone_input(images, "paper")

    spread = scaled.predict(batch, verbose=0).std(axis=0).mean()

    assert 0.05 < spread < 5
    if name == "vgg16":
        # Keras' own start lets the signal die, which is why the scaling exists.
        assert plain.predict(batch, verbose=0).std(axis=0).mean() < 0.01


def test_random_weights_are_the_same_for_the_same_seed(images):
    first, again, other = (
        backbone_with_weights("vgg16", 32, "random", "paper", images, seed=seed).get_weights() for seed in (1, 1, 2)
    )

    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_a_file_in_keras_format_loads(tmp_path, images, suffix):
    saved = vgg16.backbone(32)
    path = tmp_path / f"vgg16{suffix}"
    saved.save(path) if suffix == ".keras" else saved.save_weights(path)

    loaded = backbone_with_weights("vgg16", 32, str(path), "paper", images, seed=0)

    assert all(np.array_equal(a, b) for a, b in zip(saved.get_weights(), loaded.get_weights(), strict=True))


def test_a_missing_file_is_named(images):
    with pytest.raises(WeightsError, match=r"/nowhere/vgg16.h5 of vgg16 does not exist: correct classifiers.weights"):
        backbone_with_weights("vgg16", 32, "/nowhere/vgg16.h5", "paper", images, seed=0)


def test_a_file_of_another_network_is_refused(tmp_path, images):
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    other.save_weights(tmp_path / "other.weights.h5")

    with pytest.raises(WeightsError, match="does not fit the vgg16 backbone"):
        backbone_with_weights("vgg16", 32, str(tmp_path / "other.weights.h5"), "paper", images, seed=0)


def test_weights_that_cannot_be_downloaded_say_what_to_do(monkeypatch, images):
    def refuse(**_):
        raise OSError("no network")

    monkeypatch.setitem(weights.APPLICATIONS, "vgg16", refuse)

    with pytest.raises(WeightsError, match=r"name it in classifiers\.weights\.vgg16, or set that to random"):
        backbone_with_weights("vgg16", 32, "imagenet", "paper", images, seed=0)


def test_imagenet_scaling_is_what_keras_applications_does(images):
    channels = np.repeat(images[..., None].astype("float32"), 3, axis=-1)

    expected = keras.applications.vgg16.preprocess_input(channels.copy())

    np.testing.assert_allclose(as_backbone_input(images, "imagenet"), expected, atol=1e-4)
