"""What a source holds now: every image file with its class, its content hash and what the class tables say of it.

A file whose stamp is known from an earlier scan is not read again, so a scan of unchanged data costs one listing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cxr_tasks.data.decode import NOT_UTF8
from cxr_tasks.data.facts import SAID
from cxr_tasks.data.layout import Layout
from cxr_tasks.data.metadata import ClassTable, check_tables, read_table, say_of_images, silence_of
from cxr_tasks.data.sources import Entry, Source
from cxr_tasks.data.sources.base import DENIED
from cxr_tasks.data.threads import in_blocks
from cxr_tasks.progress import advance

MASK = ["mask", "mask_size", "mask_stamp", "mask_sha256"]
SCAN_COLUMNS = ["path", "label", "size", "stamp", "sha256", "fault", *MASK, "given", *SAID]
NO_MASK = Entry("", 0, "")
VANISHED = "the file vanished while the data were read"
# Airflow maps a task over at most 1024 things.
MOST_SHARDS = 512
READ_AT_ONCE = 2**20  # bytes
TABLED_AT_ONCE = 10_000  # files


def listing_key(layout: Layout) -> str:
    """A hash of every file's class, name and stamp, of the notes and of what a table of labels says.

    It changes whenever anything may have changed.
    """
    digest = hashlib.sha256()
    for label, entry in (*layout.images, *layout.metadata, *layout.maybe, *layout.masks.items()):
        line = f"{label}\0{entry.path}\0{entry.stamp}\0{entry.fault}\n"
        digest.update(line.encode(errors="surrogateescape"))
    digest.update("\n".join((*layout.notes, *layout.told)).encode(errors="surrogateescape"))
    if layout.said is not None:
        digest.update(pd.util.hash_pandas_object(layout.said, index=False).to_numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Tables:
    """The tables of a source.

    Attributes:
        read: Those that say something of images.
        warnings: Sentences on what is not used.
    """

    read: list[ClassTable]
    warnings: tuple[str, ...]


def read_tables(source: Source, layout: Layout, least: float = 0.0) -> Tables:
    """Read the tables of ``layout``.

    Args:
        source: Where they are.
        layout: The files that count.
        least: The share of a table's rows, or of the images that it may name, that must find each other.

    Raises:
        DataError: A table cannot be read, does not name files, or names other files.
    """
    entries = [*layout.metadata, *layout.maybe]
    root = source.fetch([entry for _, entry in entries]) if entries else Path()
    chosen, unused = list(layout.metadata), []
    for label, entry in layout.maybe:
        if fault := entry.fault or silence_of(root / entry.path):
            unused.append(f"{entry.path} looks like a table and is not used: {fault}")
        else:
            chosen.append((label, entry))
    tables = [ClassTable(printable(entry.path), label, read_table(label, root / entry.path)) for label, entry in chosen]
    images = [(printable(entry.path), label) for label, entry in layout.images]
    warnings = check_tables(tables, pd.DataFrame(images, columns=["path", "label"]), least)
    return Tables(tables, (*layout.notes, *unused, *warnings))


def scan_files(
    source: Source,
    layout: Layout,
    known: Mapping[tuple[str, str], str],
    tables: Tables | None = None,
) -> pd.DataFrame:
    """Hash the image files of ``layout`` and join what tables say.

    Args:
        source: Where the files are.
        layout: The files that count.
        known: SHA-256 by path and stamp, of images and masks, from an earlier scan; see :func:`known_hashes`.
        tables: What :func:`read_tables` gave; ``None`` reads the tables here.

    Returns:
        A row per image file with ``SCAN_COLUMNS``, in the layout's order. ``sha256`` is '' where ``fault`` says why the
        file cannot be read. ``path`` can be printed, and opened unless there is a fault. ``mask`` is '' where there is
        none, ``mask_sha256`` also where the mask cannot be read.

    Raises:
        DataError: A class table cannot be read or does not name files.
    """
    entries = [entry for _, entry in layout.images]
    hashes = _hashes(source, [*entries, *layout.masks.values()], known)
    # Of a million files, a tuple each would take far more memory than the table.
    starts = range(0, max(1, len(layout.images)), TABLED_AT_ONCE)
    parts = [_tabled(layout.images[start : start + TABLED_AT_ONCE], layout, hashes) for start in starts]
    files = pd.concat(parts, ignore_index=True)
    del hashes, parts
    said = layout.said
    if said is None:
        said = say_of_images(files, (read_tables(source, layout) if tables is None else tables).read)
    return files.join(said)[SCAN_COLUMNS]


def _tabled(images: Sequence[tuple[str, Entry]], layout: Layout, hashes: Mapping[str, tuple[str, str]]) -> pd.DataFrame:
    """The rows of some images, without what tables say."""
    rows = []
    for label, entry in images:
        sha256, fault = hashes[entry.path]
        # An image that cannot be opened has no use for its mask. The mask's name may be just as odd.
        mask = layout.masks.get(entry.path, NO_MASK) if not fault else NO_MASK
        rows.append(
            (
                printable(entry.path),
                label,
                entry.size,
                entry.stamp,
                sha256,
                fault,
                mask.path,
                mask.size,
                mask.stamp,
                hashes[mask.path][0] if mask.path else "",
                layout.given.get(entry.path, ""),
            )
        )
    return pd.DataFrame(rows, columns=SCAN_COLUMNS[: -len(SAID)])


def known_hashes(files: pd.DataFrame) -> dict[tuple[str, str], str]:
    """What a later scan need not read again: SHA-256 of images and masks by path and stamp."""
    columns = (["path", "stamp", "sha256"], ["mask", "mask_stamp", "mask_sha256"])
    return {(path, stamp): sha for names in columns for path, stamp, sha in files[names].itertuples(index=False)}


def printable(path: str) -> str:
    """``path`` as it can be kept in a table: bytes that are not UTF-8 are escaped."""
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")


def content_key(files: pd.DataFrame) -> str:
    """A hash of what the files are: class, name, content and what is known of them. Stamps do not count."""
    columns = files[["path", "label", "sha256", "fault", "mask_sha256", "given", *SAID]]
    return hashlib.sha256(pd.util.hash_pandas_object(columns, index=False).to_numpy().tobytes()).hexdigest()


def shard_numbers(files: pd.DataFrame, shard_images: int, most: int = MOST_SHARDS) -> pd.Series:
    """Which shard each file is read in.

    The number comes from a hash of the path, so a new file disturbs one shard only. How many shards there are is a
    power of two, which seldom changes as the data grow.

    Args:
        files: Rows of a scan.
        shard_images: Files that a shard should have at most.
        most: Shards that there may be.

    Returns:
        The number of each file's shard, from 0, aligned with ``files``.
    """
    shards = 1
    while shards * shard_images < len(files) and 2 * shards <= most:
        shards *= 2
    return files["path"].map(lambda path: int(hashlib.sha256(path.encode()).hexdigest()[:8], 16) % shards)


def write_by_shard(files: pd.DataFrame, path: Path) -> None:
    """Write rows of a scan, which have their ``shard``, so that those of one shard can be read without the others.

    The rows of a shard keep their order, and are a row group of the Parquet file.
    """
    schema = pa.Schema.from_pandas(files, preserve_index=False)
    with pq.ParquetWriter(path, schema) as writer:
        for _, rows in files.groupby("shard"):
            writer.write_table(pa.Table.from_pandas(rows, schema, preserve_index=False))


def entries_of(files: pd.DataFrame) -> list[Entry]:
    """What a source fetches: the images and masks that can be opened."""
    images = files.loc[files["fault"] == "", ["path", "size", "stamp"]]
    masks = files.loc[files["mask_sha256"] != "", MASK[:3]]
    return [Entry(*row) for table in (images, masks) for row in table.itertuples(index=False, name=None)]


def read_fault(error: OSError) -> str:
    """Why a file could not be read, in words for the rejects table."""
    if isinstance(error, FileNotFoundError):
        return VANISHED
    if isinstance(error, PermissionError):
        return DENIED
    return f"the file cannot be read ({error.strerror or error})"


def _hashes(
    source: Source, entries: Sequence[Entry], known: Mapping[tuple[str, str], str]
) -> dict[str, tuple[str, str]]:
    """SHA-256 and fault of each file by its path; one of the two is ''."""
    found = {}
    for entry in entries:
        fault = entry.fault or (NOT_UTF8 if printable(entry.path) != entry.path else "")
        found[entry.path] = "" if fault else known.get((entry.path, entry.stamp), ""), fault
    new = [entry for entry in entries if found[entry.path] == ("", "")]
    if new:
        root = source.fetch(new)
        read: list[tuple[str, str]] = []
        for block in in_blocks(lambda entry: _sha256(os.path.join(root, entry.path)), new):
            read += block
            advance("hash files", len(read), len(new))
        found.update(zip((entry.path for entry in new), read, strict=True))
    return found


def _sha256(path: str) -> tuple[str, str]:
    digest = hashlib.sha256()
    try:
        # Half the time of hashlib.file_digest, which clears a buffer for each file.
        with open(path, "rb", buffering=0) as stream:
            while content := stream.read(READ_AT_ONCE):
                digest.update(content)
        return digest.hexdigest(), ""
    except OSError as error:
        return "", read_fault(error)
