"""Searches what a run leaves behind for values that identify somebody, however they are written and packed.

``python -m tests.privacy FOLDER…`` searches folders for ``dicom_files.SECRETS``, after a run on what
``tests.data.handed_over`` writes. Exit status: 0 nothing was found, 1 something was.
"""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import sqlite3
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from tests.data.dicom_files import SECRETS

DEEPEST = 4
# Shorter parts of a name are parts of words, too.
SHORTEST = 5
UNPACKERS: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": gzip.decompress,
    b"BZh": bz2.decompress,
    b"\xfd7zXZ": lzma.decompress,
    b"\x78": zlib.decompress,
}


def spellings(secret: str) -> dict[str, bytes]:
    """How ``secret`` may stand in a file, by a word for it."""
    plain = secret.encode()
    told = {"text": plain, "UTF-16": secret.encode("utf-16-le"), "UTF-16 BE": secret.encode("utf-16-be")}
    # As NumPy keeps texts.
    told["UTF-32"] = secret.encode("utf-32-le")
    told |= {"hexadecimal": plain.hex().encode(), "address": quote(secret, safe="").encode()}
    told["JSON"] = json.dumps(secret)[1:-1].encode()
    for before in range(3):
        # What depends on the bytes around it is cut off.
        first, last = -(-before * 8 // 6), (before + len(plain)) * 8 // 6
        told[f"Base64 at {before}"] = base64.b64encode(bytes(before) + plain)[first:last]
    return told


def identifying() -> dict[str, dict[str, bytes]]:
    """The spellings of every secret, and of the parts of names."""
    parts = {f"{name} {part}": part for name, text in SECRETS.items() for part in text.split("^") if "^" in text}
    whole = SECRETS | {name: part for name, part in parts.items() if len(part) >= SHORTEST}
    return {name: spellings(text) for name, text in whole.items()}


def contents(content: bytes, place: str, depth: int = 0) -> Iterator[tuple[str, bytes]]:
    """``content`` as it is, and whatever is packed in it."""
    yield place, content
    if depth < DEEPEST:
        for inner, packed in _unpacked(content):
            yield from contents(packed, f"{place}: {inner}", depth + 1)


def _unpacked(content: bytes) -> Iterator[tuple[str, bytes]]:
    for start, unpack in UNPACKERS.items():
        if content.startswith(start):
            try:
                yield "unpacked", unpack(content)
            except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError):
                continue
    if content.startswith(b"PK\x03\x04") or content[257:262] == b"ustar":
        yield from _members(content)
    elif content.startswith(b"PAR1"):
        for name, column in pd.read_parquet(io.BytesIO(content)).items():
            yield str(name), b" ".join(_as_bytes(cell) for cell in column)
    elif content.startswith(b"SQLite format 3\0"):
        yield from _tables(content)


def _members(content: bytes) -> Iterator[tuple[str, bytes]]:
    """The names and the files in an archive."""
    if content.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(content)) as zipped:
            yield from (("names", name.encode()) for name in zipped.namelist())
            yield from ((name, zipped.read(name)) for name in zipped.namelist())
        return
    with tarfile.open(fileobj=io.BytesIO(content)) as tarred:
        for member in tarred:
            yield "names", member.name.encode(errors="surrogateescape")
            if inside := tarred.extractfile(member) if member.isfile() else None:
                yield member.name, inside.read()


def _tables(content: bytes) -> Iterator[tuple[str, bytes]]:
    """The rows of a database, whose texts may be divided between its pages."""
    with tempfile.NamedTemporaryFile(suffix=".db") as copy:
        # Whoever has written it last may have left its newest rows in a file of their own, which is searched as it is.
        copy.write(content[:18] + b"\1\1" + content[20:])
        copy.flush()
        with sqlite3.connect(f"file:{copy.name}?mode=ro", uri=True) as database:
            for (table,) in database.execute("select name from sqlite_master where type = 'table'").fetchall():
                for number, row in enumerate(database.execute(f'select * from "{table}"')):
                    cells = [_as_bytes(cell) for cell in row]
                    yield f"{table} {number}", b" ".join(cells)
                    for cell in cells:
                        if cell.startswith(tuple(UNPACKERS)):
                            yield f"{table} {number}", cell


def _as_bytes(cell: object) -> bytes:
    return cell if isinstance(cell, bytes) else str(cell).encode(errors="surrogateescape")


def contents_below(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Place and content of every file below ``folder``, unpacked; the names of files count as well."""
    for path in sorted(folder.rglob("*")):
        yield str(path), path.name.encode(errors="surrogateescape")
        if path.is_file() and not path.is_symlink():
            yield from contents(path.read_bytes(), str(path))


def leaks(
    texts: Iterator[tuple[str, bytes]], wanted: Mapping[str, Mapping[str, bytes]] | None = None
) -> list[tuple[str, str, str]]:
    """Name, spelling and place of each value that shows: of ``wanted``, or of those that identify somebody."""
    wanted = identifying() if wanted is None else wanted
    return [
        (name, spelling, place)
        for place, content in texts
        for name, spelt in wanted.items()
        for spelling, text in spelt.items()
        if text in content
    ]


def main(folders: list[str]) -> int:
    """Search, and say what was found and in how much."""
    found, files, size = [], 0, 0

    def counted() -> Iterator[tuple[str, bytes]]:
        nonlocal files, size
        for folder in folders:
            for place, content in contents_below(Path(folder)):
                files, size = files + 1, size + len(content)
                yield place, content

    found = leaks(counted())
    for name, spelling, place in found:
        print(f"{name} as {spelling} in {place}")
    print(f"{len(found)} places among {files:,} files and parts of files, {size / 2**20:,.0f} MiB")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
