"""Archives by their names, and what to do with one that is not read."""

from __future__ import annotations

import os
import re

# What is unpacked where it is given as a source.
SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
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


def advice(name: str) -> str:
    """What to do with the archive ``name``, in words."""
    name = os.path.basename(name)
    if is_part_name(name):
        return "one part of a split archive is not read: put the parts together, unpack them, and give the folder"
    return "an archive inside a data source is not read: unpack it"
