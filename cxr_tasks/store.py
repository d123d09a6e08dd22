"""Content-addressed artifacts in a folder or in S3: published whole or not at all.

An artifact is a folder of files with an ``artifact.json``, found under ``<step>/<key>``; the key is a hash
of what the step was made from. Pointers are small named values that may change (the newest dataset, say);
checkpoints are the one kind of half-finished work that survives a killed task.
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
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from cxr_tasks.errors import SettingsError

RECORD = "artifact.json"


def artifact_ref(step: str, version: int, settings: Mapping[str, Any], inputs: Mapping[str, Any]) -> str:
    """``<step>/<key>``: the same step, version, settings and inputs give the same reference."""
    content = json.dumps([step, version, settings, inputs], sort_keys=True, ensure_ascii=True)
    return f"{step}/{hashlib.sha256(content.encode()).hexdigest()[:20]}"


class Store(ABC):
    """What steps need of a store. Use :func:`open_store`."""

    @abstractmethod
    def record(self, ref: str) -> dict[str, Any] | None:
        """The ``artifact.json`` of a published artifact, or ``None``."""

    @abstractmethod
    def fetch(self, ref: str) -> Path:
        """A local folder with the artifact's files, to be read only.

        Raises:
            FileNotFoundError: nothing is published under ``ref``.
        """

    @contextmanager
    def publish(self, ref: str, record: dict[str, Any], *, replace: bool = False) -> Iterator[Path]:
        """Yield an empty folder to fill; when the block ends well it becomes the artifact ``ref``.

        ``record`` may be added to inside the block and is written last. If somebody else published the
        same reference meanwhile theirs stays, unless ``replace``. If the block raises, nothing is left.
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
    """Artifacts in a folder; a rename publishes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def record(self, ref: str) -> dict[str, Any] | None:
        try:
            return json.loads((self.root / ref / RECORD).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def fetch(self, ref: str) -> Path:
        if not (self.root / ref / RECORD).is_file():
            raise FileNotFoundError(f"Artifact {ref} is not in the store {self.root}.")
        return self.root / ref

    def read_pointer(self, name: str) -> Any:
        try:
            return json.loads((self.root / "pointers" / f"{name}.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def write_pointer(self, name: str, value: Any) -> None:
        path = self.root / "pointers" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        aside.write_text(json.dumps(value), encoding="utf-8")
        os.replace(aside, path)

    def where(self, ref: str) -> str:
        return str(self.root / ref)

    def load_checkpoint(self, ref: str) -> Path:
        folder = self.root / "unfinished" / ref
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def save_checkpoint(self, ref: str) -> None:
        """Nothing to do: the working folder is in the store already."""

    def drop_checkpoint(self, ref: str) -> None:
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
            # Somebody else may be replacing it too, so it may be gone by now, or be there again at the next turn.
            old = self._staging_root() / f"replaced-{uuid.uuid4().hex}"
            with suppress(FileNotFoundError):
                os.rename(target, old)
            shutil.rmtree(old, ignore_errors=True)


class S3Store(Store):
    """Artifacts under a prefix of a bucket, with a local cache.

    The files of each publication go under a prefix of their own and ``artifact.json``, uploaded last, names
    it: so a reader sees one publication or another, never a mixture, even when two runs publish at once.
    """

    def __init__(self, bucket: str, prefix: str, cache: Path) -> None:
        import boto3

        # The endpoint and the credentials come from AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID and the like.
        self.client = boto3.client("s3")
        self.bucket = bucket
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.cache = FolderStore(cache)

    def record(self, ref: str) -> dict[str, Any] | None:
        return self._read_json(f"{ref}/{RECORD}")

    def fetch(self, ref: str) -> Path:
        record = self.record(ref)
        if record is None:
            raise FileNotFoundError(f"Artifact {ref} is not in s3://{self.bucket}/{self.prefix}.")
        # By publication, so that what is cached never changes under those who read it.
        cached = f"{ref}/{record['objects']}"
        if self.cache.record(cached) is None:
            with self.cache.publish(cached, record) as folder:
                self._download(f"{cached}/", folder)
            if self.record(ref) != record:
                # Replaced meanwhile, and its objects were deleted before they were read.
                return self.fetch(ref)
        return self.cache.fetch(cached)

    def read_pointer(self, name: str) -> Any:
        return self._read_json(f"pointers/{name}.json")

    def write_pointer(self, name: str, value: Any) -> None:
        key = f"{self.prefix}pointers/{name}.json"
        self.client.put_object(Bucket=self.bucket, Key=key, Body=json.dumps(value).encode())

    def where(self, ref: str) -> str:
        record = self.record(ref) or {}
        return f"s3://{self.bucket}/{self.prefix}{ref}/{record.get('objects', '')}".rstrip("/")

    def load_checkpoint(self, ref: str) -> Path:
        # What the store has counts: another machine may have gone on since this one last worked at it.
        if self._keys(f"unfinished/{ref}/"):
            # Aside first: killed half-way, the download must not pass for what was saved.
            aside = Path(tempfile.mkdtemp(prefix="checkpoint-", dir=self._staging_root()))
            self._download(f"unfinished/{ref}/", aside)
            folder = self.cache.load_checkpoint(ref)
            shutil.rmtree(folder)
            os.rename(aside, folder)
        return self.cache.load_checkpoint(ref)

    def save_checkpoint(self, ref: str) -> None:
        folder = self.cache.load_checkpoint(ref)
        kept = self._upload(folder, f"unfinished/{ref}/")
        self._delete(key for key in self._keys(f"unfinished/{ref}/") if key not in kept)

    def drop_checkpoint(self, ref: str) -> None:
        self.cache.drop_checkpoint(ref)
        self._delete(self._keys(f"unfinished/{ref}/"))

    def _staging_root(self) -> Path:
        return self.cache._staging_root()

    def _commit(self, staging: Path, ref: str, replace: bool) -> None:
        before = self.record(ref)
        if before is not None and not replace:
            return
        record = json.loads((staging / RECORD).read_text(encoding="utf-8")) | {"objects": uuid.uuid4().hex}
        (staging / RECORD).unlink()
        self._upload(staging, f"{ref}/{record['objects']}/")
        key = f"{self.prefix}{ref}/{RECORD}"
        self.client.put_object(Bucket=self.bucket, Key=key, Body=json.dumps(record).encode())
        if before is not None:
            self._delete(self._keys(f"{ref}/{before['objects']}/"))

    def _read_json(self, name: str) -> Any:
        try:
            body = self.client.get_object(Bucket=self.bucket, Key=self.prefix + name)["Body"]
        except self.client.exceptions.NoSuchKey:
            return None
        return json.loads(body.read())

    def _keys(self, name: str) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix + name)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def _delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.client.delete_object(Bucket=self.bucket, Key=key)

    def _download(self, name: str, folder: Path) -> None:
        for key in self._keys(name):
            path = folder / key[len(self.prefix) + len(name) :]
            path.parent.mkdir(parents=True, exist_ok=True)
            self.client.download_file(self.bucket, key, str(path))

    def _upload(self, folder: Path, name: str) -> set[str]:
        # The file that lists TensorFlow's checkpoints goes last: it must not name one that is not there.
        files = sorted(
            (path for path in folder.rglob("*") if path.is_file()), key=lambda path: (path.name == "checkpoint", path)
        )
        keys = {path: f"{self.prefix}{name}{path.relative_to(folder).as_posix()}" for path in files}
        for path, key in keys.items():
            self.client.upload_file(str(path), self.bucket, key)
        return set(keys.values())


def open_store(address: str | None = None) -> Store:
    """The store at ``address``, or at ``CXR_STORE``: a folder, or ``s3://bucket/prefix``.

    Raises:
        SettingsError: no address is given and ``CXR_STORE`` is not set.
    """
    address = address or os.environ.get("CXR_STORE")
    if not address:
        raise SettingsError("CXR_STORE is not set: give it a folder or s3://bucket/prefix.")
    if address.startswith("s3://"):
        url = urlparse(address)
        cache = Path(os.environ.get("CXR_CACHE", Path(tempfile.gettempdir()) / "cxr-cache"))
        return S3Store(url.netloc, url.path, cache)
    return FolderStore(Path(address).absolute())
