"""Archives by their names, and what to do with one that is not read."""

from __future__ import annotations

import os
import re

# What is unpacked where it is given as a source.
SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
# What is packed by itself, such as ``labels.csv.zip``, is read as it is.
_TABLE = re.compile(r"\.(csv|tsv|txt|xlsx?|json|parquet)$")
_PACKED = r"zip|zipx|tar|tgz|tbz2?|txz|tzst|gz|bz2|xz|zst|lzma|z|7z|rar|cab|arj|lzh|lha|ace|iso|dmg|img"
_PART = re.compile(rf".*\.(z\d\d+|r\d\d|part\d+\.rar|({_PACKED})\.(\d{{3,}}|part\w*|a[a-z])|\d{{3}})$", re.DOTALL)
_WHOLE = re.compile(rf".*\.({_PACKED})$", re.DOTALL)


def is_part_name(name: str) -> bool:
    """Whether a file of this name is one part of a split archive."""
    return _PART.match(name.lower()) is not None


def is_archive_name(name: str) -> bool:
    """Whether a file of this name is an archive, a part of one, or one packed file."""
    name = name.lower()
    return _WHOLE.match(name) is not None or is_part_name(name)


def without_suffix(name: str) -> str:
    """The name of an archive that can be unpacked, without its suffix; '' for any other file."""
    suffix = next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), "")
    stem = name[: -len(suffix)] if suffix else ""
    return "" if _TABLE.search(stem.lower()) else stem


def archive_of(path: str) -> str:
    """The path of the archive that ``path`` leads into, as its folders are called; '' where none is called so."""
    *folders, _ = path.split("/")
    for place, folder in enumerate(folders):
        if without_suffix(folder):
            return "/".join(folders[: place + 1])
    return ""


def advice(name: str) -> str:
    """What to do with the archive ``name``, in words."""
    name = os.path.basename(name)
    if is_part_name(name):
        return "one part of a split archive is not read: put the parts together, unpack them, and give the folder"
    if without_suffix(name):
        return (
            "an archive inside a data source is read where images of a class or of the table are missing without it, "
            "or where it lies in the folder of a class, and this one is not: unpack it if its images are meant"
        )
    return "an archive of this kind is not read inside a data source: unpack it"
