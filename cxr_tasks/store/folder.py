"""A store in a folder, on this machine or on a disk that several machines share."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cxr_tasks.errors import SettingsError
from cxr_tasks.store.base import (
    MARKED_SECONDS,
    NO_RECORD,
    PUBLICATION,
    SECRET_BYTES,
    SECRETS,
    RecordEntry,
    Store,
    published_at,
    read_entry,
)
from cxr_tasks.store.files import RECORD, Care, DamagedArtifact, MissingArtifact, fault_of, unlisted_fault
from cxr_tasks.store.lease import LEASES, Lease, hold_file
from cxr_tasks.store.staging import staging_folder, sweep_staging

PUBLICATION_NAME = re.compile("[0-9a-f]{32}")
# How long a publication stays after another replaced it, for those who read it.
REPLACED_SECONDS = 86400.0


class FolderStore(Store):
    """Artifacts in a folder; the rename of the record publishes.

    Attributes:
        root: The folder, which may not exist yet.
    """

    def __init__(self, root: Path) -> None:
        """The store in the folder ``root``."""
        self.root = root

    def entry(self, ref: str) -> RecordEntry:
        """Read from the artifact's folder."""
        path = self.root / ref / RECORD
        try:
            content, written = path.read_bytes(), path.stat().st_mtime
        except (FileNotFoundError, NotADirectoryError):
            return NO_RECORD
        return read_entry(ref, content, hashlib.sha256(content).hexdigest(), datetime.fromtimestamp(written, UTC))

    def fault(self, ref: str, record: Mapping[str, Any], care: Care = Care.SMALL) -> str:
        """Looked for in the artifact's own files."""
        folder = self._folder(ref, record)
        if not folder.is_dir():
            return "its folder is gone"
        lost = unlisted_fault(ref, record, lambda name: (folder / name).is_file())
        return lost or fault_of(folder, record.get("files", {}), care)

    def fetch(self, ref: str) -> Path:
        """The publication's own folder: nothing is copied."""
        while True:
            entry = self.entry(ref)
            if entry.content is None:
                raise MissingArtifact(ref, str(self.root))
            fault = self.fault(ref, entry.content, Care.SIZES)
            if not fault and self._mark(ref, entry):
                return self._folder(ref, entry.content)
            if entry.is_still(self.entry(ref)):
                raise DamagedArtifact(ref, self.where(ref), fault)

    def read_pointer(self, name: str) -> Any:
        """Read from a file of that name."""
        path = self._pointer(name)
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise unreadable_pointer(str(path)) from error

    def write_pointer(self, name: str, value: Any) -> None:
        """Write a file beside the one before, and rename it."""
        _replace(self._pointer(name), json.dumps(value))

    def pointers(self) -> list[str]:
        """The files below ``pointers``."""
        root = self.root / "pointers"
        return sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.json"))

    def remove_pointer(self, name: str) -> None:
        """Delete the file."""
        self._pointer(name).unlink(missing_ok=True)

    def secret(self, name: str) -> bytes:
        """A file below ``secrets`` that only its owner may read."""
        path = self.root / SECRETS / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            aside = path.with_name(f".{name}.{uuid.uuid4().hex}")
            handle = os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            try:
                with os.fdopen(handle, "wb") as stream:
                    stream.write(secrets.token_bytes(SECRET_BYTES))
                    stream.flush()
                    os.fsync(stream.fileno())
                # Of two that draw at once one wins, and a file is never seen half written.
                with suppress(FileExistsError):
                    os.link(aside, path)
            finally:
                aside.unlink()
        return path.read_bytes()

    def where(self, ref: str) -> str:
        """The folder of the newest publication."""
        return str(self._folder(ref, self.record(ref) or {}))

    def load_checkpoint(self, ref: str) -> Path:
        """The working folder, which is in the store."""
        folder = self.root / "unfinished" / ref
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def checkpoint_to_save(self, ref: str) -> Callable[[], None]:
        """Nothing to do: the working folder is in the store already."""
        return lambda: None

    def drop_checkpoint(self, ref: str) -> None:
        """Remove the working folder."""
        shutil.rmtree(self.root / "unfinished" / ref, ignore_errors=True)

    def lease(self, name: str, work: str, *, wait: bool = True) -> AbstractContextManager[Lease]:
        """A lock on a file below ``leases``."""
        return hold_file(self.root / LEASES, name, work, wait=wait)

    def remove(self, ref: str, unused_since: datetime) -> bool:
        """Record and files vanish in one move. Who reads the files at this moment has marked the artifact as used."""
        with staging_folder(self.root, "removed") as aside, self._alone(ref):
            if self.entry(ref).used > unused_since:
                return False
            with suppress(FileNotFoundError):
                os.rename(self.root / ref, aside / "artifact")
        return True

    def sweep(self) -> None:
        """Remove what dead processes left in staging, and publications that were replaced more than a day ago."""
        sweep_staging(self.root)
        for record in self.root.glob(f"*/*/{RECORD}"):
            if len(_publications(record.parent)) > 1:
                ref = record.parent.relative_to(self.root).as_posix()
                # Alone, so that a publication whose record is about to be written does not count as replaced.
                with self._alone(ref):
                    self._sweep_replaced(ref)

    def _sweep_replaced(self, ref: str) -> None:
        told = self.record(ref) or {}
        since = published_at(told)
        if since is None or (datetime.now(UTC) - since).total_seconds() < REPLACED_SECONDS:
            return
        for folder in _publications(self.root / ref):
            if folder.name != told.get(PUBLICATION):
                shutil.rmtree(folder, ignore_errors=True)

    def _folder(self, ref: str, record: Mapping[str, Any]) -> Path:
        # Artifacts of 0.1.0 have their files beside the record.
        return self.root / ref / record.get(PUBLICATION, "")

    def _pointer(self, name: str) -> Path:
        return self.root / "pointers" / f"{name}.json"

    def _mark(self, ref: str, entry: RecordEntry) -> bool:
        if time.time() - entry.used.timestamp() <= MARKED_SECONDS:
            return True
        try:
            with self._alone(ref):
                os.utime(self.root / ref / RECORD)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            pass  # in a store that may only be read, nothing is removed either
        return True

    def _alone(self, ref: str) -> AbstractContextManager[Lease]:
        return self.lease(f"record/{ref}", "")

    def _staging_root(self) -> Path:
        return self.root

    def _commit(self, staging: Path, ref: str, record: dict[str, Any], before: RecordEntry) -> bool:
        folder = self._folder(ref, record)
        with self._alone(ref):
            if not before.is_still(self.entry(ref)):
                return False
            folder.parent.mkdir(parents=True, exist_ok=True)
            staging.chmod(0o755)
            os.rename(staging, folder)
            try:
                _replace(folder.parent / RECORD, json.dumps(record, indent=2, sort_keys=True))
            except OSError:
                # Whatever else may end this, a time limit say, can come when the record is there and names the files.
                shutil.rmtree(folder, ignore_errors=True)
                raise
        return True


def _publications(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if PUBLICATION_NAME.fullmatch(path.name)]
    except FileNotFoundError:  # just removed by somebody else
        return []


def unreadable_pointer(place: str) -> SettingsError:
    """The error to raise for a pointer that is no JSON."""
    return SettingsError(
        f"The pointer {place} of the store cannot be read: put back a copy of it. Without a copy, remove it and run "
        "cxr_data again; where it is one of splits, images may then change between training and test."
    )


def _replace(path: Path, text: str) -> None:
    """Write a small file in one move, which also a power cut leaves whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with aside.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
