"""What a source holds now: every image file with its class, its content hash and what the class tables say of it.

A file whose stamp is known from an earlier scan is not read again, so a scan of unchanged data costs one listing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

import pandas as pd

from cxr_tasks.data.decode import NOT_UTF8
from cxr_tasks.data.layout import Layout
from cxr_tasks.data.metadata import read_metadata, stem
from cxr_tasks.data.sources import Entry, Source
from cxr_tasks.data.sources.base import DENIED
from cxr_tasks.data.threads import in_blocks

FILES = "files.parquet"
COLUMNS = ["path", "label", "size", "stamp", "sha256", "fault", "source", "patient"]
VANISHED = "the file vanished while the data were read"
# Airflow maps a task over at most 1024 things.
MOST_SHARDS = 512
READ_AT_ONCE = 2**20  # bytes


def listing_key(layout: Layout) -> str:
    """A hash of every file's class, name and stamp: it changes whenever anything may have changed."""
    digest = hashlib.sha256()
    for label, entry in (*layout.images, *layout.metadata):
        line = f"{label}\0{entry.path}\0{entry.stamp}\0{entry.fault}\n"
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


def scan(source: Source, layout: Layout, known: Mapping[tuple[str, str], str]) -> pd.DataFrame:
    """Hash the image files of ``layout`` and join what the class tables say.

    Args:
        known: SHA-256 by path and stamp, from an earlier scan.

    Returns:
        A row per file with ``COLUMNS``, in the layout's order. ``sha256`` is '' where ``fault`` says why the
        file cannot be read; ``path`` can be printed, and opened unless there is a fault.
    """
    rows = []
    for label, entry in layout.images:
        printable = entry.path.encode(errors="surrogateescape").decode(errors="backslashreplace")
        fault = entry.fault or (NOT_UTF8 if printable != entry.path else "")
        sha256 = "" if fault else known.get((entry.path, entry.stamp), "")
        rows.append((printable, label, entry.size, entry.stamp, sha256, fault))
    files = pd.DataFrame(rows, columns=COLUMNS[:6])

    unread = files.index[(files["sha256"] == "") & (files["fault"] == "")]
    new = [layout.images[i][1] for i in unread]
    if new:
        root = source.fetch(new)
        hashes = list(chain.from_iterable(in_blocks(lambda entry: _sha256(os.path.join(root, entry.path)), new)))
        files.loc[unread, "sha256"] = [sha256 for sha256, _ in hashes]
        files.loc[unread, "fault"] = [fault for _, fault in hashes]
    return _with_metadata(files, _tables(source, layout.metadata))


def content_key(files: pd.DataFrame) -> str:
    """A hash of what the files *are*: class, name, content and what is known of them, whatever their stamps."""
    columns = files[["path", "label", "sha256", "fault", "source", "patient"]]
    return hashlib.sha256(pd.util.hash_pandas_object(columns, index=False).to_numpy().tobytes()).hexdigest()


def shard_numbers(files: pd.DataFrame, shard_images: int) -> pd.Series:
    """Which shard each file is read in: a hash of its path, so that a new file disturbs one shard only.

    The number of shards is a power of two, which seldom changes as the data grow.
    """
    shards = 1
    while shards * shard_images < len(files) and shards < MOST_SHARDS:
        shards *= 2
    return files["path"].map(lambda path: int(hashlib.sha256(path.encode()).hexdigest()[:8], 16) % shards)


def entries_of(files: pd.DataFrame) -> list[Entry]:
    """What a source fetches: the files that can be opened."""
    good = files[files["fault"] == ""]
    return [Entry(*row) for row in good[["path", "size", "stamp"]].itertuples(index=False, name=None)]


def read_fault(error: OSError) -> str:
    """Why a file could not be read, in words for the rejects table."""
    if isinstance(error, FileNotFoundError):
        return VANISHED
    if isinstance(error, PermissionError):
        return DENIED
    return f"the file cannot be read ({error.strerror or error})"


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


def _tables(source: Source, metadata: Sequence[tuple[str, Entry]]) -> pd.DataFrame:
    root = source.fetch([entry for _, entry in metadata]) if metadata else Path()
    return read_metadata([(label, root / entry.path) for label, entry in metadata])


def _with_metadata(files: pd.DataFrame, tables: pd.DataFrame) -> pd.DataFrame:
    keyed = files.assign(stem=files["path"].map(stem))
    return keyed.merge(tables, how="left", on=["label", "stem"]).fillna({"source": "", "patient": ""})[COLUMNS]
