"""Objects below a prefix of a bucket, downloaded into the local cache when they are new or changed."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cxr_tasks.data.sources.base import (
    Entry,
    Source,
    cache_folder,
    disk_full,
    in_one_line,
    is_left_out,
    locked,
    name_fault,
    shown,
)
from cxr_tasks.errors import DataError

THREADS = 16
TRIES = 3
CHUNK = 2**20
REFUSED = {"403", "AccessDenied", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"}


class S3Source(Source):
    """The objects of ``s3://bucket/prefix``; endpoint and credentials come from ``AWS_ENDPOINT_URL_S3`` and the like.

    ``fetched`` counts the objects that :meth:`fetch` has downloaded so far.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.bucket, _, prefix = address.removeprefix("s3://").partition("/")
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.fetched = 0
        self._client: Any = None
        if not self.bucket:
            raise DataError(f"The data source {shown(address)} names no bucket: give s3://bucket/prefix.")

    def entries(self) -> list[Entry]:
        root = self._home() / "files"
        root.mkdir(exist_ok=True)
        objects = {item["Key"][len(self.prefix) :]: item for item in self._list()}
        if not objects:
            raise DataError(
                f"The data source {shown(self.address)} does not exist: the bucket holds nothing below this prefix; "
                "give the prefix that the images are below."
            )
        for path in objects:
            if path.startswith("/") or ".." in path.split("/"):
                raise DataError(
                    f"The data source {shown(self.address)} is refused: its object {path!r} would be written outside "
                    "the folder it is fetched to; give it another key."
                )
        # Some tools make an object for a folder itself; its key ends in a slash.
        paths = sorted(path for path in objects if not path.endswith("/") and path and not is_left_out(path))
        folders = _folders_of(paths)
        sizes = {path: objects[path]["Size"] for path in paths}
        stamps = {path: _stamp(objects[path]["ETag"], sizes[path]) for path in paths}
        return [Entry(path, sizes[path], stamps[path], _fault(path, root, folders)) for path in paths]

    def fetch(self, entries: Sequence[Entry]) -> Path:
        """The cache folder, with each object in it that is still as it was listed.

        Raises:
            DataError: the bucket refuses.
            ConnectionError: the connection broke off; what was fetched until then stays, so a retry goes on.
        """
        home = self._home()
        root, aside = home / "files", home / "aside"
        with locked(home):
            # What a killed download left.
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
            root.mkdir(exist_ok=True)
            wanted = [entry for entry in entries if not entry.fault and not _is_cached(root / entry.path, entry)]
            pool = ThreadPoolExecutor(THREADS)
            try:
                for came in pool.map(lambda entry: self._download(entry, root, aside), wanted):
                    self.fetched += came
            finally:
                pool.shutdown(cancel_futures=True)
                shutil.rmtree(aside, ignore_errors=True)
        return root

    @property
    def client(self) -> Any:
        if self._client is None:
            import boto3
            from botocore.config import Config

            config = Config(max_pool_connections=THREADS, connect_timeout=10, retries={"mode": "standard"})
            try:
                self._client = boto3.client("s3", config=config)
            except ValueError as error:
                raise DataError(f"S3 cannot be reached ({error}): correct AWS_ENDPOINT_URL_S3.") from error
        return self._client

    def _home(self) -> Path:
        # By endpoint as well: another server may have a bucket of the same name.
        identity = "\0".join((self.client.meta.endpoint_url, self.bucket, self.prefix))
        return cache_folder("s3", hashlib.sha256(identity.encode(errors="surrogateescape")).hexdigest()[:20])

    def _list(self) -> list[dict[str, Any]]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix)
        with self._clear_errors(DataError):
            return [item for page in pages for item in page.get("Contents", [])]

    def _download(self, entry: Entry, root: Path, aside: Path) -> bool:
        """Bring one object; whether it was still as it was listed. If not, nothing is left in its place."""
        target = root / entry.path
        with self._clear_errors(ConnectionError):
            written = self._read(entry, aside)
        if written is None:
            target.unlink(missing_ok=True)
            return False
        # With the file itself, so that the two can never disagree, whoever is killed or writes at once.
        os.utime(written, ns=(_mark(entry.stamp), _mark(entry.stamp)))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(written, target)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            # A folder is now what was an object before, or the other way round.
            _clear_way(target, root)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(written, target)
        return True

    def _read(self, entry: Entry, aside: Path) -> Path | None:
        """The object in a file of its own below ``aside``, or ``None`` if it has changed or is gone."""
        from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError

        for left in reversed(range(TRIES)):
            try:
                answer = self.client.get_object(Bucket=self.bucket, Key=self.prefix + entry.path)
                if _stamp(answer["ETag"], answer["ContentLength"]) != entry.stamp:
                    return None
                handle, name = tempfile.mkstemp(dir=aside)
                with open(handle, "wb") as out:
                    for chunk in answer["Body"].iter_chunks(CHUNK):
                        out.write(chunk)
                return Path(name)
            except ClientError as error:
                if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                    return None
                raise
            except (HTTPClientError, IncompleteReadError):
                # The client itself tries again until an answer begins, but not when it breaks off.
                if not left:
                    raise
        raise AssertionError("unreachable")

    @contextmanager
    def _clear_errors(self, unreachable: type[Exception]) -> Iterator[None]:
        """Say in one sentence what is wrong; ``unreachable`` is raised when there was no answer."""
        from botocore import exceptions as boto

        name = shown(self.address)
        try:
            yield
        except (boto.NoCredentialsError, boto.PartialCredentialsError) as error:
            raise DataError(
                f"There are no credentials for {name}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            ) from error
        except boto.ClientError as error:
            raise self._answered(error) from error
        except (boto.ConnectionError, boto.HTTPClientError, boto.IncompleteReadError) as error:
            raise unreachable(
                f"{name} cannot be reached at {self.client.meta.endpoint_url} ({in_one_line(error)}): "
                "check AWS_ENDPOINT_URL_S3 and the network."
            ) from error
        except boto.BotoCoreError as error:
            raise DataError(f"The data source {name} cannot be read ({in_one_line(error)}).") from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise disk_full(name) from error
            raise

    def _answered(self, error: Any) -> Exception:
        name, code = shown(self.address), error.response["Error"]["Code"]
        if code == "NoSuchBucket":
            return DataError(
                f"The data source {name} does not exist: there is no bucket {self.bucket} "
                f"at {self.client.meta.endpoint_url}."
            )
        if code in REFUSED:
            return DataError(
                f"The data source {name} may not be read ({code}): check AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, and that they are allowed to list and read the bucket."
            )
        if error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500:
            return ConnectionError(f"{name} cannot be read for now ({in_one_line(error)}).")
        return DataError(f"The data source {name} cannot be read ({in_one_line(error)}).")


def _stamp(etag: str, size: int) -> str:
    digest = etag.strip('"')
    return f"{digest}-{size}"


def _mark(stamp: str) -> int:
    """A time in nanoseconds, between 1970 and 2038, that stands for ``stamp``.

    It is what a cached file carries as its time of change: so nothing beside the file need be kept in step.
    """
    number = int.from_bytes(hashlib.sha256(stamp.encode()).digest()[:8])
    return number % (2**31 * 10**9)


def _is_cached(path: Path, entry: Entry) -> bool:
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return (status.st_size, status.st_mtime_ns) == (entry.size, _mark(entry.stamp))


def _folders_of(paths: Sequence[str]) -> set[str]:
    folders: set[str] = set()
    for path in paths:
        while (path := os.path.dirname(path)) and path not in folders:
            folders.add(path)
    return folders


def _fault(path: str, root: Path, folders: Collection[str]) -> str:
    """Why a file system cannot hold the object, though a bucket can."""
    if "" in path.split("/"):
        return "its key has an empty part"
    if path in folders:
        return "a folder has the same name"
    return name_fault(path, root)


def _clear_way(target: Path, root: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    for folder in target.parents:
        if folder == root:
            break
        if folder.is_file():
            folder.unlink()
