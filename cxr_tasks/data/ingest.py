"""Reads the files of one shard into rows and packed pixels, and joins the shards into the manifest.

A bad file is never fatal by itself: it becomes a row that is set aside with a reason. The expectations decide whether
the rest is good enough. Pixels stay in their shards; the manifest says where.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
from PIL import Image

from cxr_tasks.config import NearDuplicateSettings
from cxr_tasks.data.decode import (
    LARGEST_FILE,
    PLAINLY,
    THUMBNAIL_SIDE,
    Decoded,
    HowToRead,
    decode,
    difference_hash,
    too_large_a_file,
)
from cxr_tasks.data.duplicates import group_names, identical, near_duplicates, same_study
from cxr_tasks.data.facts import SAID
from cxr_tasks.data.formats import NotAsked, Unusable, is_dicom
from cxr_tasks.data.given import sacred_first
from cxr_tasks.data.inverted import CORRECTED, YES, is_inverted
from cxr_tasks.data.masks import decode_mask, masks_file
from cxr_tasks.data.scan import read_fault
from cxr_tasks.data.sites import with_site
from cxr_tasks.data.stacks import drop_pages, mapped, on_disk
from cxr_tasks.data.threads import in_blocks
from cxr_tasks.progress import advance

ROWS, MANIFEST, REJECTS, NEAR = "rows.parquet", "manifest.parquet", "rejects.parquet", "near-duplicates.parquet"
THUMBNAILS, REJECTED_FILES = "thumbnails.npy", "rejects"
# A file that is set aside cannot be used; one that is left out is of a kind that nobody asked for.
USED, SET_ASIDE, LEFT_OUT = "used", "set aside", "left out"
CHANGED = "the file changed while the data were read"
FACTS = ["width", "height", "mode", "window", "mean", "contrast", "dhash"]
# What the header of a DICOM file says beside ``facts.SAID``: two go into the manifest.
MILLIMETRES = ["width_mm", "height_mm"]
OF_HEADER = [*SAID, *MILLIMETRES, "burnt_in", "unsaid"]
MANIFEST_COLUMNS = [
    "image_id",
    "site",
    "path",
    "label",
    *SAID,
    "group",
    *FACTS,
    *MILLIMETRES,
    "inverted",
    "mask",
    "mask_id",
    "given",
    "split",
    "provenance",
    "status",
    "reason",
    "shard",
    "row",
]


class Passing(str):
    """A reason that speaks of the moment and not of the file. It may not be kept under the file's content."""


class LeftOut(str):
    """A reason that speaks of the settings and not of a fault of the file."""


# An image, or the reason why it cannot be used; and its packed masks, or why it has none ('' if there is no file).
FileContent = tuple[Decoded | str, list[np.ndarray] | str]


class FilesChanged(Exception):
    """Images or masks are not what the scan saw.

    Attributes:
        faults: What is wrong with each file, by its path.
    """

    def __init__(self, faults: dict[str, str]) -> None:
        """Files with these ``faults``."""
        super().__init__(f"{len(faults)} files changed or vanished after the data were scanned")
        self.faults = faults


def pixels_file(size: int) -> str:
    """Name of a shard's packed pixels: a ``.npy`` of (n, size, size) uint8, one row a row of the shard."""
    return f"pixels-{size}.npy"


