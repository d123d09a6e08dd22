"""Reads the files of one shard into rows and packed pixels, and joins the shards into the manifest.

A bad file is never fatal by itself: it becomes a row that is set aside with a reason. Whether the rest is good
enough is decided by the expectations. Pixels stay in their shards; the manifest says where.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

from cxr_tasks.config import NearDuplicateSettings
from cxr_tasks.data.decode import THUMBNAIL_SIDE, Decoded, Unusable, decode
from cxr_tasks.data.duplicates import group_names, identical, near_duplicates
from cxr_tasks.data.masks import decode_mask, masks_file
from cxr_tasks.data.scan import read_fault
from cxr_tasks.data.threads import in_blocks

ROWS, MANIFEST, REJECTS, NEAR = "rows.parquet", "manifest.parquet", "rejects.parquet", "near-duplicates.parquet"
THUMBNAILS, REJECTED_FILES = "thumbnails.npy", "rejects"
USED, SET_ASIDE = "used", "set aside"
CHANGED = "the file changed while the data were read"
LARGEST_FILE = 256 * 2**20  # bytes; no image that is decoded comes near it
FACTS = ["width", "height", "mode", "mean", "contrast", "dhash"]
MANIFEST_COLUMNS = [
    *("image_id", "path", "label", "source", "patient", "group"),
    *FACTS,
    *("mask", "mask_id"),
    *("split", "provenance", "status", "reason", "shard", "row"),
]


class Passing(str):
    """A reason that speaks of the moment and not of the file: it may not be kept under the file's content."""


class FilesChanged(Exception):
    """Images or masks are not what the scan saw. ``faults``: what is wrong with each, by its path."""

    def __init__(self, faults: dict[str, str]) -> None:
        super().__init__(f"{len(faults)} files changed or vanished after the data were scanned")
        self.faults = faults


def pixels_file(size: int) -> str:
    """Name of a shard's packed pixels: a ``.npy`` of (n, size, size) uint8, one row a row of the shard."""
    return f"pixels-{size}.npy"


