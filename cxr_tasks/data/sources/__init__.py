"""Where images come from: a folder, an archive, a bucket or Kaggle, all seen as one list of files.

A new kind of source is a module here and an entry in ``SCHEMES``. Sources do not know which file belongs to which
class.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from cxr_tasks.data.sources.archive import ArchiveSource
from cxr_tasks.data.sources.archive_names import SUFFIXES, is_part_name
from cxr_tasks.data.sources.base import Entry, Source
from cxr_tasks.data.sources.folder import FolderSource
from cxr_tasks.data.sources.inside import WithArchives
from cxr_tasks.data.sources.kaggle import KaggleSource
from cxr_tasks.data.sources.s3 import S3Source
from cxr_tasks.errors import DataError, shown

__all__ = ["SCHEMES", "Entry", "Source", "open_source"]

# What an address begins with, before ``://``. Addresses without a scheme are local.
SCHEMES: Mapping[str, type[Source]] = {"s3": S3Source, "kaggle": KaggleSource}
_KINDS: tuple[type[Source], ...] = (FolderSource, ArchiveSource, *SCHEMES.values())
_EXAMPLES = [kind.example for kind in _KINDS]
GIVE = f"give {', '.join(_EXAMPLES[:-1])} or {_EXAMPLES[-1]}"


def open_source(address: str) -> Source:
    """The source at ``address``, which is one of the kinds that ``GIVE`` lists.

    A local source must exist. Any other is first asked for by ``entries`` or ``fetch``.

    Raises:
        DataError: There is nothing at a local address, or the address is of no known kind.
    """
    if not address.strip():
        raise DataError(f"No data source is given: {GIVE}.")
    return WithArchives(_open_outer(address))


def _open_outer(address: str) -> Source:
    if matched := re.match(r"([a-z][a-z0-9+.-]+)://", address, re.IGNORECASE):
        if matched[1] not in SCHEMES:
            raise DataError(f"The data source {shown(address)} is of a kind that is not known: {GIVE}.")
        return SCHEMES[matched[1]](address)
    return _open_local(address)


def _open_local(address: str) -> Source:
    path = Path(address).expanduser().absolute()
    try:
        mode = os.stat(path).st_mode
    except PermissionError as error:
        raise DataError(
            f"The data source {shown(address)} cannot be read (permission denied): "
            "allow this user to read it and the folders above it."
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"The data source {shown(address)} does not exist: {GIVE}.") from error
    if stat.S_ISDIR(mode):
        return FolderSource(path, address)
    if stat.S_ISREG(mode) and path.name.lower().endswith(SUFFIXES):
        return ArchiveSource(path, address)
    if stat.S_ISREG(mode) and is_part_name(path.name):
        raise DataError(
            f"The data source {shown(address)} is one part of a split archive: put the parts together "
            "(zip -s 0 split.zip --out whole.zip, or cat split.zip.* > whole.zip), and give the whole archive."
        )
    raise DataError(
        f"The data source {shown(address)} is a file, but not an archive that can be read "
        f"({', '.join(SUFFIXES)}): {GIVE}."
    )
