"""Images with what is known of them, read from a manifest and its shards, training images apart from the rest.

The guard against synthetic images among real ones, and against held-out images in training, stands here, at the door.
A published dataset finds its manifest and shards by itself: see ``artifacts.Dataset``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pandas.api.extensions import ExtensionArray

from cxr_tasks.data.ingest import pixels_file
from cxr_tasks.data.masks import masks_file, unpack_masks
from cxr_tasks.data.resizing import resize_stack
from cxr_tasks.data.stacks import Rows, RowStack, as_stack, joined, mapped, packed
from cxr_tasks.errors import DataError
from cxr_tasks.image_settings import ResizeName

# What a manifest says of images that trainings ask for. Of a million images, the rest would fill the memory.
OF_IMAGES = (
    "image_id",
    "label",
    "source",
    "group",
    "inverted",
    "window",
    "mask",
    "split",
    "provenance",
    "shard",
    "row",
)
ROWS_READ_AT_ONCE, BYTES_READ_AT_ONCE = 2**14, 2**16
LUNG_BOX = (0.13, 0.83, 0.13, 0.87)  # top and bottom, left and right, as shares of the side


@dataclass(frozen=True)
class Images:
    """Pixels with what is known of them.

    Attributes:
        pixels: (n, S, S) uint8, in memory or a stack.
        labels: (n,) int64, positions in the class list.
        ids: (n,) text, as an array of Arrow's where they came from a manifest: objects would take twice as much.
        rows: n rows of a manifest, with ``OF_IMAGES`` as far as they are known.
    """

    pixels: Rows
    labels: np.ndarray
    ids: np.ndarray | ExtensionArray
    rows: pd.DataFrame

    def __len__(self) -> int:
        """The number of images."""
        return len(self.pixels)

    def take(self, positions: np.ndarray) -> Images:
        """The images at ``positions``, which may hold a position more than once."""
        rows = self.rows.iloc[positions].reset_index(drop=True)
        return Images(as_stack(self.pixels).chosen(positions), self.labels[positions], self.ids[positions], rows)

    def resized(self, size: int, resize: ResizeName) -> Images:
        """The same images at another side. Each is resized whenever it is asked for."""
        if self.pixels.shape[1:] == (size, size):
            return self
        work = partial(_resized, size=size, resize=resize)
        return replace(self, pixels=as_stack(self.pixels).each(work, (size, size)))

    def followed_by(self, others: Images) -> Images:
        """These images and then ``others``, which have the same side."""
        return Images(
            joined([self.pixels, others.pixels]),
            np.concatenate([self.labels, others.labels]),
            pd.concat([pd.Series(self.ids, dtype="str"), pd.Series(others.ids, dtype="str")]).array,
            pd.concat([self.rows, others.rows], ignore_index=True),
        )


def _resized(pixels: np.ndarray, _: np.ndarray, size: int, resize: ResizeName) -> np.ndarray:
    return resize_stack(pixels, size, resize)


def select_resized(
    manifest: pd.DataFrame, shards: Sequence[Path], split: str, size: int, classes: Sequence[str], resize: ResizeName
) -> Images:
    """As :func:`select`; images that are not packed at ``size`` are resized from the largest size that is packed."""
    if (shards[0] / pixels_file(size)).is_file():
        return select(manifest, shards, split, size, classes)
    return select_largest(manifest, shards, split, classes).resized(size, resize)


def select_largest(manifest: pd.DataFrame, shards: Sequence[Path], split: str, classes: Sequence[str]) -> Images:
    """As :func:`select`, at the largest size that is packed."""
    largest = max(int(path.stem.split("-")[1]) for path in shards[0].glob("pixels-*.npy"))
    return select(manifest, shards, split, largest, classes)


def select(manifest: pd.DataFrame, shards: Sequence[Path], split: str, size: int, classes: Sequence[str]) -> Images:
    """The images of one split at ``size``, which are read from their shards when they are asked for.

    Args:
        manifest: A row an image, with the column ``split``; ``shard`` and ``row`` say where its pixels are.
        shards: Folders with packed pixels.
        split: ``train``, ``validation`` or ``test``.
        size: Side in pixels that is packed there.
        classes: The classes in their order.

    Raises:
        DataError: The split holds an image that is not real, or is empty.
    """
    rows = rows_of(manifest, split)
    pixels = packed_rows(rows, [shard / pixels_file(size) for shard in shards])
    labels = pc.index_in(pa.array(rows["label"]), pa.array(classes, pa.string())).to_numpy().astype(np.int64)
    return Images(pixels, labels, rows["image_id"].array, rows)


def read_manifest(path: Path, columns: Sequence[str] | None = None, split: str | None = None) -> pd.DataFrame:
    """Rows of the manifest in a file.

    Args:
        path: The file.
        columns: Those to read, as far as the file has them; ``None`` for all.
        split: The only one to read; ``None`` for all rows.
    """
    # A buffer, or a whole column chunk is read at once; one thread, because each would keep memory of its own.
    with pq.ParquetFile(path, memory_map=True, buffer_size=BYTES_READ_AT_ONCE) as file:
        schema = file.schema_arrow
        there = [name for name in schema.names if columns is None or name in columns]
        asked = there if split is None or "split" in there else [*there, "split"]
        # Some at a time: what Arrow reads and leaves out would fill as much memory as what stays.
        parts = [pa.table({name: pa.array([], schema.field(name).type) for name in there})]
        for batch in file.iter_batches(ROWS_READ_AT_ONCE, columns=asked, use_threads=False):
            rows = pa.table(batch)
            parts.append((rows if split is None else rows.filter(pc.equal(rows["split"], split))).select(there))
    whole = pa.concat_tables(parts).replace_schema_metadata(schema.metadata)
    del parts
    table = whole.to_pandas(split_blocks=True, self_destruct=True)
    pa.default_memory_pool().release_unused()
    return table


def packed_rows(rows: pd.DataFrame, files: Sequence[Path]) -> RowStack:
    """What the shards' ``.npy`` files hold of ``rows`` of a manifest. Only files that hold any are opened."""
    numbers, places = rows["shard"].to_numpy(np.int32), rows["row"].to_numpy(np.int32)
    opened = {int(n): mapped(files[n]) for n in (np.unique(numbers) if len(rows) else [0])}
    return packed([opened.get(n, np.empty(0)) for n in range(len(files))], numbers, places)


