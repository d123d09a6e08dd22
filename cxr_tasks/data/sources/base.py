"""What every kind of source has in common: entries, what is left out of them, and the local cache."""

from __future__ import annotations

import fcntl
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cxr_tasks.errors import DataError, SettingsError

GIVE = "give a folder, an archive (.zip, .tar.gz), s3://bucket/prefix or kaggle://owner/name"
NOWHERE = "the symbolic link leads nowhere"
CIRCLE = "the symbolic link leads in a circle"
DENIED = "the file cannot be read (permission denied)"
# Far more than any collection of X-rays: beyond it links lead to the same files again and again.
MAX_FILES = 5_000_000
CLUTTER = {"__macosx", "thumbs.db", "desktop.ini"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a source.

    ``path``: POSIX, below the source's root; a name that is not UTF-8 has its bytes as surrogates.
    ``size``: bytes. ``stamp``: text that changes whenever the content may have changed. ``fault``: why the
    file cannot be read at all, '' for most.
    """

    path: str
    size: int
    stamp: str
    fault: str = ""


class Source(ABC):
    """Files to read from wherever ``address`` says. Use :func:`cxr_tasks.data.sources.open_source`."""

    address: str

    @abstractmethod
    def entries(self) -> list[Entry]:
        """Every file, sorted by path, without hidden files.

        Raises:
            DataError: the source cannot be read.
        """

    @abstractmethod
    def fetch(self, entries: Sequence[Entry]) -> Path:
        """A local folder below which the path of each entry without a fault can be opened.

        What has vanished or changed since it was listed is not there. The folder is to be read only.

        Raises:
            DataError: the source cannot be read.
        """


def is_clutter(name: str) -> bool:
    """Whether a file or folder of this name is hidden or left behind by a desktop."""
    return name.startswith(".") or name.lower() in CLUTTER


def is_left_out(path: str) -> bool:
    """Whether the file at ``path`` is clutter, or lies in a folder that is."""
    return any(map(is_clutter, path.split("/")))


def name_fault(path: str, folder: Path) -> str:
    """Why no file can have the name ``path`` below ``folder``, or ''."""
    if "\0" in path:
        return "the file name holds a zero byte"
    longest = max(len(os.fsencode(part)) for part in path.split("/"))
    if longest > os.pathconf(folder, "PC_NAME_MAX"):
        return f"the file name is too long ({longest} bytes)"
    # The kernel's limit includes the zero at the end.
    whole = len(os.fsencode(folder / path)) + 1
    return f"the path is too long ({whole} bytes)" if whole > os.pathconf(folder, "PC_PATH_MAX") else ""


def shown(text: str) -> str:
    """``text`` as it can be printed: bytes that are not UTF-8 as ``\\udcXX``."""
    return text.encode("utf-8", "backslashreplace").decode()


def in_one_line(error: Exception) -> str:
    """What ``error`` says, to be put into a sentence."""
    return shown(" ".join(str(error).split()).rstrip(":.") or type(error).__name__)


def cache_folder(*parts: str) -> Path:
    """A folder for what was fetched from a source, below ``CXR_CACHE``; made if it is missing.

    Raises:
        SettingsError: it cannot be made or written.
    """
    root = Path(os.environ.get("CXR_CACHE", Path(tempfile.gettempdir()) / "cxr-cache"))
    folder = root.absolute().joinpath("sources", *parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise SettingsError(
            f"The cache folder {folder} cannot be written: set CXR_CACHE to a folder that can be."
        ) from error
    return folder


def disk_full(address: str) -> DataError:
    """What to say when the files of ``address`` find no room in the cache."""
    return DataError(
        f"The data source {shown(address)} finds no room in the cache, because the disk is full: free some space, "
        "or set CXR_CACHE to a folder on a larger disk."
    )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time work in ``folder``; the lock of a killed one is gone."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
