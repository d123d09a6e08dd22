"""What every kind of source has in common: its entries, and what is left out of them."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

NOWHERE = "the symbolic link leads nowhere"
CIRCLE = "the symbolic link leads in a circle"
DENIED = "the file cannot be read (permission denied)"
# Far more than any collection of X-rays. Beyond this, links lead to the same files again and again.
MAX_FILES = 5_000_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a source.

    Attributes:
        path: POSIX, below the source's root. Bytes of a name that is not UTF-8 are surrogates.
        size: Bytes.
        stamp: Text that changes whenever the content may have changed.
        fault: Why the file cannot be read at all, '' for most.
    """

    path: str
    size: int
    stamp: str
    fault: str = ""


class Source(ABC):
    """Files from one place. :func:`cxr_tasks.data.sources.open_source` opens it.

    Attributes:
        example: An address of this kind, or words for one, as messages show it.
        address: As given.
    """

    example: ClassVar[str]
    address: str

    def __init__(self, address: str) -> None:
        """The source at ``address``."""
        self.address = address

    @abstractmethod
    def entries(self) -> list[Entry]:
        """Every file, sorted by path, without hidden files.

        Raises:
            DataError: The source cannot be read.
        """

    def inside(self, archive: Entry) -> list[Entry]:
        """Every file in ``archive``, which is an entry of this source; none where this kind of source opens none.

        Raises:
            DataError: The archive cannot be read, or is refused.
        """
        return []

    @abstractmethod
    def fetch(self, entries: Sequence[Entry]) -> Path:
        """A local folder below which the path of each entry without a fault can be opened.

        A file that has vanished or changed since it was listed is not there. The folder is to be read only.

        Raises:
            DataError: The source cannot be read.
        """


def name_fault(path: str, folder: Path) -> str:
    """Why no file can have the name ``path`` below ``folder``; '' where one can."""
    if "\0" in path:
        return "the file name holds a zero byte"
    longest = max(len(os.fsencode(part)) for part in path.split("/"))
    if longest > os.pathconf(folder, "PC_NAME_MAX"):
        return f"the file name is too long ({longest} bytes)"
    # The kernel's limit includes the zero at the end.
    whole = len(os.fsencode(folder / path)) + 1
    return f"the path is too long ({whole} bytes)" if whole > os.pathconf(folder, "PC_PATH_MAX") else ""