def rows_of(manifest: pd.DataFrame, split: str) -> pd.DataFrame:
    """The rows of one split.

    Raises:
        DataError: The split holds an image that is not real, or is empty.
    """
    rows = manifest[manifest["split"] == split].reset_index(drop=True)
    check_real(rows, split)
    if rows.empty:
        raise DataError(f"The {split} split is empty: the dataset is too small for its split fractions.")
    return rows


def select_masks(rows: pd.DataFrame, shards: Sequence[Path], size: int) -> tuple[RowStack, np.ndarray]:
    """The lung masks of ``rows`` of a manifest, which are read from their shards when they are asked for.

    Returns:
        The masks (n, size, size) bool, True in the lungs, with :func:`centre_box` for images that have none; and
        whether each image has one (n,) bool.
    """
    box = centre_box(size)
    # A dataset that was published before masks were read says nothing of them.
    given = rows["mask"].to_numpy(bool) if "mask" in rows else np.zeros(len(rows), bool)
    # The place of each image that has one, among those.
    place = np.cumsum(given) - 1
    there = packed_rows(rows[given], [shard / masks_file(size) for shard in shards]) if given.any() else None

    def read(positions: np.ndarray) -> np.ndarray:
        masks = np.broadcast_to(box, (len(positions), size, size)).copy()
        some = given[positions]
        if there is not None:
            masks[some] = unpack_masks(there[place[positions[some]]], size)
        return masks

    return RowStack(read, (len(rows), size, size), bool), given


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
        DataError: Naming the split and the number of such images.
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
        DataError: Naming what else there is.
    """
    check_real(images.rows, "GAN's training")
    if held_out := sorted(set(images.rows["split"]) - {"train"}):
        count = int((images.rows["split"] != "train").sum())
        raise DataError(
            f"{count} images of the split {', '.join(map(repr, held_out))} were given to the GAN: "
            "it may see training images only, or its copies of them would leak into the test."
        )
