"""Content-addressed artifacts in a folder or in S3: published whole or not at all.

An artifact is a folder of files with an ``artifact.json``, found under ``<step>/<key>``. The key is a hash of what
the step made the artifact from. Pointers are small named values that may change, such as the newest dataset.
Checkpoints are the one kind of half-finished work that survives a killed task.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cxr_tasks.cache import cache_root
from cxr_tasks.errors import SettingsError
from cxr_tasks.s3 import Bucket, BucketUse

RECORD = "artifact.json"
STORE_USE = BucketUse("store", "used", "list, read, write and delete in the bucket", SettingsError)


def artifact_ref(step: str, version: int, settings: Mapping[str, Any], inputs: Mapping[str, Any]) -> str:
    """``<step>/<key>``: the same step, version, settings and inputs give the same reference."""
    content = json.dumps([step, version, settings, inputs], sort_keys=True, ensure_ascii=True)
    return f"{step}/{hashlib.sha256(content.encode()).hexdigest()[:20]}"


class Store(ABC):
    """What steps need of a store. :func:`open_store` opens one."""

    @abstractmethod
    def record(self, ref: str) -> dict[str, Any] | None:
        """The ``artifact.json`` of a published artifact, or ``None``."""

    @abstractmethod
    def fetch(self, ref: str) -> Path:
        """A local folder with the artifact's files, to be read only.

        Raises:
            FileNotFoundError: Nothing is published under ``ref``.
        """

    @contextmanager
    def publish(self, ref: str, record: dict[str, Any], *, replace: bool = False) -> Iterator[Path]:
        """Yield an empty folder to fill; when the block ends well it becomes the artifact ``ref``.

        If the block raises, nothing is left.

        Args:
            ref: Of the artifact.
            record: Content of ``artifact.json``, which is written last. The block may add to it.
            replace: Whether the artifact takes the place of one that is published already. Otherwise that one stays.
        """
        staging = Path(tempfile.mkdtemp(prefix=ref.replace("/", "-") + "-", dir=self._staging_root()))
        try:
            yield staging
            complete = {**record, "ref": ref, "published": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
            (staging / RECORD).write_text(json.dumps(complete, indent=2, sort_keys=True), encoding="utf-8")
            self._commit(staging, ref, replace)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    @abstractmethod
    def read_pointer(self, name: str) -> Any:
        """The JSON value last written under ``name``, or ``None``."""

    @abstractmethod
    def write_pointer(self, name: str, value: Any) -> None:
        """Replace the value under ``name`` in one move."""

    @abstractmethod
    def where(self, ref: str) -> str:
        """Where people find the files of a published artifact."""

    @abstractmethod
    def load_checkpoint(self, ref: str) -> Path:
        """A local working folder for the unfinished artifact ``ref``, filled with what was last saved."""

    @abstractmethod
    def save_checkpoint(self, ref: str) -> None:
        """Make what the working folder of ``ref`` holds now survive the loss of this machine."""

    @abstractmethod
    def drop_checkpoint(self, ref: str) -> None:
        """Remove the working folder of ``ref``, here and in the store."""

    @abstractmethod
    def _staging_root(self) -> Path: ...

    @abstractmethod
    def _commit(self, staging: Path, ref: str, replace: bool) -> None: ...


class FolderStore(Store):
    """Artifacts in a folder; a rename publishes.

    Attributes:
        root: The folder, which may not exist yet.
    """

    def __init__(self, root: Path) -> None:
        """The store in the folder ``root``."""
        self.root = root

    def record(self, ref: str) -> dict[str, Any] | None:
        """Read from the artifact's folder."""
        try:
            return json.loads((self.root / ref / RECORD).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def fetch(self, ref: str) -> Path:
        """The artifact's own folder: nothing is copied."""
        if not (self.root / ref / RECORD).is_file():
            raise FileNotFoundError(f"Artifact {ref} is not in the store {self.root}.")
        return self.root / ref

    def read_pointer(self, name: str) -> Any:
        """Read from a file of that name."""
        try:
            return json.loads((self.root / "pointers" / f"{name}.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def write_pointer(self, name: str, value: Any) -> None:
        """Write a file beside the one before, and rename it."""
        path = self.root / "pointers" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        aside.write_text(json.dumps(value), encoding="utf-8")
        os.replace(aside, path)

    def where(self, ref: str) -> str:
        """The artifact's folder."""
        return str(self.root / ref)

    def load_checkpoint(self, ref: str) -> Path:
        """The working folder, which is in the store."""
        folder = self.root / "unfinished" / ref
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def save_checkpoint(self, ref: str) -> None:
        """Nothing to do: the working folder is in the store already."""

    def drop_checkpoint(self, ref: str) -> None:
        """Remove the working folder."""
        shutil.rmtree(self.root / "unfinished" / ref, ignore_errors=True)

    def _staging_root(self) -> Path:
        # On the same file system as the artifacts, so that publishing is one rename.
        staging = self.root / "staging"
        staging.mkdir(parents=True, exist_ok=True)
        return staging

    def _commit(self, staging: Path, ref: str, replace: bool) -> None:
        target = self.root / ref
        target.parent.mkdir(parents=True, exist_ok=True)
        staging.chmod(0o755)
        while True:
            try:
                os.rename(staging, target)
                return
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            if not replace:
                return
            # Somebody else may be replacing the artifact too: it may be gone now, or be there again at the next turn.
            old = self._staging_root() / f"replaced-{uuid.uuid4().hex}"
            with suppress(FileNotFoundError):
                os.rename(target, old)
            shutil.rmtree(old, ignore_errors=True)


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
        self.bucket = Bucket(address, STORE_USE)
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


def open_store(address: str | None = None) -> Store:
    """The store at ``address``, or at ``CXR_STORE``.

    Args:
        address: A folder, or ``s3://bucket/prefix``.

    Raises:
        SettingsError: No address is given and ``CXR_STORE`` is not set, or the address names no bucket.
    """
    address = address or os.environ.get("CXR_STORE")
    if not address:
        raise SettingsError("CXR_STORE is not set: give it a folder or s3://bucket/prefix.")
    if address.startswith("s3://"):
        return S3Store(address, cache_root())
    return FolderStore(Path(address).absolute())
