"""A store in S3, with copies on this machine."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from cxr_tasks.errors import SettingsError
from cxr_tasks.s3 import BucketUse
from cxr_tasks.store.base import RECORD, Store
from cxr_tasks.store.conditional import ConditionalBucket
from cxr_tasks.store.folder import FolderStore
from cxr_tasks.store.lease import Lease, hold_object

STORE_USE = BucketUse("store", "used", "list, read, write and delete in the bucket", SettingsError)


class S3Store(Store):
    """Artifacts under a prefix of a bucket, with copies on this machine.

    The files of each publication go under a prefix of their own. ``artifact.json`` names this prefix and is uploaded
    last: a reader sees one publication or another, never a mixture, even when two runs publish at once.

    Attributes:
        bucket: The objects below the store's address.
        cache: The copies.
    """

    def __init__(self, address: str, cache: Path) -> None:
        """The store at ``s3://bucket/prefix``, with its copies in the folder ``cache``."""
        self.bucket = ConditionalBucket(address, STORE_USE)
        self.cache = FolderStore(cache)

    def record(self, ref: str) -> dict[str, Any] | None:
        """Read from the bucket every time: the artifact may have been replaced."""
        return self._read_json(f"{ref}/{RECORD}")

    def fetch(self, ref: str) -> Path:
        """The copy of the newest publication, which is downloaded once."""
        record = self.record(ref)
        if record is None:
            raise FileNotFoundError(f"Artifact {ref} is not in {self.bucket.where('')}.")
        # By publication, so that a copy never changes under its readers.
        cached = f"{ref}/{record['objects']}"
        if self.cache.record(cached) is not None:
            return self.cache.fetch(cached)
        try:
            with self.cache.publish(cached, record) as folder:
                self.bucket.download(f"{cached}/", folder)
        except FileNotFoundError:
            if self.record(ref) == record:
                raise
        if self.record(ref) != record:
            # Another publication replaced this one, and deleted its objects before they were all read.
            return self.fetch(ref)
        return self.cache.fetch(cached)

    def read_pointer(self, name: str) -> Any:
        """Read from the bucket every time."""
        return self._read_json(f"pointers/{name}.json")

    def write_pointer(self, name: str, value: Any) -> None:
        """Put one object, which replaces the one before."""
        self.bucket.put(f"pointers/{name}.json", json.dumps(value).encode())

    def where(self, ref: str) -> str:
        """The address of the newest publication."""
        record = self.record(ref) or {}
        return self.bucket.where(f"{ref}/{record.get('objects', '')}").rstrip("/")

    def load_checkpoint(self, ref: str) -> Path:
        """The working folder on this machine, as it was last saved anywhere."""
        # What the store has counts: another machine may have gone on since this one last worked at it.
        # Aside first: killed half-way, the download must not pass for what was saved.
        aside = Path(tempfile.mkdtemp(prefix="checkpoint-", dir=self._staging_root()))
        try:
            if self.bucket.download(f"unfinished/{ref}/", aside):
                folder = self.cache.load_checkpoint(ref)
                shutil.rmtree(folder)
                os.rename(aside, folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return self.cache.load_checkpoint(ref)

    def save_checkpoint(self, ref: str) -> None:
        """Upload the working folder; then delete what is no longer in it."""
        kept = self._upload(self.cache.load_checkpoint(ref), f"unfinished/{ref}/")
        there = self.bucket.objects(f"unfinished/{ref}/")
        self.bucket.delete(found.path for found in there if found.path not in kept)

    def drop_checkpoint(self, ref: str) -> None:
        """Delete the working folder and its objects."""
        self.cache.drop_checkpoint(ref)
        self._delete_below(f"unfinished/{ref}/")

    def lease(self, name: str, work: str, *, wait: bool = True) -> AbstractContextManager[Lease]:
        """An object below ``leases``, written on the condition that nobody else holds the name."""
        return hold_object(self.bucket, name, work, wait=wait)

    def _staging_root(self) -> Path:
        return self.cache._staging_root()

    def _commit(self, staging: Path, ref: str, replace: bool) -> None:
        before = self.record(ref)
        if before is not None and not replace:
            return
        record = json.loads((staging / RECORD).read_text(encoding="utf-8")) | {"objects": uuid.uuid4().hex}
        (staging / RECORD).unlink()
        self._upload(staging, f"{ref}/{record['objects']}/")
        self.bucket.put(f"{ref}/{RECORD}", json.dumps(record).encode())
        if before is not None:
            self._delete_below(f"{ref}/{before['objects']}/")

    def _read_json(self, path: str) -> Any:
        content = self.bucket.get(path)
        return None if content is None else json.loads(content)

    def _delete_below(self, folder: str) -> None:
        self.bucket.delete(found.path for found in self.bucket.objects(folder))

    def _upload(self, folder: Path, below: str) -> set[str]:
        """Upload the files of ``folder``. Returns the paths of their objects."""
        files = {
            below + path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()
        }
        # The file that lists TensorFlow's checkpoints goes last: it must not name one that is not there.
        lists = {path for path, file in files.items() if file.name == "checkpoint"}
        self.bucket.upload({path: file for path, file in files.items() if path not in lists})
        self.bucket.upload({path: files[path] for path in lists})
        return set(files)
