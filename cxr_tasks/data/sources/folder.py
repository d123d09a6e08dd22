"""Files in a local folder, read where they are."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from cxr_tasks.data.sources.base import CIRCLE, DENIED, MAX_FILES, NOWHERE, Entry, Source
from cxr_tasks.data.sources.clutter import is_clutter
from cxr_tasks.errors import DataError, shown

Identity = tuple[int, int]


class FolderSource(Source):
    """The files below a folder; symbolic links are followed.

    Attributes:
        root: The folder.
    """

    example = "a folder"

    def __init__(self, root: Path, address: str = "") -> None:
        """The folder ``root``, which messages call ``address``."""
        super().__init__(address or str(root))
        self.root = root.absolute()

    def entries(self) -> list[Entry]:
        """The files; a link or a folder that cannot be read is an entry with a fault."""
        try:
            os.scandir(self.root).close()
            # The folders above the root as well: a link to one of them leads back here.
            real = self.root.resolve()
            above = frozenset(_identity(os.stat(folder)) for folder in (real, *real.parents))
        except OSError as error:
            why = "permission denied" if isinstance(error, PermissionError) else error.strerror
            raise DataError(
                f"The data source {shown(self.address)} cannot be read ({why}): give a folder that this user can read."
            ) from error
        found: list[Entry] = []
        # A stack of our own: folders may be nested deeper than Python calls may be.
        waiting = [("", above)]
        folders = 0
        while waiting:
            below, above = waiting.pop()
            folders += 1
            if folders + len(found) > MAX_FILES:
                raise DataError(
                    f"The data source {shown(self.address)} holds more than {MAX_FILES:,} files: "
                    "give a smaller folder, without symbolic links that lead to the same files over and over."
                )
            try:
                with os.scandir(self.root / below) as listed:
                    for item in listed:
                        _look_at(item, below, above, found, waiting)
            except FileNotFoundError:
                # Removed since the folder above it was listed.
                continue
            except OSError as error:
                fault = f"the folder cannot be read ({_reason(error)})"
                found.append(Entry(below.rstrip("/"), 0, "", fault))
        return sorted(found, key=lambda entry: entry.path)

    def fetch(self, entries: Sequence[Entry]) -> Path:
        """The folder itself: nothing is copied."""
        return self.root


def _look_at(
    item: os.DirEntry[str],
    below: str,
    above: frozenset[Identity],
    found: list[Entry],
    waiting: list[tuple[str, frozenset[Identity]]],
) -> None:
    """Sort one item of a folder into files and folders.

    Args:
        item: A file or a folder.
        below: Path of the folder that it lies in: '' or a text that ends in a slash.
        above: The folders that lead here.
        found: Entries, to which a file is added.
        waiting: Folders to list, to which a folder is added.
    """
    if is_clutter(item.name):
        return
    path = below + item.name
    try:
        status = item.stat()
    except OSError as error:
        if error.errno == errno.ENOENT and not item.is_symlink():
            # Removed since the folder was listed.
            return
        found.append(Entry(path, 0, "", _stat_fault(error)))
        return
    if stat.S_ISDIR(status.st_mode):
        identity = _identity(status)
        if identity in above:
            # A folder may have got the number of one above, which was removed since the folder above it was listed.
            if item.is_symlink():
                found.append(Entry(path, 0, "", CIRCLE))
        else:
            waiting.append((f"{path}/", above | {identity}))
    elif stat.S_ISREG(status.st_mode):
        # With the ctime, because whoever copies an older file over this one may keep its mtime.
        stamp = f"{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}-{status.st_ino}"
        found.append(Entry(path, status.st_size, stamp))
    else:
        # Opening a pipe would wait forever.
        found.append(Entry(path, 0, "", "it is not a regular file"))


def _identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino


def _stat_fault(error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return NOWHERE
    if error.errno == errno.ELOOP:
        return CIRCLE
    return DENIED if isinstance(error, PermissionError) else f"the file cannot be read ({_reason(error)})"


def _reason(error: OSError) -> str:
    return "permission denied" if isinstance(error, PermissionError) else str(error.strerror).lower()
