"""Where images come from: a folder, an archive, a bucket or Kaggle, all seen as one list of files.

Which file belongs to which class is not known here.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from cxr_tasks.data.sources.archive import SUFFIXES, ArchiveSource
from cxr_tasks.data.sources.base import GIVE, Entry, Source, shown
from cxr_tasks.data.sources.folder import FolderSource
from cxr_tasks.data.sources.kaggle import KaggleSource
from cxr_tasks.data.sources.s3 import S3Source
from cxr_tasks.errors import DataError

__all__ = ["Entry", "Source", "open_source"]


def open_source(address: str) -> Source:
    """The source at ``address``: a folder, an archive, ``s3://bucket/prefix`` or ``kaggle://owner/name``.

    A local one must exist; what is elsewhere is first asked for by ``entries`` or ``fetch``.

    Raises:
        DataError: there is nothing at a local address, or it is not one of these kinds.
    """
    if address.startswith("s3://"):
        return S3Source(address)
    if address.startswith("kaggle://"):
        return KaggleSource(address)
    if not address.strip():
        raise DataError(f"No data source is given: {GIVE}.")
    if re.match(r"[a-z][a-z0-9+.-]+://", address, re.IGNORECASE):
        raise DataError(f"The data source {shown(address)} is of a kind that is not known: {GIVE}.")
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
    raise DataError(
        f"The data source {shown(address)} is a file, but not an archive that can be read "
        f"({', '.join(SUFFIXES)}): {GIVE}."
    )
