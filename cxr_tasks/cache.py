"""Copies of what lies elsewhere, kept on this machine: where they are, and who may write there.

This module alone knows ``CXR_CACHE`` and its default.
"""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cxr_tasks.errors import DataError, SettingsError, shown


def cache_root() -> Path:
    """The folder of all copies: ``CXR_CACHE``, or ``cxr-cache`` among the temporary files. It may not exist yet."""
    return Path(os.environ.get("CXR_CACHE") or Path(tempfile.gettempdir(), "cxr-cache")).absolute()


def cache_folder(*parts: str) -> Path:
    """A folder below :func:`cache_root`, made where it is missing.

    Args:
        *parts: Names of the folders that lead there.

    Raises:
        SettingsError: The folder cannot be made or written.
    """
    folder = cache_root().joinpath(*parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise SettingsError(
            f"The cache folder {folder} cannot be written: set CXR_CACHE to a folder that can be."
        ) from error
    return folder


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time work in ``folder``. A killed process leaves no lock behind."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def is_disk_full(error: OSError) -> bool:
    """Whether ``error`` says that the disk, or this user's share of the disk, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def disk_full(what: str) -> DataError:
    """The error to raise when the files of ``what``, such as ``The data source …``, do not fit into the cache."""
    return DataError(
        f"{shown(what)} finds no room in the cache, because the disk is full: free some space, "
        "or set CXR_CACHE to a folder on a larger disk."
    )
