"""Objects below a prefix of a bucket, downloaded into the local cache when they are new or changed."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cxr_tasks.cache import cache_folder, locked
from cxr_tasks.data.sources.base import Entry, Source, name_fault
from cxr_tasks.data.sources.clutter import is_left_out
from cxr_tasks.errors import DataError, shown
from cxr_tasks.progress import advance
from cxr_tasks.s3 import CONNECTIONS, Bucket, BucketUse

SOURCE_USE = BucketUse("data source", "read", "list and read the bucket", DataError)


class S3Source(Source):
    """The objects of ``s3://bucket/prefix``.

    Attributes:
        bucket: The objects below the address.
        fetched: How many objects :meth:`fetch` has downloaded so far.
    """

    example = "s3://bucket/prefix"

    def __init__(self, address: str) -> None:
        """Nothing is asked of the bucket yet.

        Args:
            address: ``s3://bucket`` or ``s3://bucket/prefix``.

        Raises:
            DataError: The address names no bucket.
        """
        super().__init__(address)
        self.bucket = Bucket(address, SOURCE_USE)
        self.fetched = 0

    def entries(self) -> list[Entry]:
        """The objects; one that no file system can hold is an entry with a fault.

        Raises:
            DataError: The bucket cannot be listed, or holds nothing below the prefix.
            ConnectionError: The server is in trouble, or the connection broke off.
        """
        root = self._home() / "files"
        root.mkdir(exist_ok=True)
        objects = {found.path: found for found in self.bucket.objects()}
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
        return [Entry(path, objects[path].size, objects[path].stamp, _fault(path, root, folders)) for path in paths]

    def fetch(self, entries: Sequence[Entry]) -> Path:
        """The cache folder, with each object in it that is still as it was listed.

        Raises:
            DataError: The bucket refuses.
            ConnectionError: The connection broke off. Objects that were fetched until then stay, so a retry goes on.
        """
        home = self._home()
        root, aside = home / "files", home / "aside"
        with locked(home):
            # What a killed download left.
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
            root.mkdir(exist_ok=True)
            wanted = [entry for entry in entries if not entry.fault and not _is_cached(root / entry.path, entry)]
            pool = ThreadPoolExecutor(CONNECTIONS)
            try:
                downloads = pool.map(lambda entry: self._download(entry, root, aside), wanted)
                for done, came in enumerate(downloads, start=1):
                    self.fetched += came
                    advance("fetch objects", done, len(wanted))
            finally:
                pool.shutdown(cancel_futures=True)
                shutil.rmtree(aside, ignore_errors=True)
        return root

    def _home(self) -> Path:
        # By endpoint as well: another server may have a bucket of the same name.
        identity = "\0".join((self.bucket.endpoint, self.bucket.name, self.bucket.prefix))
        digest = hashlib.sha256(identity.encode(errors="surrogateescape")).hexdigest()
        return cache_folder("sources", "s3", digest[:20])

    def _download(self, entry: Entry, root: Path, aside: Path) -> bool:
        """Bring one object; whether it was still as it was listed. If not, nothing is left in its place."""
        target = root / entry.path
        written = self.bucket.fetch(entry.path, entry.stamp, aside)
        if written is None:
            target.unlink(missing_ok=True)
            return False
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


def _mark(stamp: str) -> int:
    """A time in nanoseconds, between 1970 and 2038, that stands for ``stamp``.

    A cached file carries this as its time of change. File and stamp then appear in one rename and never disagree,
    whoever is killed or writes at once: a fetch that is killed loses nothing, where one index written at the end would
    lose every object so far. To look up 15,000 files takes 0.10 s this way, 0.10 s with one index in JSON, and 0.35 s
    with a second file beside each, which also takes one to four seconds more to write.
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
