"""A split dataset as later steps read it: manifest rows with their pixels, training images apart from the rest.

The guard against synthetic images where only real ones may be, and against held-out images in training, stands
here, at the door.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from cxr_tasks.data.ingest import MANIFEST, pixels_file
from cxr_tasks.data.masks import masks_file, unpack
from cxr_tasks.errors import DataError
from cxr_tasks.store import open_store

LUNG_BOX = (0.13, 0.83, 0.13, 0.87)  # top and bottom, left and right, as shares of the side


@dataclass(frozen=True)
class Images:
    """Pixels with what is known of them.

    ``pixels``: (n, S, S) uint8. ``labels``: (n,) int64, positions in the class list. ``ids``: (n,) text.
    """

    pixels: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    rows: pd.DataFrame

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, rows: np.ndarray) -> Images:
        """The images at positions ``rows``, which may come more than once."""
        return Images(self.pixels[rows], self.labels[rows], self.ids[rows], self.rows.iloc[rows].reset_index(drop=True))

    def resized(self, size: int) -> Images:
        """The same images at another side."""
        if size == self.pixels.shape[1]:
            return self
        scaled = [
            np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)) for image in self.pixels
        ]
        return replace(self, pixels=np.stack(scaled) if scaled else np.empty((0, size, size), np.uint8))


def load_images(dataset_ref: str, split: str, size: int, classes: Sequence[str], *, resize: bool = False) -> Images:
    """The images of one split of a published dataset, at ``size``; see :func:`select`.

    Where they are not packed at ``size``, ``resize`` takes them from the largest size there is.
    """
    manifest, shards = _published(dataset_ref)
    if resize and not (shards[0] / pixels_file(size)).is_file():
        largest = max(int(path.stem.split("-")[1]) for path in shards[0].glob("pixels-*.npy"))
        return select(manifest, shards, split, largest, classes).resized(size)
    return select(manifest, shards, split, size, classes)


def select(manifest: pd.DataFrame, shards: Sequence[Path], split: str, size: int, classes: Sequence[str]) -> Images:
    """The images of one split at ``size``, read from their shards.

    Args:
        manifest: with the column ``split``; ``shard`` and ``row`` say where an image's pixels are.
        shards: folders with packed pixels.

    Raises:
        DataError: the split holds an image that is not real, or is empty.
    """
    rows = _rows_of(manifest, split)
    pixels = np.empty((len(rows), size, size), np.uint8)
    for number, chosen in rows.groupby("shard").indices.items():
        packed = np.load(shards[number] / pixels_file(size), mmap_mode="r")
        pixels[chosen] = packed[rows["row"].to_numpy()[chosen]]
    labels = rows["label"].map({name: i for i, name in enumerate(classes)}).to_numpy(np.int64)
    return Images(pixels, labels, rows["image_id"].to_numpy(str), rows)


def _published(dataset_ref: str) -> tuple[pd.DataFrame, list[Path]]:
    """The manifest of a published dataset, and the folders of its shards."""
    store = open_store()
    folder, record = store.fetch(dataset_ref), store.record(dataset_ref)
    assert record is not None  # fetch would have raised
    return pd.read_parquet(folder / MANIFEST), [store.fetch(ref) for ref in record["summary"]["shards"]]


def _rows_of(manifest: pd.DataFrame, split: str) -> pd.DataFrame:
    rows = manifest[manifest["split"] == split].reset_index(drop=True)
    check_real(rows, split)
    if rows.empty:
        raise DataError(f"The {split} split is empty: the dataset is too small for its split fractions.")
    return rows


def load_masks(dataset_ref: str, split: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The lung masks of one split of a published dataset, in the order of :func:`load_images`.

    Returns:
        masks (n, size, size) bool, True in the lungs, with :func:`centre_box` for images that have none; and
        whether each image has one (n,) bool.
    """
    manifest, shards = _published(dataset_ref)
    return select_masks(_rows_of(manifest, split), shards, size)


def select_masks(rows: pd.DataFrame, shards: Sequence[Path], size: int) -> tuple[np.ndarray, np.ndarray]:
    """The masks of ``rows`` of a manifest, read from their shards; see :func:`load_masks`."""
    masks = np.broadcast_to(centre_box(size), (len(rows), size, size)).copy()
    # A dataset that was published before masks were read says nothing of them.
    given = rows["mask"].to_numpy(bool) if "mask" in rows else np.zeros(len(rows), bool)
    for number, chosen in rows[given].groupby("shard").indices.items():
        chosen = np.flatnonzero(given)[chosen]
        packed = np.load(shards[number] / masks_file(size), mmap_mode="r")
        masks[chosen] = unpack(packed[rows["row"].to_numpy()[chosen]], size)
    return masks, given


def centre_box(size: int) -> np.ndarray:
    """Where the lungs mostly are: (size, size) bool.

    The mean bounding box of both lungs in 300 phantoms, rounded: from 13 to 83 % of the height, from 13 to 87 % of
    the width. On the mean of 300 images of the real release it encloses both lungs just as closely.
    """
    box = np.zeros((size, size), bool)
    top, bottom, left, right = (round(share * size) for share in LUNG_BOX)
    box[top:bottom, left:right] = True
    return box


def check_real(rows: pd.DataFrame, split: str) -> None:
    """Stop if ``rows`` holds an image whose provenance is not ``real``.

    Raises:
        DataError: naming the split and the number of such images.
    """
    foreign = int((rows["provenance"] != "real").sum())
    if foreign:
        raise DataError(
            f"{foreign} synthetic images are in the {split} split: only real images may be there. "
            "Synthetic images join the training set of an arm and nothing else."
        )


def check_gan_input(images: Images) -> None:
    """Stop unless a GAN may see ``images``: real ones of the training split and nothing else.

    Raises:
        DataError: naming what else there is.
    """
    check_real(images.rows, "GAN's training")
    if held_out := sorted(set(images.rows["split"]) - {"train"}):
        count = int((images.rows["split"] != "train").sum())
        raise DataError(
            f"{count} images of the split {', '.join(map(repr, held_out))} were given to the GAN: "
            "it may see training images only, or its copies of them would leak into the test."
        )
