"""Copies of what lies elsewhere, kept on this machine: where they are, and who may write there.

This module alone knows ``CXR_CACHE`` and its default.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cxr_tasks.errors import DataError, SettingsError, UserError, in_one_line, shown

# What errors without the system's number say of a full disk: TensorFlow's of a checkpoint, shutil's, and NumPy's.
FULL_DISK = re.compile(r"No space left on device|Disk quota exceeded|\d+ requested and \d+ written")


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


def is_disk_full(error: BaseException) -> bool:
    """Whether ``error`` says that the disk, or this user's share of the disk, is full."""
    number = getattr(error, "errno", None)
    if number is not None:
        return number in (errno.ENOSPC, errno.EDQUOT)
    # Kinds of OSError that stand for servers, such as ConnectionError, may quote what a server says of its own disk.
    is_of_a_disk = type(error) in (OSError, shutil.Error) or type(error).__name__ == "ResourceExhaustedError"
    return is_of_a_disk and FULL_DISK.search(str(error)) is not None


@contextmanager
def full_disk_told() -> Iterator[None]:
    """Say in one sentence that a disk became full in the block: only a person can make room.

    Raises:
        UserError: A disk became full.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) or not is_disk_full(error):
            raise
        raise UserError(
            f"A disk of {socket.gethostname()} is full ({in_one_line(error)}): make room where the store, the cache "
            f"({cache_root()}) and temporary files ({tempfile.gettempdir()}) are, as with cxr store gc. Then clear the "
            "task."
        ) from error


def disk_full(what: str) -> DataError:
    """The error to raise when the files of ``what``, such as ``The data source …``, do not fit into the cache."""
    return DataError(
        f"{shown(what)} finds no room in the cache, because the disk is full: free some space, "
        "or set CXR_CACHE to a folder on a larger disk."
    )
