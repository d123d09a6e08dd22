"""A store in S3, with copies on this machine."""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import uuid
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cxr_tasks.errors import SettingsError, UserError
from cxr_tasks.outages import patience
from cxr_tasks.s3 import BucketUse
from cxr_tasks.store.base import (
    MARK,
    MARKED_SECONDS,
    NO_RECORD,
    PUBLICATION,
    REMOVED,
    SECRET_BYTES,
    SECRETS,
    RecordEntry,
    Store,
    read_entry,
)
from cxr_tasks.store.conditional import ConditionalBucket
from cxr_tasks.store.files import RECORD, Care, DamagedArtifact, MissingArtifact, described, fault_of, unlisted_fault
from cxr_tasks.store.folder import FolderStore, unreadable_pointer
from cxr_tasks.store.lease import Lease, hold_object
from cxr_tasks.store.staging import staging_folder, sweep_staging

log = logging.getLogger(__name__)

# How often a record is written when others mark the artifact as used at the same moments.
WRITES = 5
# What this process uploaded of checkpoints: by folder in the bucket and path, how the file was and the object's stamp.
# Most of a checkpoint is there already when the next one is saved.
_uploaded: dict[str, dict[str, tuple[tuple[int, int], str]]] = {}
STORE_USE = BucketUse("store", "used", "list, read, write and delete in the bucket", SettingsError)


