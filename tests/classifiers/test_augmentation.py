"""The composed warp: keyed draws, known transforms, and ranges."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_tasks.classifiers.augmentation import augment, draw_transforms, warp
from cxr_tasks.config import AugmentationSettings

NOTHING = {
    "rotation": 0,
    "shear": 0,
    "zoom": 0,
    "horizontal_flip": False,
    "width_shift": 0,
    "height_shift": 0,
    "views": None,
}
PAPER = AugmentationSettings(
    rotation=10, shear=0.1, zoom=0.1, horizontal_flip=True, width_shift=0.1, height_shift=0.1, views=None
)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (6, 32, 32)).astype("uint8")


def ids(n):
    return [f"{i:064x}" for i in range(n)]


def test_no_range_means_no_change(pixels):
    np.testing.assert_array_equal(augment(pixels, ids(6), AugmentationSettings(**NOTHING), 0, 0), pixels)


def test_a_flip_mirrors_the_image(pixels):
    transforms = draw_transforms(AugmentationSettings(**NOTHING | {"horizontal_flip": True}), ids(6), 0, 0, 32)
    flipped = transforms[:, 0] < 0

    warped = warp(pixels, transforms)

    assert flipped.any() and not flipped.all()
    np.testing.assert_array_equal(warped[flipped], pixels[flipped][:, :, ::-1])
    np.testing.assert_array_equal(warped[~flipped], pixels[~flipped])


def test_a_shift_moves_the_image_and_repeats_its_edge():
    gradient = np.tile(np.arange(32, dtype="uint8"), (1, 32, 1))

    warped = warp(gradient, np.array([[1, 0, 5, 0, 1, 0, 0, 0]], "float32"))

    np.testing.assert_array_equal(warped[0, 0], np.minimum(np.arange(32) + 5, 31))


def test_draws_belong_to_the_image_and_not_to_the_batch(pixels):
    together = augment(pixels, ids(6), PAPER, view=3, seed=1)
    apart = np.concatenate([augment(pixels[i : i + 1], ids(6)[i : i + 1], PAPER, view=3, seed=1) for i in range(6)])

    np.testing.assert_array_equal(together, apart)


@pytest.mark.parametrize("other", [{"view": 4, "seed": 1}, {"view": 3, "seed": 2}])
def test_another_view_or_seed_draws_anew(pixels, other):
    first = draw_transforms(PAPER, ids(6), view=3, seed=1, size=32)

    assert not np.isclose(first, draw_transforms(PAPER, ids(6), size=32, **other)).all(axis=1).any()


@given(st.integers(0, 2**31), st.integers(0, 1000))
def test_the_centre_moves_no_further_than_the_shifts_allow(seed, view):
    transforms = draw_transforms(PAPER, ids(3), view, seed, 100)
    centre = 49.5

    x = transforms[:, 0] * centre + transforms[:, 1] * centre + transforms[:, 2]
    y = transforms[:, 3] * centre + transforms[:, 4] * centre + transforms[:, 5]

    assert np.abs(x - centre).max() <= 10.001 and np.abs(y - centre).max() <= 10.001