def read_shard(
    root: Path,
    files: pd.DataFrame,
    sizes: Sequence[int],
    folder: Path,
    how: HowToRead = PLAINLY,
    *,
    correct: bool = False,
) -> pd.DataFrame:
    """Decode ``files`` into ``folder``: rows, packed pixels and masks, thumbnails, and copies of what is set aside.

    Args:
        root: The folder below which the files' paths can be opened.
        files: Rows of a scan.
        sizes: Sides in pixels to pack. Each image is resized from the original once for each. Without any, files are
            looked at and no pixels are kept.
        folder: Where the shard is written; must exist.
        how: How they become pixels.
        correct: Turn back the grays of inverted images: pixels, thumbnails and facts are then those of the X-ray.

    Returns:
        A row per file: ``image_id`` (SHA-256 of the file), ``path``, ``label``, ``status``, ``reason``, and of used
        images width and height in pixels, ``mode``, ``window`` (how more than 8 bits became 8, '' where there were no
        more), ``mean`` and ``contrast`` (mean and standard deviation of the gray values, 0–255), ``dhash`` (16
        hexadecimal digits), ``inverted`` (``no``, ``yes``, ``unsure``, or ``corrected`` where the pixels were turned
        back), ``mask`` (whether there is one that can be used), ``mask_id`` (SHA-256 of its file, '' where there is
        none) and ``mask_fault`` (why one cannot be used). Of DICOM files ``OF_HEADER``, with pseudonyms for patient and
        study; see :class:`cxr_tasks.data.dicom.header.Told`.

    Raises:
        FilesChanged: Files are not those that were scanned. Nothing of the shard may be kept then.
    """
    rows: list[dict[str, Any]] = []
    changed: dict[str, str] = {}
    listed = list(files.itertuples())
    with ExitStack() as stack:
        pack = _Pack(folder, sizes, len(listed), stack)
        for results in in_blocks(lambda file: _read_file(root, file, sizes, how), listed):
            block = listed[len(rows) : len(rows) + len(results)]
            pack.add(results)
            for file, (image, mask) in zip(block, results, strict=True):
                changed |= _changes_of_file(file, image, mask)
                rows.append(_row_of_file(file, image, mask))
            advance("read files", len(rows), len(listed))
    if changed:
        raise FilesChanged(changed)
    columns = ["image_id", "path", "label", "status", "reason", *FACTS, *OF_HEADER, "mask", "mask_id", "mask_fault"]
    table = pd.DataFrame(rows, columns=columns).astype({"mask": bool})
    table = table.astype({"width": "Int32", "height": "Int32", "mean": "float64", "contrast": "float64"})
    table["burnt_in"] = table["burnt_in"].eq(True)
    table = table.astype(dict.fromkeys(["age", *MILLIMETRES], "float64"))
    texts = [name for name in SAID if name != "age"] + ["unsaid"]
    table[texts] = table[texts].fillna("")
    used = (table["status"] == USED).to_numpy()
    table["inverted"] = ""
    table.loc[used, "inverted"] = is_inverted(pack.thumbnails[used])
    if correct:
        _correct(table, pack)
    pack.save(with_masks=bool(table["mask"].any()))
    table.to_parquet(folder / ROWS, index=False)
    _copy_rejected(root, table, folder / REJECTED_FILES)
    return table


def without_changed(files: pd.DataFrame, faults: Mapping[str, str]) -> pd.DataFrame:
    """What can still be read after :class:`FilesChanged`.

    Args:
        files: Rows of a scan.
        faults: Those of the error.

    Returns:
        A copy of the rows, in which changed images have a fault and changed masks no content.
    """
    left = files.copy()
    left["fault"] = left["path"].map(dict(faults)).fillna(left["fault"])
    left.loc[left["mask"].isin(list(faults)), "mask_sha256"] = ""
    return left