class S3Store(Store):
    """Artifacts under a prefix of a bucket, with copies on this machine.

    Attributes:
        bucket: The objects below the store's address.
        cache: The copies.
    """

    def __init__(self, address: str, cache: Path) -> None:
        """The store at ``s3://bucket/prefix``, with its copies in the folder ``cache``."""
        self.bucket = ConditionalBucket(address, STORE_USE)
        self.cache = FolderStore(cache)

    def entry(self, ref: str) -> RecordEntry:
        """Read from the bucket every time: the artifact may have been replaced."""
        there = self.bucket.read(f"{ref}/{RECORD}")
        if there is None:
            return NO_RECORD
        return read_entry(ref, there.content, there.tag, datetime.now(UTC) - timedelta(seconds=there.age))

    def fault(self, ref: str, record: Mapping[str, Any], care: Care = Care.SMALL) -> str:
        """Looked for in one listing; files are only read where they were written since, or with ``Care.ALL``."""
        below, files = self._below(ref, record), record.get("files", {})
        there = {found.path.removeprefix(below): found for found in self.bucket.objects(below)}
        for name, told in files.items():
            if name not in there:
                return f"its file {name} is gone"
            if there[name].size != told["size"]:
                return f"its file {name} has {there[name].size:,} bytes instead of {told['size']:,}"
        if not there and not files and "files" not in record:
            return "its files are gone"
        if fault := unlisted_fault(ref, record, there.__contains__):
            return fault
        if care is not Care.ALL and all(there[name].stamp == told["stamp"] for name, told in files.items()):
            return ""
        try:
            self._copy(ref, record, anew=care is Care.ALL)
        except DamagedArtifact as error:
            return error.fault
        return ""

    def fetch(self, ref: str) -> Path:
        """The copy of the newest publication, which is downloaded once."""
        while True:
            entry = self.entry(ref)
            if entry.content is None:
                raise MissingArtifact(ref, self.bucket.where(""))
            try:
                # By publication, so that a copy never changes under its readers.
                folder = self._copy(ref, entry.content)
            except FileNotFoundError as error:  # which a damaged artifact is, too
                if not entry.is_still(self.entry(ref)):
                    continue
                if isinstance(error, DamagedArtifact):
                    raise
                raise DamagedArtifact(ref, self.where(ref), "one of its files is gone") from error
            if self._mark(ref, entry):
                return folder

    def read_pointer(self, name: str) -> Any:
        """Read from the bucket every time."""
        path = f"pointers/{name}.json"
        content = self.bucket.get(path)
        try:
            return None if content is None else json.loads(content)
        except ValueError as error:
            raise unreadable_pointer(self.bucket.where(path)) from error

    def write_pointer(self, name: str, value: Any) -> None:
        """Put one object, which replaces the one before."""
        self.bucket.put(f"pointers/{name}.json", json.dumps(value).encode())

    def pointers(self) -> list[str]:
        """The objects below ``pointers``."""
        found = self.bucket.objects("pointers/")
        return [each.path.removeprefix("pointers/").removesuffix(".json") for each in found]

    def remove_pointer(self, name: str) -> None:
        """Delete the object."""
        self.bucket.delete([f"pointers/{name}.json"])

    def secret(self, name: str) -> bytes:
        """An object below ``secrets``: whoever may read the bucket may read it."""
        path = f"{SECRETS}/{name}"
        drawn = secrets.token_bytes(SECRET_BYTES)
        there = self.bucket.get(path)
        if there is None and self.bucket.write(path, drawn, None) is not None:
            return drawn
        return there or self.bucket.get(path) or drawn

    def where(self, ref: str) -> str:
        """The address of the newest publication."""
        return self.bucket.where(self._below(ref, self.record(ref) or {})).rstrip("/")

    def load_checkpoint(self, ref: str) -> Path:
        """The working folder on this machine, as it was last saved anywhere."""
        # What the store has counts: another machine may have gone on since this one last worked at it.
        # Aside first: killed half-way, the download must not pass for what was saved.
        with staging_folder(self._staging_root(), "checkpoint") as aside:
            if self.bucket.download(f"unfinished/{ref}/", aside):
                folder = self.cache.load_checkpoint(ref)
                shutil.rmtree(folder)
                os.rename(aside, folder)
        return self.cache.load_checkpoint(ref)

    def checkpoint_to_save(self, ref: str) -> Callable[[], None]:
        """Upload the files of the working folder; then delete what is no longer in it."""
        taken = ExitStack()
        aside = taken.enter_context(staging_folder(self._staging_root(), "checkpoint")) / "taken"
        shutil.copytree(self.cache.load_checkpoint(ref), aside)

        def save() -> None:
            below = f"unfinished/{ref}/"
            with taken:
                before = {found.path: found.stamp for found in self.bucket.objects(below)}
                seen = {below + path.relative_to(aside).as_posix(): _signature(path) for path in _files(aside)}
                uploaded = _uploaded.get(self.bucket.where(below), {})
                same = {path for path in seen if path in before and uploaded.get(path) == (seen[path], before[path])}
                self._upload(aside, below, but=same)
                there = {found.path: found.stamp for found in self.bucket.objects(below)}
                _uploaded[self.bucket.where(below)] = {
                    path: (seen[path], stamp) for path, stamp in there.items() if path in seen
                }
                self.bucket.delete(path for path in there if path not in seen)

        return save

    def drop_checkpoint(self, ref: str) -> None:
        """Delete the working folder and its objects."""
        self.cache.drop_checkpoint(ref)
        self._delete_below(f"unfinished/{ref}/")
        _uploaded.pop(self.bucket.where(f"unfinished/{ref}/"), None)

    def lease(self, name: str, work: str, *, wait: bool = True) -> AbstractContextManager[Lease]:
        """An object below ``leases``, written on the condition that nobody else holds the name."""
        return hold_object(self.bucket, name, work, wait=wait)

    def remove(self, ref: str, unused_since: datetime) -> bool:
        """The record becomes one that says so, if nobody wrote it meanwhile; then files go, and the record last."""
        path, before = f"{ref}/{RECORD}", self.entry(ref)
        if before.used > unused_since:
            return False
        if before.tag is None:
            return True
        # Listed now: whoever makes the artifact anew from here on uploads files of other names.
        files = [found.path for found in self.bucket.objects(f"{ref}/") if found.path != path]
        tag = self.bucket.write(path, json.dumps({REMOVED: uuid.uuid4().hex}).encode(), before.tag)
        if tag is None:
            return False
        self.bucket.delete(files)
        there = self.bucket.read(path)
        if there is not None and there.tag == tag:
            self.bucket.delete([path])
        return True

    def sweep(self) -> None:
        """Remove what dead processes left in staging on this machine; ``cxr store gc`` clears up the bucket."""
        sweep_staging(self.cache.root)

    def _below(self, ref: str, record: Mapping[str, Any]) -> str:
        return f"{ref}/{record.get(PUBLICATION, '')}/"

    def _copy(self, ref: str, record: Mapping[str, Any], *, anew: bool = False) -> Path:
        """The local copy of a publication, downloaded where there is none that is whole."""
        below = self._below(ref, record).rstrip("/")
        if self._has_copy(below) and not anew:
            return self.cache.root / below
        return self._download(ref, record, below)

    def _download(self, ref: str, record: Mapping[str, Any], below: str) -> Path:
        target, files = self.cache.root / below, record.get("files", {})
        with staging_folder(self._staging_root(), ref) as staging:
            if not self.bucket.download(f"{below}/", staging) and "files" not in record:
                raise DamagedArtifact(ref, self.bucket.where(below), "its files are gone")
            here = described(staging)
            for name, told in files.items():
                if here.get(name, {}).get("sha256") != told["sha256"]:
                    fault = f"its file {name} " + (
                        "has another content than was written" if name in here else "is gone"
                    )
                    raise DamagedArtifact(ref, self.bucket.where(below), fault)
            # With the stamps of the copies: they are looked at whenever the copy is taken.
            (staging / RECORD).write_text(json.dumps({**record, "files": here}), encoding="utf-8")
            target.parent.mkdir(parents=True, exist_ok=True)
            staging.chmod(0o755)
            with self.cache.lease(f"copy/{below}", ""), staging_folder(self.cache.root, ref) as old:
                if self._has_copy(below):
                    return target  # somebody else was faster, and may be reading
                if target.exists():
                    os.rename(target, old / "damaged")
                os.rename(staging, target)
        return target

    def _has_copy(self, below: str) -> bool:
        """Whether this machine has a whole copy of a publication; a warning tells of one that is damaged."""
        copied = self.cache.entry(below).content
        if copied is None:
            return False
        fault = fault_of(self.cache.root / below, copied.get("files", {}), Care.SIZES)
        if fault:
            log.warning("the copy %s/%s is damaged, %s: it is fetched again", self.cache.root, below, fault)
        return not fault

    def _mark(self, ref: str, entry: RecordEntry) -> bool:
        if (datetime.now(UTC) - entry.used).total_seconds() <= MARKED_SECONDS:
            return True
        try:
            # On the condition that nobody replaced or removed it.
            marked = json.dumps({**(entry.content or {}), MARK: uuid.uuid4().hex}).encode()
            written = self.bucket.write(f"{ref}/{RECORD}", marked, entry.tag)
        except UserError:
            return True  # who may only read removes nothing either
        return written is not None or self.entry(ref).content is not None

    def _staging_root(self) -> Path:
        return self.cache.root

    def _commit(self, staging: Path, ref: str, record: dict[str, Any], before: RecordEntry) -> bool:
        below = self._below(ref, record)
        try:
            self._upload(staging, below)
            stamps = {found.path.removeprefix(below): found.stamp for found in self.bucket.objects(below)}
            if stamps.keys() != record["files"].keys():
                raise ConnectionError(f"Not all files of {ref} that were uploaded are in {self.bucket.where(below)}.")
        except Exception:
            # No record names them. Once the record may be there, whatever its writer heard, they must stay.
            with patience(0.0), suppress(Exception):
                self._delete_below(below)
            raise
        for name, stamp in stamps.items():
            record["files"][name]["stamp"] = stamp
        now = before
        for _ in range(WRITES):
            if self.bucket.write(f"{ref}/{RECORD}", json.dumps(record).encode(), now.tag) is not None:
                return True
            # Marked as used meanwhile, the record is still the one that is to be replaced.
            now = self.entry(ref)
            if not before.is_still(now):
                break
        self._delete_below(below)
        return False

    def _delete_below(self, folder: str) -> None:
        self.bucket.delete(found.path for found in self.bucket.objects(folder))

    def _upload(self, folder: Path, below: str, but: Collection[str] = ()) -> None:
        """Upload the files of ``folder``, but for the paths ``but`` of objects."""
        files = {below + path.relative_to(folder).as_posix(): path for path in _files(folder)}
        files = {path: file for path, file in files.items() if path not in but}
        # The file that lists TensorFlow's checkpoints goes last: it must not name one that is not there.
        lists = {path for path, file in files.items() if file.name == "checkpoint"}
        self.bucket.upload({path: file for path, file in files.items() if path not in lists})
        self.bucket.upload({path: files[path] for path in lists})


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _signature(file: Path) -> tuple[int, int]:
    """Bytes, and when the content was written, in nanoseconds: a copy keeps both."""
    status = file.stat()
    return status.st_size, status.st_mtime_ns
