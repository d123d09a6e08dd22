"""Where images come from: finds the files of each class in a folder and says what is missing.

Reads names, class metadata and bytes for hashing; decodes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cxr_tasks.errors import DataError

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg"}
# Folder names of older releases of the Radiography Database.
OLD_NAMES = {"COVID": ("COVID-19",), "Normal": ("NORMAL",)}


@dataclass(frozen=True)
class SourceFile:
    """One image file: its class, its path below the source, and the SHA-256 of its bytes ('' if unreadable)."""

    label: str
    path: str
    sha256: str


@dataclass(frozen=True)
class Listing:
    """What a source holds: the files in a fixed order, and what the class metadata says of them.

    ``metadata`` has the columns ``path``, ``source`` and ``patient`` (empty text where unknown).
    """

    root: Path
    files: tuple[SourceFile, ...]
    metadata: pd.DataFrame

    def fingerprint(self) -> str:
        """A hash of every file's class, name and content, and of the metadata: what the data *is*."""
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(f"{file.label}\0{file.path}\0{file.sha256}\n".encode(errors="surrogateescape"))
        digest.update(self.metadata.to_csv(index=False).encode(errors="surrogateescape"))
        return digest.hexdigest()


def list_folder(source: str, classes: Sequence[str]) -> Listing:
    """Find and hash the images of ``classes`` below the folder ``source``.

    Accepts ``<class>/images/*`` and ``<class>/*``; never looks into ``masks``.

    Raises:
        DataError: the folder does not exist, a class is missing, or a class has no image.
    """
    root = source_folder(source, classes)
    found: list[tuple[str, Path]] = []
    for label in classes:
        found += [(label, path) for path in _images(_class_folder(root, label))]
    with ThreadPoolExecutor() as threads:
        hashes = threads.map(_sha256, (path for _, path in found))
        files = tuple(
            SourceFile(label, path.relative_to(root).as_posix(), sha256)
            for (label, path), sha256 in zip(found, hashes, strict=True)
        )
    return Listing(root, files, _read_metadata(root, files))


def source_folder(source: str, classes: Sequence[str]) -> Path:
    """The folder that holds the class folders: ``source``, or the one folder in it (an unpacked archive).

    Raises:
        DataError: it does not exist.
    """
    root = Path(source).expanduser()
    if not root.is_dir():
        raise DataError(
            f"The data source {source} does not exist or is not a folder: give the folder that holds "
            f"{', '.join(classes)}."
        )
    inside = [path for path in root.iterdir() if not path.name.startswith(".")]
    names = {name for label in classes for name in (label, *OLD_NAMES.get(label, ()))}
    if len(inside) == 1 and inside[0].is_dir() and inside[0].name not in names:
        return inside[0]
    return root


def _class_folder(root: Path, label: str) -> Path:
    for name in (label, *OLD_NAMES.get(label, ())):
        if (root / name).is_dir():
            return root / name / "images" if (root / name / "images").is_dir() else root / name
    there = sorted(path.name for path in root.iterdir() if path.is_dir())
    raise DataError(
        f"Class {label!r} is missing: {root} holds {', '.join(there) or 'no folders'}. "
        f"Add the folder {label!r}, or take the class out of data.classes."
    )


def _images(folder: Path) -> list[Path]:
    # Sorted by text, so that the order is the same on every file system.
    images = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not images:
        raise DataError(
            f"Folder {folder} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}): put the class's images "
            "there, or take the class out of data.classes."
        )
    return images


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return ""


def _read_metadata(root: Path, files: Sequence[SourceFile]) -> pd.DataFrame:
    """Patient and collection of each file, from ``<class>.metadata.csv`` where there is one."""
    tables = []
    for label in dict.fromkeys(file.label for file in files):
        path = root / f"{label}.metadata.csv"
        if not path.is_file():
            continue
        try:
            table = pd.read_csv(path, dtype=str, keep_default_na=False)
        except ValueError as error:
            raise DataError(f"The metadata file {path} cannot be read: {error}.") from error
        if "FILE NAME" not in table:
            raise DataError(f"The metadata file {path} has no column 'FILE NAME'.")
        tables.append(
            pd.DataFrame(
                {
                    "label": label,
                    "stem": table["FILE NAME"].str.removesuffix(".png").str.upper(),
                    "source": table.get("URL", ""),
                    "patient": table.get("PATIENT", ""),
                }
            )
        )
    listed = pd.DataFrame(
        {
            "path": [file.path for file in files],
            "label": [file.label for file in files],
            "stem": [Path(file.path).stem.upper() for file in files],
        }
    )
    if not tables:
        return listed.assign(source="", patient="")[["path", "source", "patient"]]
    known = pd.concat(tables).drop_duplicates(["label", "stem"])
    return listed.merge(known, how="left", on=["label", "stem"]).fillna("")[["path", "source", "patient"]]
