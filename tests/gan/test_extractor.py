"""Features are a function of images, settings and seed; their extractor names itself and its faults."""

from pathlib import Path

import numpy as np
import pytest

from cxr_tasks.classifiers.backbones import build_backbone
from cxr_tasks.config import resolve
from cxr_tasks.errors import WeightsError
from cxr_tasks.gan.distances import nearness
from cxr_tasks.gan.extractor import Extractor


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    # Smooth blobs, as like radiographs as noise can be: neighbouring pixels agree.
    coarse = np.random.default_rng(0).integers(0, 255, (40, 8, 8)).astype("uint8")
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


def judge(**changes: object):
    return resolve("quick", {"judge": {"weights": "random", "image_size": 32, **changes}}).judge


@pytest.fixture(scope="module")
def extractor(images: np.ndarray) -> Extractor:
    return Extractor(judge(), images, 3, "bilinear")


def test_an_image_has_the_same_features_in_any_company(extractor: Extractor, images: np.ndarray) -> None:
    features = extractor.extract(images)

    assert features.shape == (40, 2048)
    assert features.dtype == np.float32
    assert extractor.name == "ResNet50, random weights (seed 3), 32 px"
    alone = extractor.extract(images[::-1][:7])[::-1]
    np.testing.assert_allclose(alone, features[-7:], rtol=1e-3, atol=1e-4)


def test_the_seed_makes_the_features(extractor: Extractor, images: np.ndarray) -> None:
    again, other = (Extractor(judge(), images, seed, "bilinear").extract(images[:4]) for seed in (3, 4))

    np.testing.assert_allclose(again, extractor.extract(images[:4]), rtol=1e-4, atol=1e-5)
    assert not np.allclose(again, other, rtol=0.01)


def test_random_features_tell_copies_from_other_images(extractor: Extractor, images: np.ndarray) -> None:
    training, fresh = images[:30], images[30:]
    jitter = np.random.default_rng(1).integers(-3, 4, training[:10].shape)
    jittered = np.clip(training[:10].astype(int) + jitter, 0, 255).astype(np.uint8)
    known, copied, other = (extractor.extract(one) for one in (training, jittered, fresh))

    assert nearness(copied, known).max() < 0.8 * nearness(other, known).min()


def test_images_of_another_size_are_resized(extractor: Extractor, images: np.ndarray) -> None:
    larger = images[:3].repeat(2, axis=1).repeat(2, axis=2)

    assert extractor.extract(larger).shape == (3, 2048)


def test_no_images_have_no_features(extractor: Extractor) -> None:
    assert extractor.extract(np.empty((0, 64, 64), np.uint8)).shape == (0, 2048)


def test_a_missing_file_is_named_with_the_setting(images: np.ndarray, tmp_path: Path) -> None:
    missing = tmp_path / "resnet50.h5"

    with pytest.raises(WeightsError, match=r"/resnet50.h5 of resnet50 does not exist: correct judge.weights"):
        Extractor(judge(weights=str(missing)), images, 0, "bilinear")


def test_a_file_with_numbers_that_are_not_finite_is_refused(images: np.ndarray, tmp_path: Path) -> None:
    broken, path = build_backbone("resnet50", 32), tmp_path / "resnet50.weights.h5"
    variance = next(weight for weight in broken.weights if weight.path.endswith("conv1_bn/moving_variance"))
    variance.assign(np.full(variance.shape, np.nan))
    broken.save_weights(path)

    with pytest.raises(WeightsError, match=r"NaN or infinity in 1 of 318 weights.* a whole file in judge\.weights"):
        Extractor(judge(weights=str(path)), images, 0, "bilinear")
