"""Splits come with their own pixels, synthetic images stay out of them, and join a training set behind the real."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr_tasks.config import SyntheticSettings
from cxr_tasks.data.dataset import Images, load_images, select
from cxr_tasks.data.ingest import pixels_file
from cxr_tasks.data.synthetic import counts_per_class, with_synthetic
from cxr_tasks.errors import DataError
from cxr_tasks.store import FolderStore

CLASSES = ["COVID", "Normal", "Viral Pneumonia"]
SIZE = 8


@pytest.fixture
def manifest() -> pd.DataFrame:
    """Ten images; the n-th of them is gray all over with value n."""
    return pd.DataFrame(
        {
            "image_id": [f"image-{n}" for n in range(10)],
            "label": [CLASSES[n % 3] for n in range(10)],
            "group": [f"P{n}" for n in range(10)],
            "provenance": "real",
            "split": ["train", "test", "train", "validation", "train"] * 2,
        }
    )


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    pixels = np.repeat(np.arange(10, dtype=np.uint8), SIZE * SIZE).reshape(10, SIZE, SIZE)
    np.save(tmp_path / pixels_file(SIZE), pixels)
    return tmp_path


@pytest.mark.parametrize(
    ("split", "numbers"), [("train", [0, 2, 4, 5, 7, 9]), ("validation", [3, 8]), ("test", [1, 6])]
)
def test_split_comes_with_its_own_pixels(manifest: pd.DataFrame, packed: Path, split: str, numbers: list[int]) -> None:
    images = select(manifest, packed, split, SIZE, CLASSES)

    assert len(images) == len(numbers)
    assert images.pixels.shape == (len(numbers), SIZE, SIZE)
    assert images.pixels[:, 0, 0].tolist() == numbers
    assert images.ids.tolist() == [f"image-{n}" for n in numbers]
    assert images.labels.tolist() == [n % 3 for n in numbers]
    assert images.rows["group"].tolist() == [f"P{n}" for n in numbers]


def test_labels_follow_the_order_of_the_classes(manifest: pd.DataFrame, packed: Path) -> None:
    images = select(manifest, packed, "validation", SIZE, CLASSES[::-1])

    assert images.labels.tolist() == [2, 0]  # COVID, Viral Pneumonia


def test_published_dataset_is_read_with_the_pixels_it_was_split_from(
    manifest: pd.DataFrame, packed: Path, store: FolderStore
) -> None:
    with store.publish("ingest/a", {}) as folder:
        (packed / pixels_file(SIZE)).rename(folder / pixels_file(SIZE))
    with store.publish("split/b", {"inputs": {"ingest": "ingest/a"}}) as folder:
        manifest.to_parquet(folder / "manifest.parquet", index=False)

    images = load_images("split/b", "test", SIZE, CLASSES)

    assert images.pixels[:, 0, 0].tolist() == [1, 6]


@pytest.mark.parametrize(("split", "row"), [("train", 4), ("validation", 8), ("test", 6)])
def test_synthetic_image_in_a_split_stops(manifest: pd.DataFrame, packed: Path, split: str, row: int) -> None:
    manifest.loc[row, "provenance"] = "synthetic"

    with pytest.raises(DataError) as raised:
        select(manifest, packed, split, SIZE, CLASSES)

    assert str(raised.value) == (
        f"1 synthetic images are in the {split} split: only real images may be there. "
        "Synthetic images join the training set of an arm and nothing else."
    )


def test_pixels_of_another_manifest_stop(manifest: pd.DataFrame, packed: Path) -> None:
    with pytest.raises(DataError, match=r"10 packed images for 9 manifest rows: ingest again"):
        select(manifest.iloc[:9], packed, "train", SIZE, CLASSES)


def test_empty_split_stops(manifest: pd.DataFrame, packed: Path) -> None:
    manifest["split"] = "train"

    with pytest.raises(DataError, match="The test split is empty: the dataset is too small for its split fractions"):
        select(manifest, packed, "test", SIZE, CLASSES)


def test_balance_lifts_every_class_to_the_largest() -> None:
    settings = SyntheticSettings(counts="balance")

    counts = counts_per_class(settings, {"COVID": 3, "Normal": 10, "Viral Pneumonia": 1})

    assert counts == {"COVID": 7, "Normal": 0, "Viral Pneumonia": 9}


def test_fixed_counts_are_taken_in_the_order_of_the_classes() -> None:
    settings = SyntheticSettings(counts={"Viral Pneumonia": 5, "COVID": 4880})

    counts = counts_per_class(settings, {"COVID": 3, "Normal": 10, "Viral Pneumonia": 1})

    assert list(counts.items()) == [("COVID", 4880), ("Normal", 0), ("Viral Pneumonia", 5)]


def synthetic(count: int, size: int) -> Images:
    rng = np.random.default_rng(0)
    ids = np.array([f"synthetic-{n}" for n in range(count)], dtype=str)
    rows = pd.DataFrame({"image_id": ids, "label": "COVID", "group": ids, "provenance": "synthetic"})
    return Images(rng.integers(0, 256, (count, size, size), np.uint8), np.zeros(count, np.int64), ids, rows)


@pytest.mark.parametrize("size", [4, SIZE, 12])
def test_synthetic_images_follow_the_real_ones_at_their_size(manifest: pd.DataFrame, packed: Path, size: int) -> None:
    train, made = select(manifest, packed, "train", SIZE, CLASSES), synthetic(3, size)

    both = with_synthetic(train, made)

    assert (both.pixels.shape, both.pixels.dtype) == ((9, SIZE, SIZE), np.uint8)
    np.testing.assert_array_equal(both.pixels[:6], train.pixels)
    for image, original in zip(both.pixels[6:], made.pixels, strict=True):
        resized = Image.fromarray(original).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(image, np.asarray(resized))
    assert both.labels.tolist() == [*train.labels, 0, 0, 0]
    assert both.ids.tolist() == [*train.ids, "synthetic-0", "synthetic-1", "synthetic-2"]
    assert both.rows["provenance"].tolist() == ["real"] * 6 + ["synthetic"] * 3


def test_no_synthetic_images_change_nothing(manifest: pd.DataFrame, packed: Path) -> None:
    train = select(manifest, packed, "train", SIZE, CLASSES)

    both = with_synthetic(train, synthetic(0, SIZE))

    np.testing.assert_array_equal(both.pixels, train.pixels)
    pd.testing.assert_frame_equal(both.rows[train.rows.columns], train.rows)
