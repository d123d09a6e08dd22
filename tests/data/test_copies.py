"""Laws of copies: whatever shows a real picture is found with the split of that picture, and nothing else is."""

import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from cxr_tasks.config import resolve
from cxr_tasks.data.copies import (
    ALTERED,
    COPY_COLUMNS,
    NEAR_DUPLICATE,
    SAME_FILE,
    are_held_out,
    are_training,
    copies_in_words,
    copies_of_real,
    count_copies,
)
from cxr_tasks.gan.filtering import fingerprints

LIMITS = resolve("quick").data.near_duplicates
SPLITS = ["train", "validation", "test"]


def pictures(seed: int, count: int, side: int = 64) -> np.ndarray:
    """(count, side, side) uint8 of unrelated smooth pictures."""
    fields = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(count, side, side)), (0, 3, 3))
    return np.clip(128 + 40 * fields / fields.std(), 0, 255).astype(np.uint8)


def listed(pixels: np.ndarray, name: str) -> tuple[pd.DataFrame, np.ndarray]:
    """What a shard knows of images, and their thumbnails."""
    hashes, thumbnails = fingerprints(pixels)
    ids = [f"{name}-{n}" for n in range(len(pixels))]
    rows = pd.DataFrame({"image_id": ids, "path": [f"{each}.png" for each in ids], "label": "COVID"})
    return rows.assign(dhash=[f"{value:016x}" for value in hashes.tolist()]), thumbnails


REAL_PIXELS = pictures(0, 30)
REAL, REAL_THUMBNAILS = listed(REAL_PIXELS, "real")
REAL = REAL.assign(split=[SPLITS[n % 3] for n in range(len(REAL))])


def found(pixels: np.ndarray) -> pd.DataFrame:
    return copies_of_real(*listed(pixels, "made"), REAL, REAL_THUMBNAILS, LIMITS)


def as_jpeg(image: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=80)
    return np.asarray(Image.open(buffer))


def test_unrelated_pictures_are_no_copies() -> None:
    assert found(pictures(1, 40)).empty
    assert found(np.empty((0, 64, 64), np.uint8)).columns.tolist() == COPY_COLUMNS


@pytest.mark.parametrize(
    ("altered", "how"),
    [
        (as_jpeg, NEAR_DUPLICATE),
        (lambda image: np.clip(image.astype(int) + 12, 0, 255).astype(np.uint8), NEAR_DUPLICATE),
        (lambda image: np.asarray(Image.fromarray(image).resize((48, 48)).resize((64, 64))), NEAR_DUPLICATE),
        (lambda image: np.ascontiguousarray(image[:, ::-1]), ALTERED),
    ],
)
def test_a_copy_is_found_however_it_was_saved(altered, how) -> None:
    made = np.concatenate([pictures(1, 3), altered(REAL_PIXELS[5])[None]])

    (copy,) = found(made).itertuples()

    assert (copy.image_id, copy.copy, copy.split) == ("made-3", how, "test")
    assert (copy.real_id, copy.real_path) == ("real-5", "real-5.png")


def test_the_same_file_is_known_by_its_hash() -> None:
    rows, thumbnails = listed(pictures(1, 2), "made")
    rows.loc[1, "image_id"] = "real-3"

    (copy,) = copies_of_real(rows, thumbnails, REAL, REAL_THUMBNAILS, LIMITS).itertuples()

    assert (copy.copy, copy.split, copy.path) == (SAME_FILE, "train", "made-1.png")


def test_of_several_real_images_the_one_counts_that_the_test_rests_on() -> None:
    twice = pd.concat([REAL, REAL.iloc[[5]].assign(image_id="again", split="train")], ignore_index=True)
    thumbnails = np.concatenate([REAL_THUMBNAILS, REAL_THUMBNAILS[[5]]])

    (copy,) = copies_of_real(*listed(REAL_PIXELS[[5]], "made"), twice, thumbnails, LIMITS).itertuples()

    assert copy.split == "test"


@given(st.permutations(range(12)))
@settings(max_examples=15, deadline=None)
def test_the_order_of_the_images_changes_nothing(order: list[int]) -> None:
    made = np.concatenate([REAL_PIXELS[[0, 1, 2, 7]], pictures(3, 8)])
    rows, thumbnails = listed(made, "made")

    one = copies_of_real(rows, thumbnails, REAL, REAL_THUMBNAILS, LIMITS)
    other = copies_of_real(rows.iloc[order].reset_index(drop=True), thumbnails[order], REAL, REAL_THUMBNAILS, LIMITS)

    assert one["image_id"].tolist() == ["made-0", "made-1", "made-2", "made-3"]
    pd.testing.assert_frame_equal(one, other.sort_values("image_id", ignore_index=True))
    held_out = are_held_out(rows, one)
    assert held_out.sum() == 3 and are_training(rows, one).sum() == 1
    assert not (held_out & are_training(rows, one)).any()


def test_copies_are_counted_and_named_by_split_the_test_set_first() -> None:
    copies = found(REAL_PIXELS[[0, 3, 5]])

    assert count_copies(copies) == {"test": 1, "train": 2}
    of_test, of_training = copies_in_words(copies, 40)
    assert of_test.startswith(
        "1 of 40 synthetic images copy real test images, for example made-2.png (a near-duplicate of real-5.png). "
        "They are left out."
    )
    assert of_training.startswith("2 of 40 synthetic images copy real train images") and "left out" not in of_training
