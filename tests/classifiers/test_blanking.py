"""What is blanked in one image is what is left in the other, and nothing of it can be told from the gray value."""

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from cxr_tasks.classifiers.blanking import blank_background, blank_lungs, blanked_images, mean_gray
from cxr_tasks.data.dataset import Images

stacks = array_shapes(min_dims=3, max_dims=3, max_side=9)
masks = stacks.flatmap(lambda shape: arrays(bool, shape))


@given(masks, st.integers(0, 255))
def test_lungs_and_background_share_the_image_between_them(mask: np.ndarray, fill: int) -> None:
    pixels = np.full(mask.shape, (fill + 1) % 256, np.uint8)

    without, only = blank_lungs(pixels, mask, fill), blank_background(pixels, mask, fill)

    assert without.dtype == only.dtype == np.uint8
    # Each pixel is kept by one of the two and painted over by the other.
    assert ((without == fill) ^ (only == fill)).all()
    assert (only[mask] == pixels[mask]).all()
    assert (without[mask] == fill).all()


@given(masks)
def test_the_outline_of_the_lungs_is_not_to_be_seen(mask: np.ndarray) -> None:
    blanked = blank_lungs(np.zeros(mask.shape, np.uint8), mask, 1).astype(bool)

    for one, box in zip(mask, blanked, strict=True):
        rows, columns = np.nonzero(one)
        expected = np.zeros_like(one)
        if len(rows):
            expected[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
        np.testing.assert_array_equal(box, expected)


def test_the_images_themselves_stay_as_they_are() -> None:
    pixels = np.arange(16, dtype=np.uint8).reshape(1, 4, 4)
    mask = pixels == 5

    assert blank_lungs(pixels, mask, 99)[0, 1].tolist() == [4, 99, 6, 7]
    assert blank_background(pixels, mask, 99)[0, 1].tolist() == [99, 5, 99, 99]
    assert pixels[0, 1, 1] == 5


def test_the_probes_are_the_test_images_with_a_part_painted_over() -> None:
    rows = pd.DataFrame({"image_id": ["a", "b"]})
    test = Images(np.arange(32, dtype=np.uint8).reshape(2, 4, 4), np.array([1, 0]), np.array(["a", "b"]), rows)
    masks = test.pixels % 16 == 5

    probes = blanked_images(test, masks, 99)

    assert list(probes) == ["lungs", "background"]
    np.testing.assert_array_equal(probes["lungs"].pixels, blank_lungs(test.pixels, masks, 99))
    np.testing.assert_array_equal(probes["background"].pixels, blank_background(test.pixels, masks, 99))
    for images in probes.values():
        assert images.labels is test.labels and images.rows is rows


def test_the_gray_is_one_of_all_training_images() -> None:
    assert mean_gray(np.array([[[0, 255], [10, 12]], [[1, 2], [3, 5]]], np.uint8)) == 36