class _Pack:
    """What a shard holds beside its rows: pixels, masks and thumbnails, in the order of the files."""

    def __init__(self, folder: Path, sizes: Sequence[int], files: int, stack: ExitStack) -> None:
        """Begin the files of pixels, which ``stack`` closes."""
        self.folder = folder
        self.sizes = sizes
        self.streams = [stack.enter_context(_pixels(folder, size, files)) for size in sizes]
        self.blank = tuple(np.zeros((size, size), np.uint8) for size in sizes)
        self.thumbnails = np.zeros((files, THUMBNAIL_SIDE, THUMBNAIL_SIDE), np.uint8)
        self.masks = [np.zeros((files, size, -(-size // 8)), np.uint8) for size in sizes]
        self.filled = 0

    def add(self, results: Sequence[FileContent]) -> None:
        """Add what was read of the next files."""
        images = [image.images if isinstance(image, Decoded) else self.blank for image, _ in results]
        for stream, block in zip(self.streams, zip(*images, strict=True), strict=True):
            stream.write(b"".join(block))
        for place, (image, mask) in enumerate(results, start=self.filled):
            if isinstance(image, Decoded):
                self.thumbnails[place] = image.thumbnail
            if not isinstance(mask, str):
                for packed, bits in zip(self.masks, mask, strict=True):
                    packed[place] = bits
        self.filled += len(results)

    def invert(self, places: np.ndarray) -> None:
        """Turn the grays of the images at ``places`` round, after their streams were closed."""
        self.thumbnails[places] = 255 - self.thumbnails[places]
        for size in self.sizes:
            packed = np.load(self.folder / pixels_file(size), mmap_mode="r+")
            for place in places:
                packed[place] = 255 - packed[place]
            packed.flush()

    def save(self, *, with_masks: bool) -> None:
        """Write what was kept in memory."""
        np.save(self.folder / THUMBNAILS, self.thumbnails)
        if with_masks:
            for size, packed in zip(self.sizes, self.masks, strict=True):
                np.save(self.folder / masks_file(size), packed)


def _correct(table: pd.DataFrame, pack: _Pack) -> None:
    """Turn the inverted images of a shard back, and what its table says of their grays."""
    places = np.flatnonzero(table["inverted"] == YES)
    if not len(places):
        return
    pack.invert(places)
    rows = table.index[places]
    table.loc[rows, "inverted"] = CORRECTED
    table.loc[rows, "mean"] = 255 - table.loc[rows, "mean"]
    table.loc[rows, "dhash"] = [f"{difference_hash(Image.fromarray(pack.thumbnails[at])):016x}" for at in places]


def _changes_of_file(file: Any, image: Decoded | str, mask: list[np.ndarray] | str) -> dict[str, str]:
    """How the file and its mask have changed since the scan, by path."""
    read = ((file.path, image), (file.mask, mask))
    return {path: str(reason) for path, reason in read if isinstance(reason, Passing)}


def _row_of_file(file: Any, image: Decoded | str, mask: list[np.ndarray] | str) -> dict[str, Any]:
    row = {"image_id": file.sha256, "path": file.path, "label": file.label}
    given = not isinstance(mask, str)
    row |= {"mask": given, "mask_id": file.mask_sha256 if given else "", "mask_fault": "" if given else mask}
    if isinstance(image, Decoded):
        facts = {name: getattr(image, name) for name in FACTS}
        said = {} if image.told is None else {name: getattr(image.told, name) for name in OF_HEADER}
        if image.told is not None:
            said["unsaid"] = ", ".join(image.told.unsaid)
        return row | {"status": USED, "reason": ""} | facts | {"dhash": f"{image.dhash:016x}"} | said
    return row | {"status": LEFT_OUT if isinstance(image, LeftOut) else SET_ASIDE, "reason": str(image)}


def _pixels(folder: Path, size: int, rows: int) -> BinaryIO:
    """The open ``.npy`` file of packed pixels, after its header.

    Pixels go to a stream and not to a memory map: every page of a map costs a fault that all threads wait for.
    """
    stream = (folder / pixels_file(size)).open("wb")
    header = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)),
        "fortran_order": False,
        "shape": (rows, size, size),
    }
    np.lib.format.write_array_header_1_0(stream, header)
    return stream


def _read_file(root: Path, file: Any, sizes: Sequence[int], how: HowToRead) -> FileContent:
    content = file.fault or _content(root, file.path, file.sha256)
    if isinstance(content, str):
        return content, ""
    try:
        image = decode(content, file.path, sizes, how)
    except NotAsked as error:
        return LeftOut(error), ""
    except Unusable as error:
        return str(error), ""
    return image, _read_mask(root, file, sizes, how.limits.most_pixels) if file.mask else ""


def _read_mask(root: Path, file: Any, sizes: Sequence[int], most_pixels: int) -> list[np.ndarray] | str:
    content = _content(root, file.mask, file.mask_sha256) if file.mask_sha256 else "the file cannot be read"
    if isinstance(content, str):
        return content
    try:
        return decode_mask(content, file.mask, sizes, most_pixels)
    except Unusable as error:
        return str(error)


def _content(root: Path, path: str, sha256: str) -> bytes | str:
    """The bytes of a file, or the reason why it cannot be read."""
    try:
        with open(os.path.join(root, path), "rb", buffering=0) as stream:
            if (size := os.fstat(stream.fileno()).st_size) > LARGEST_FILE:
                return too_large_a_file(size)
            content = stream.readall()
    except OSError as error:
        return Passing(read_fault(error))
    if hashlib.sha256(content).hexdigest() != sha256:
        return Passing(CHANGED)
    return content


def _copy_rejected(root: Path, rows: pd.DataFrame, folder: Path) -> None:
    """Copy what was set aside to ``folder`` for people to look at, as far as it can be read.

    DICOM files stay where they are: their headers name patients.
    """
    for path in rows["path"][rows["status"] == SET_ASIDE]:
        target = folder / path
        try:
            status = (root / path).stat()
            if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_FILE:
                # A device would be copied until the disk is full.
                continue
            if _may_name_patients(root / path):
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / path, target)
        except OSError:
            continue


def _may_name_patients(path: Path) -> bool:
    """Whether a file is DICOM, or is called so."""
    with path.open("rb") as stream:
        head = stream.read(256)
    return is_dicom(head) or path.suffix.lower() in (".dcm", ".dicom", ".dic", ".ima")


