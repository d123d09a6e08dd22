"""Splits come with their own pixels; synthetic images stay out of them and out of the GAN, and join training only."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr_tasks.config import SyntheticSettings
from cxr_tasks.data.added import counts_to_add
from cxr_tasks.data.dataset import (
    Images,
    centre_box,
    check_gan_input,
    read_manifest,
    rows_of,
    select,
    select_masks,
    select_resized,
)
from cxr_tasks.data.ingest import pixels_file
from cxr_tasks.data.masks import masks_file
from cxr_tasks.data.split import SPLITS
from cxr_tasks.errors import DataError
from tests.data.reading import data_settings, read_folder, split

CLASSES = ["COVID", "Normal", "Viral Pneumonia"]
SIZE = 8


@pytest.fixture
def manifest() -> pd.DataFrame:
    """Ten used images in two shards; the n-th of them is gray all over with value n. One more was set aside."""
    images = pd.DataFrame(
        {
            "image_id": [f"image-{n}" for n in range(10)],
            "label": [CLASSES[n % 3] for n in range(10)],
            "group": [f"P{n}" for n in range(10)],
            "provenance": "real",
            "split": ["train", "test", "train", "validation", "train"] * 2,
            "shard": [n % 2 for n in range(10)],
            # The first row of each shard is that of a file that was set aside.
            "row": [1 + n // 2 for n in range(10)],
        }
    )
    aside = images.iloc[:1].assign(image_id="bad", split="", shard=0, row=0)
    return pd.concat([images, aside], ignore_index=True)


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    folders = [tmp_path / "even", tmp_path / "odd"]
    for first, folder in enumerate(folders):
        folder.mkdir()
        for size in (SIZE, 2 * SIZE):
            # Those of twice the size can be told by 100 more.
            grays = np.array([255, *range(first, 10, 2)], np.uint8) + 100 * (size > SIZE)
            np.save(folder / pixels_file(size), np.broadcast_to(grays[:, None, None], (6, size, size)))
    return folders


@pytest.mark.parametrize(
    ("split_name", "numbers"), [("train", [0, 2, 4, 5, 7, 9]), ("validation", [3, 8]), ("test", [1, 6])]
)
def test_split_comes_with_its_own_pixels(
    manifest: pd.DataFrame, shards: list[Path], split_name: str, numbers: list[int]
) -> None:
    images = select(manifest, shards, split_name, SIZE, CLASSES)

    assert len(images) == len(numbers)
    assert (images.pixels.dtype, images.pixels.shape) == (np.uint8, (len(numbers), SIZE, SIZE))
    assert images.pixels[:, 0, 0].tolist() == numbers
    assert images.ids.tolist() == [f"image-{n}" for n in numbers]
    assert images.labels.tolist() == [n % 3 for n in numbers]
    assert images.rows["group"].tolist() == [f"P{n}" for n in numbers]


def test_of_a_manifest_what_is_asked_for_is_read(manifest: pd.DataFrame, tmp_path: Path) -> None:
    manifest.to_parquet(tmp_path / "manifest.parquet", index=False)

    some = read_manifest(tmp_path / "manifest.parquet", ["image_id", "window", "row"], "test")

    # An old dataset lacks columns. Those that are there come as they are, with or without that of the split.
    asked = manifest.loc[manifest["split"] == "test", ["image_id", "row"]].reset_index(drop=True)
    pd.testing.assert_frame_equal(some, asked)
    pd.testing.assert_frame_equal(read_manifest(tmp_path / "manifest.parquet"), manifest)


def test_the_order_of_the_manifest_is_that_of_the_images(manifest: pd.DataFrame, shards: list[Path]) -> None:
    turned = select(manifest.iloc[::-1], shards, "train", SIZE, CLASSES)

    assert turned.pixels[:, 0, 0].tolist() == [9, 7, 5, 4, 2, 0]


def test_labels_follow_the_order_of_the_classes(manifest: pd.DataFrame, shards: list[Path]) -> None:
    images = select(manifest, shards, "validation", SIZE, CLASSES[::-1])

    assert images.labels.tolist() == [2, 0]  # COVID, Viral Pneumonia


def test_another_size_is_made_of_the_largest_where_that_is_asked_for(
    manifest: pd.DataFrame, shards: list[Path]
) -> None:
    assert select_resized(manifest, shards, "test", SIZE, CLASSES, "area").pixels[:, 0, 0].tolist() == [1, 6]
    with pytest.raises(FileNotFoundError):
        select(manifest, shards, "test", 12, CLASSES)

    images = select_resized(manifest, shards, "test", 12, CLASSES, "bilinear")

    assert images.pixels.shape == (2, 12, 12)
    assert images.pixels[:, 5, 5].tolist() == [101, 106]


def test_masks_come_in_the_order_of_the_images_with_a_box_where_there_is_none(
    manifest: pd.DataFrame, shards: list[Path]
) -> None:
    marked = np.zeros((6, SIZE, SIZE), bool)
    marked[np.arange(6), 0, np.arange(6)] = True  # the row of the shard can be told
    np.save(shards[0] / masks_file(SIZE), np.packbits(marked, axis=-1))
    manifest["mask"] = manifest["shard"] == 0

    masks, given = select_masks(rows_of(manifest, "train"), shards, SIZE)

    images = select(manifest, shards, "train", SIZE, CLASSES)
    assert given.tolist() == [True, True, True, False, False, False]
    assert images.pixels[given, 0, 0].tolist() == [0, 2, 4]
    np.testing.assert_array_equal(masks[given], marked[[1, 2, 3]])
    assert (masks[~given] == centre_box(SIZE)).all()


def test_a_dataset_of_before_masks_were_read_has_none(manifest: pd.DataFrame, shards: list[Path]) -> None:
    masks, given = select_masks(rows_of(manifest, "test"), shards, SIZE)

    assert masks.shape == (2, SIZE, SIZE) and not given.any()
    with pytest.raises(DataError, match="The nothing split is empty"):
        rows_of(manifest, "nothing")


def test_the_centre_box_is_where_the_lungs_of_phantoms_are(phantoms: Path) -> None:
    lungs = np.mean([np.asarray(Image.open(path)) == 255 for path in phantoms.glob("*/masks/*.png")], axis=0)

    box = centre_box(256)

    assert lungs[~box].sum() < 0.05 * lungs.sum()
    assert box.mean() == pytest.approx(0.7 * 0.74, abs=0.01)


def test_a_folder_becomes_splits_with_the_right_pixels(phantoms: Path, tmp_path: Path) -> None:
    settings = data_settings(shard_images=50)
    reading = read_folder(phantoms, tmp_path, settings, (32,))
    manifest = split(reading, settings)

    paths: list[str] = []
    for name in SPLITS:
        images = select(manifest, reading.shards, name, 32, settings.classes)
        for pixels, label, row in zip(images.pixels, images.labels, images.rows.itertuples(), strict=True):
            assert row.source.startswith("phantom-collection-")
            with Image.open(phantoms / row.path) as image:
                np.testing.assert_array_equal(pixels, image.resize((32, 32), Image.Resampling.BILINEAR))
            assert row.path.startswith(settings.classes[label])
        paths += images.rows["path"].tolist()
    assert sorted(paths) == sorted(reading.files["path"])


@pytest.mark.parametrize(("split_name", "row"), [("train", 4), ("validation", 8), ("test", 6)])
@pytest.mark.parametrize("provenance", ["synthetic", "Real", "", None])
def test_an_image_in_a_split_that_is_not_real_stops(
    manifest: pd.DataFrame, shards: list[Path], split_name: str, row: int, provenance: str | None
) -> None:
    manifest.loc[row, "provenance"] = provenance

    with pytest.raises(DataError) as raised:
        select(manifest, shards, split_name, SIZE, CLASSES)

    assert str(raised.value) == (
        f"1 synthetic images are in the {split_name} split: only real images may be there. "
        "Synthetic images join the training set of an arm and nothing else."
    )


def test_empty_split_stops(manifest: pd.DataFrame, shards: list[Path]) -> None:
    manifest["split"] = "train"

    with pytest.raises(DataError, match="The test split is empty: the dataset is too small for its split fractions"):
        select(manifest, shards, "test", SIZE, CLASSES)


def synthetic(count: int, size: int) -> Images:
    rng = np.random.default_rng(0)
    ids = np.array([f"synthetic-{n}" for n in range(count)], dtype=str)
    rows = pd.DataFrame({"image_id": ids, "label": "COVID", "group": ids, "provenance": "synthetic"})
    return Images(rng.integers(0, 256, (count, size, size), np.uint8), np.zeros(count, np.int64), ids, rows)


def test_the_gan_may_see_training_images(manifest: pd.DataFrame, shards: list[Path]) -> None:
    check_gan_input(select(manifest, shards, "train", SIZE, CLASSES))


@pytest.mark.parametrize(("split_name", "count"), [("validation", 2), ("test", 2)])
def test_the_gan_may_not_see_held_out_images(
    manifest: pd.DataFrame, shards: list[Path], split_name: str, count: int
) -> None:
    with pytest.raises(DataError) as raised:
        check_gan_input(select(manifest, shards, split_name, SIZE, CLASSES))

    assert str(raised.value) == (
        f"{count} images of the split '{split_name}' were given to the GAN: "
        "it may see training images only, or its copies of them would leak into the test."
    )


def test_one_held_out_image_among_training_images_is_found(manifest: pd.DataFrame, shards: list[Path]) -> None:
    images = select(manifest, shards, "train", SIZE, CLASSES)
    images.rows.loc[2, "split"] = ""

    with pytest.raises(DataError, match="1 images of the split '' were given to the GAN"):
        check_gan_input(images)


def test_the_gan_may_not_see_synthetic_images(manifest: pd.DataFrame, shards: list[Path]) -> None:
    train = select(manifest, shards, "train", SIZE, CLASSES)

    for images in (synthetic(3, SIZE), train.followed_by(synthetic(3, SIZE))):
        with pytest.raises(DataError, match="3 synthetic images are in the GAN's training split"):
            check_gan_input(images)


def asked_for(counts: Any) -> SyntheticSettings:
    return SyntheticSettings(counts=counts, min_class_probability=0, drop_near_copies=False, png=False)


def test_balance_lifts_every_class_to_the_largest() -> None:
    settings = asked_for("balance")

    counts = counts_to_add(settings, {"COVID": 3, "Normal": 10, "Viral Pneumonia": 1})

    assert counts == {"COVID": 7, "Normal": 0, "Viral Pneumonia": 9}


def test_fixed_counts_are_taken_in_the_order_of_the_classes() -> None:
    settings = asked_for({"Viral Pneumonia": 5, "COVID": 4880})

    counts = counts_to_add(settings, {"COVID": 3, "Normal": 10, "Viral Pneumonia": 1})

    assert list(counts.items()) == [("COVID", 4880), ("Normal", 0), ("Viral Pneumonia", 5)]


def test_synthetic_images_follow_the_real_ones(manifest: pd.DataFrame, shards: list[Path]) -> None:
    train, made = select(manifest, shards, "train", SIZE, CLASSES), synthetic(3, SIZE)

    both = train.followed_by(made)

    assert (both.pixels.shape, both.pixels.dtype) == ((9, SIZE, SIZE), np.uint8)
    np.testing.assert_array_equal(both.pixels[:6], train.pixels)
    np.testing.assert_array_equal(both.pixels[6:], made.pixels)
    assert both.labels.tolist() == [*train.labels, 0, 0, 0]
    assert both.ids.tolist() == [*train.ids, "synthetic-0", "synthetic-1", "synthetic-2"]
    assert both.rows["provenance"].tolist() == ["real"] * 6 + ["synthetic"] * 3


def test_no_synthetic_images_change_nothing(manifest: pd.DataFrame, shards: list[Path]) -> None:
    train = select(manifest, shards, "train", SIZE, CLASSES)

    both = train.followed_by(synthetic(0, SIZE))

    np.testing.assert_array_equal(both.pixels, train.pixels)
    pd.testing.assert_frame_equal(both.rows[train.rows.columns], train.rows, check_dtype=False)


def test_images_may_be_taken_more_than_once(manifest: pd.DataFrame, shards: list[Path]) -> None:
    taken = select(manifest, shards, "train", SIZE, CLASSES).take(np.array([4, 0, 4]))

    assert taken.pixels[:, 0, 0].tolist() == [7, 0, 7]
    assert taken.ids.tolist() == taken.rows["image_id"].tolist() == ["image-7", "image-0", "image-7"]
    assert taken.rows.index.tolist() == [0, 1, 2]