def read_shard(root: Path, files: pd.DataFrame, sizes: Sequence[int], folder: Path) -> pd.DataFrame:
    """Decode ``files`` into ``folder``: rows, packed pixels and masks, thumbnails, and copies of what is set aside.

    Args:
        root: below which the files' paths can be opened.
        files: rows of a scan.
        sizes: sides in pixels to pack; each image is resized from the original once for each.

    Returns:
        A row per file: ``image_id`` (SHA-256 of the file), ``path``, ``label``, ``status``, ``reason``, and of used
        images width and height in pixels, ``mode``, ``mean`` and ``contrast`` (mean and standard deviation of the
        gray values, 0–255), ``dhash`` (16 hexadecimal digits), ``mask`` (whether there is one that can be used),
        ``mask_id`` (SHA-256 of its file, '' where there is none) and ``mask_fault`` (why one cannot be used).

    Raises:
        FilesChanged: files are not those that were scanned. Nothing of the shard may be kept then.
    """
    blank = [np.zeros((size, size), np.uint8) for size in sizes]
    rows: list[dict[str, Any]] = []
    thumbnails = np.zeros((len(files), THUMBNAIL_SIDE, THUMBNAIL_SIDE), np.uint8)
    masks = [np.zeros((len(files), size, -(-size // 8)), np.uint8) for size in sizes]
    changed = {}
    with ExitStack() as stack:
        packed = [stack.enter_context(_pixels(folder, size, len(files))) for size in sizes]
        listed = list(files.itertuples())
        for results in in_blocks(lambda file: _read(root, file, sizes), listed):
            images = [result.images if isinstance(result, Decoded) else blank for result, _ in results]
            for stream, block in zip(packed, zip(*images, strict=True), strict=True):
                stream.write(b"".join(block))
            for file, (result, mask) in zip(listed[len(rows) :], results, strict=False):
                if isinstance(result, Decoded):
                    thumbnails[len(rows)] = result.thumbnail
                for path, read in ((file.path, result), (file.mask, mask)):
                    if isinstance(read, Passing):
                        changed[path] = str(read)
                if not isinstance(mask, str):
                    for packed_masks, bits in zip(masks, mask, strict=True):
                        packed_masks[len(rows)] = bits
                rows.append(_row(file, result, mask))
    if changed:
        raise FilesChanged(changed)
    np.save(folder / THUMBNAILS, thumbnails)
    columns = ["image_id", "path", "label", "status", "reason", *FACTS, "mask", "mask_id", "mask_fault"]
    table = pd.DataFrame(rows, columns=columns).astype({"mask": bool})
    if table["mask"].any():
        for size, packed_masks in zip(sizes, masks, strict=True):
            np.save(folder / masks_file(size), packed_masks)
    table = table.astype({"width": "Int32", "height": "Int32", "mean": "float64", "contrast": "float64"})
    table.to_parquet(folder / ROWS, index=False)
    _copy_rejected(root, table, folder / REJECTED_FILES)
    return table


def _row(file: Any, result: Decoded | str, mask: list[np.ndarray] | str) -> dict[str, Any]:
    row = {"image_id": file.sha256, "path": file.path, "label": file.label}
    given = not isinstance(mask, str)
    row |= {"mask": given, "mask_id": file.mask_sha256 if given else "", "mask_fault": "" if given else mask}
    if isinstance(result, Decoded):
        facts = {name: getattr(result, name) for name in FACTS}
        return row | {"status": USED, "reason": ""} | facts | {"dhash": f"{result.dhash:016x}"}
    return row | {"status": SET_ASIDE, "reason": result}


def _pixels(folder: Path, size: int, rows: int) -> BinaryIO:
    """The open ``.npy`` file of packed pixels, after its header.

    A stream and no memory map, of which every page costs a fault that all threads wait for.
    """
    stream = (folder / pixels_file(size)).open("wb")
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False}
    np.lib.format.write_array_header_1_0(stream, {**header, "shape": (rows, size, size)})
    return stream


def _read(root: Path, file: Any, sizes: Sequence[int]) -> tuple[Decoded | str, list[np.ndarray] | str]:
    """One image, or the reason why it cannot be used; and its mask, or why it has none ('' if there is no file)."""
    content = file.fault or _content(root, file.path, file.sha256)
    if isinstance(content, str):
        return content, ""
    try:
        image = decode(content, file.path, sizes)
    except Unusable as error:
        return str(error), ""
    return image, _read_mask(root, file, sizes) if file.mask else ""


def _read_mask(root: Path, file: Any, sizes: Sequence[int]) -> list[np.ndarray] | str:
    content = _content(root, file.mask, file.mask_sha256) if file.mask_sha256 else "the file cannot be read"
    if isinstance(content, str):
        return content
    try:
        return decode_mask(content, file.mask, sizes)
    except Unusable as error:
        return str(error)


def _content(root: Path, path: str, sha256: str) -> bytes | str:
    """The bytes of a file, or the reason why it cannot be read."""
    try:
        with open(os.path.join(root, path), "rb", buffering=0) as stream:
            if (size := os.fstat(stream.fileno()).st_size) > LARGEST_FILE:
                return f"the file has {size // 2**20:,} MiB: at most {LARGEST_FILE // 2**20} are read"
            content = stream.readall()
    except OSError as error:
        return Passing(read_fault(error))
    if hashlib.sha256(content).hexdigest() != sha256:
        return Passing(CHANGED)
    return content


def _copy_rejected(root: Path, rows: pd.DataFrame, folder: Path) -> None:
    """Copy what was set aside to ``folder`` for people to look at, as far as it can be read."""
    for path in rows["path"][rows["status"] == SET_ASIDE]:
        target = folder / path
        try:
            status = (root / path).stat()
            if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_FILE:
                # A device would be copied until the disk is full.
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / path, target)
        except OSError:
            continue


def join_shards(shards: Sequence[Path], scanned: pd.DataFrame, settings: NearDuplicateSettings, folder: Path) -> Any:
    """Join the shards into the manifest, and write it to ``folder`` with the table and the copies of the rejects.

    Args:
        shards: folders of :func:`read_shard`; the manifest's ``shard`` and ``row`` count in them from 0.
        scanned: rows of the scan, for each file's ``source`` and ``patient``.

    Returns:
        The manifest (a row per file, ``MANIFEST_COLUMNS``; ``split`` is still empty) and the pairs of
        near-duplicates (``first`` and ``second`` image id).
    """
    tables = [pd.read_parquet(shard / ROWS).assign(shard=i) for i, shard in enumerate(shards)]
    images = pd.concat([table.assign(row=np.arange(len(table))) for table in tables], ignore_index=True)
    # A name that is not UTF-8 is shown with escapes, as which another file may really be named.
    known = scanned[["path", "source", "patient"]].drop_duplicates("path")
    images = images.merge(known, on="path", how="left", validate="many_to_one")
    images = images.sort_values(["label", "path"], ignore_index=True)

    used = images.index[images["status"] == USED]
    reasons = identical(images.loc[used])
    repeated = reasons.index[reasons != ""]
    images.loc[repeated, "status"] = SET_ASIDE
    images.loc[repeated, "reason"] = reasons[repeated]

    good = images[images["status"] == USED].reset_index()
    dhash = np.array([int(value, 16) for value in good["dhash"]], np.uint64)
    near = near_duplicates(dhash, _thumbnails(shards, good), settings.hash_bits, settings.correlation)
    images["group"] = images["image_id"]
    images.loc[good["index"], "group"] = group_names(good, near).to_numpy()
    images["provenance"], images["split"] = "real", ""
    manifest = images[MANIFEST_COLUMNS]
    manifest.to_parquet(folder / MANIFEST, index=False)
    ids = good["image_id"].to_numpy()
    pairs = pd.DataFrame({"first": ids[near[:, 0]], "second": ids[near[:, 1]]}, dtype=str)
    pairs.to_parquet(folder / NEAR, index=False)
    rejects = manifest.loc[manifest["status"] == SET_ASIDE, ["path", "label", "reason"]]
    rejects.to_parquet(folder / REJECTS, index=False)
    for shard in shards:
        if (shard / REJECTED_FILES).is_dir():
            shutil.copytree(shard / REJECTED_FILES, folder / REJECTED_FILES, dirs_exist_ok=True)
    return manifest, pairs


def _thumbnails(shards: Sequence[Path], images: pd.DataFrame) -> np.ndarray:
    """(n, 32, 32) uint8, in the order of ``images``."""
    found = np.empty((len(images), THUMBNAIL_SIDE, THUMBNAIL_SIDE), np.uint8)
    for number, rows in images.groupby("shard").indices.items():
        found[rows] = np.load(shards[number] / THUMBNAILS, mmap_mode="r")[images["row"].to_numpy()[rows]]
    return found