def join_shards(
    shards: Sequence[Path],
    scanned: pd.DataFrame,
    settings: NearDuplicateSettings,
    folder: Path,
    sites: Sequence[str] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Join the shards into the manifest, and write it to ``folder`` with the table and the copies of the rejects.

    Args:
        shards: Folders of :func:`read_shard`. The manifest's ``shard`` and ``row`` count in them from 0.
        scanned: Rows of the scan, for each file's ``given`` split and ``facts.SAID``.
        settings: Which images are one picture.
        folder: Where the tables and copies are written; must exist.
        sites: The source of each shard, as :mod:`cxr_tasks.data.sites` calls it; ``None`` where there is one alone.

    Returns:
        The manifest (a row per file, ``MANIFEST_COLUMNS``; ``split`` is still empty) and the pairs of
        near-duplicates (``first`` and ``second`` image id).
    """
    images = rows_of_shards(shards, sites).sort_values(["label", "path"], ignore_index=True)
    _join_said(images, scanned)
    read = images.loc[images["status"] == USED, ["image_id", "path", "label", "given"]]
    images = with_identical_aside(images, identical(sacred_first(read)))
    good = images.loc[images["status"] == USED, ["image_id", "patient", "study", "dhash", "shard", "row"]].reset_index()
    dhash = np.fromiter((int(value, 16) for value in good["dhash"]), np.uint64, len(good))
    near = near_duplicates(dhash, thumbnails_of(shards, good), settings)
    images["group"] = images["image_id"]
    images.loc[good["index"], "group"] = group_names(good, np.concatenate([near, same_study(good)])).to_numpy()
    images["provenance"], images["split"] = "real", ""
    manifest = images[MANIFEST_COLUMNS]
    manifest.to_parquet(folder / MANIFEST, index=False)
    ids = good["image_id"].to_numpy()
    pairs = pd.DataFrame({"first": ids[near[:, 0]], "second": ids[near[:, 1]]}, dtype=str)
    pairs.to_parquet(folder / NEAR, index=False)
    rejects = manifest.loc[manifest["status"] != USED, ["path", "label", "reason"]]
    rejects.to_parquet(folder / REJECTS, index=False)
    for shard, site in zip(shards, sites or [""] * len(shards), strict=True):
        if (shard / REJECTED_FILES).is_dir():
            shutil.copytree(shard / REJECTED_FILES, folder / REJECTED_FILES / site, dirs_exist_ok=True)
    return manifest, pairs


def rows_of_shards(shards: Sequence[Path], sites: Sequence[str] | None = None) -> pd.DataFrame:
    """The rows of shards with their ``shard`` and ``row``; the arguments are those of :func:`join_shards`."""
    read = zip(shards, sites or [""] * len(shards), strict=True)
    tables = [with_site(pd.read_parquet(shard / ROWS), site).assign(shard=i) for i, (shard, site) in enumerate(read)]
    return pd.concat([table.assign(row=np.arange(len(table))) for table in tables], ignore_index=True)


def _join_said(images: pd.DataFrame, scanned: pd.DataFrame) -> None:
    """Give rows of shards the columns ``given`` and ``SAID`` as the scan has them: what a table says counts first."""
    # A name that is not UTF-8 is shown with escapes. Another file may really have that name.
    first = np.flatnonzero(~scanned["path"].duplicated())
    found = pd.Index(scanned["path"].iloc[first]).get_indexer(images["path"])
    places = np.where(found < 0, -1, first[found])
    images["given"] = scanned["given"].array.take(places, allow_fill=True)
    for fact in SAID:
        told = pd.Series(scanned[fact].array.take(places, allow_fill=True), images.index)
        images[fact] = told.mask(told.isna() if fact == "age" else told == "", images[fact])


def with_identical_aside(images: pd.DataFrame, reasons: pd.Series | None = None) -> pd.DataFrame:
    """``images``, rows of a shard or a manifest, with those set aside that are identical to another one.

    Args:
        images: The rows.
        reasons: Why a used image must go, as ``duplicates.identical`` says it; ``None`` asks it in the order of the
            rows.
    """
    if reasons is None:
        reasons = identical(images[images["status"] == USED])
    repeated = reasons.index[reasons != ""]
    # Only the columns that change are copied.
    images = images.copy(deep=False)
    images.loc[repeated, "status"] = SET_ASIDE
    images.loc[repeated, "reason"] = reasons[repeated]
    return images


def thumbnails_of(shards: Sequence[Path], images: pd.DataFrame) -> np.ndarray:
    """The thumbnails of ``images``, rows of a manifest, from their shards: (n, 32, 32) uint8, not held in memory."""
    found, places = on_disk((len(images), THUMBNAIL_SIDE, THUMBNAIL_SIDE), np.uint8), images["row"].to_numpy()
    for number, rows in images.groupby("shard").indices.items():
        found[rows] = mapped(shards[number] / THUMBNAILS)[places[rows]]
        drop_pages(found)
    return found
