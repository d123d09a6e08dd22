"""Files in a zip or tar archive, unpacked once into the local cache.

``unpacking.py`` unpacks. Afterwards the archive is a folder like any other.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from cxr_tasks.cache import cache_folder, locked
from cxr_tasks.data.sources.base import Entry, Source
from cxr_tasks.data.sources.folder import FolderSource
from cxr_tasks.data.sources.unpacking import Unpacked, unpack_archive
from cxr_tasks.errors import DataError, shown

UNPACKED_FILES, UNPACKING_RECORD = "files", "record.json"
# Raise this when more or less of an archive is unpacked than before: archives in the cache are then unpacked anew.
UNPACKING_VERSION = 3


class ArchiveSource(Source):
    """The files of an archive; of two members of one name the later counts.

    Hidden files are not unpacked. A changed archive is unpacked anew, and the older unpacking removed.

    Attributes:
        path: The archive.
    """

    example = "an archive (.zip, .tar.gz)"

    def __init__(self, path: Path, address: str = "") -> None:
        """The archive ``path``, which messages call ``address``."""
        super().__init__(address or str(path))
        self.path = path.absolute()

    def entries(self) -> list[Entry]:
        """The files that were unpacked, and members that could not be, as faults."""
        folder = self._unpacked()
        record = _read_record(folder)
        root = folder / UNPACKED_FILES
        listed = FolderSource(root, self.address).entries()
        entries = {entry.path: self._stamped(entry, root, record.stamps) for entry in listed} | record.faults
        return sorted(entries.values(), key=lambda entry: entry.path)

    def fetch(self, entries: Sequence[Entry]) -> Path:
        """The folder of all unpacked files, whatever ``entries`` are asked for."""
        return self._unpacked() / UNPACKED_FILES

    def _stamped(self, entry: Entry, root: Path, stamps: dict[str, str]) -> Entry:
        """``entry`` with the stamp of its member, which is the same wherever the archive is unpacked."""
        if entry.fault:
            return entry
        path = entry.path
        if path not in stamps:
            # A link leads here: the stamp is that of the file at its end.
            path = os.path.relpath(os.path.realpath(root / path), os.path.realpath(root))
        return replace(entry, stamp=stamps.get(path, entry.stamp))

    def _unpacked(self) -> Path:
        """The folder with the unpacked files and their record, made where it is missing."""
        try:
            status = self.path.stat()
        except OSError as error:
            raise DataError(f"The archive {shown(self.address)} cannot be read ({error.strerror}).") from error
        home = cache_folder("sources", "archives", hashlib.sha256(os.fsencode(self.path)).hexdigest()[:20])
        # With the ctime, as a folder's files have it: another archive may be put here with the size and mtime of this.
        state = (UNPACKING_VERSION, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        folder = home / "-".join(map(str, state))
        with locked(home):
            if not _is_whole(folder):
                # Older unpackings, and what a killed unpacking left.
                for old in home.iterdir():
                    if old.name != "lock":
                        shutil.rmtree(old)
                self._unpack(home, folder)
        return folder

    def _unpack(self, home: Path, folder: Path) -> None:
        staging = Path(tempfile.mkdtemp(prefix="unpacking-", dir=home))
        try:
            staging.chmod(0o755)
            record = unpack_archive(self.path, staging / UNPACKED_FILES, self.address)
            (staging / UNPACKING_RECORD).write_text(json.dumps(asdict(record)), encoding="utf-8")
            os.rename(staging, folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _read_record(folder: Path) -> Unpacked:
    content = json.loads((folder / UNPACKING_RECORD).read_text(encoding="utf-8"))
    return Unpacked(content["stamps"], {path: Entry(**fault) for path, fault in content["faults"].items()})


def _is_whole(folder: Path) -> bool:
    # A folder that is there may still have gaps: what cleans up temporary folders removes single files.
    try:
        return all(os.path.lexists(f"{folder}/{UNPACKED_FILES}/{path}") for path in _read_record(folder).stamps)
    except (OSError, ValueError):
        return False
