"""What a store holds: its artifacts, and what killed or unfinished tasks left there.

Goes below the store's own interface, which serves steps and lists nothing. A kind of store that is not known here is
an error.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cxr_tasks.s3 import CONNECTIONS
from cxr_tasks.store import RECORD, FolderStore, S3Store, Store
from cxr_tasks.store.lease import LEASES
from cxr_tasks.store.staging import STAGING, is_in_use

# Folders of a store that hold no artifacts.
UNFINISHED, POINTERS = "unfinished", "pointers"
# The files of one publication in S3: ``<step>/<key>/<32 digits>/…``.
UPLOADED = re.compile(r"([^/]+/[^/]+)/([0-9a-f]{32})/")


@dataclass(frozen=True)
class Stored:
    """An artifact.

    Attributes:
        ref: Its reference.
        size: Bytes of its files.
        record: Its ``artifact.json``.
    """

    ref: str
    size: int
    record: dict[str, Any]

    @property
    def step(self) -> str:
        """The step that made it."""
        return str(self.record.get("step") or self.ref.split("/")[0])

    @property
    def published(self) -> datetime | None:
        """When it was made."""
        told = self.record.get("published")
        return datetime.strptime(told, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC) if told else None


@dataclass(frozen=True)
class Leftover:
    """What a task began and did not end.

    Attributes:
        kind: ``staging``: files of an artifact that was not published. ``unfinished``: checkpoints.
        place: Where it is: a folder, or the beginning of the keys of objects.
        size: Bytes.
        changed: When anything of it was last written.
    """

    kind: str
    place: str
    size: int
    changed: datetime


def stored_artifacts(store: Store) -> list[Stored]:
    """Every artifact of the store, the newest first."""
    sizes = _folder_sizes(store) if isinstance(store, FolderStore) else _object_sizes(_of_s3(store))
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        records = pool.map(store.record, sizes)
        found = [Stored(ref, sizes[ref], record) for ref, record in zip(sizes, records, strict=True) if record]
    return sorted(found, key=lambda stored: str(stored.record.get("published", "")), reverse=True)


def files_of(store: Store, ref: str) -> dict[str, int]:
    """The files of an artifact, each with its bytes."""
    record = store.record(ref) or {}
    if "files" in record:
        return {name: told["size"] for name, told in record["files"].items()}
    if isinstance(store, FolderStore):
        folder = store.root / ref
        return {path.relative_to(folder).as_posix(): path.stat().st_size for path in _files_below(folder)}
    below = f"{ref}/{record.get('objects', '')}/"
    return {found.path.removeprefix(below): found.size for found in _of_s3(store).bucket.objects(below)}


def leftovers(store: Store, before: datetime) -> list[Leftover]:
    """What was begun, not ended, and not written since ``before``; the oldest first.

    A training whose hours were used up, and which waits for its next run, is among them.
    """
    if isinstance(store, FolderStore):
        found = [*_left_in_staging(store), *_left_unfinished(store)]
    else:
        found = [*_left_in_staging(_of_s3(store).cache), *_left_in_bucket(_of_s3(store))]
    return sorted((left for left in found if left.changed < before), key=lambda left: left.changed)


def remove_leftover(store: Store, left: Leftover) -> None:
    """Remove what :func:`leftovers` found."""
    if left.kind == UNFINISHED:
        store.drop_checkpoint(left.place.rpartition(f"{UNFINISHED}/")[2])
    elif isinstance(store, FolderStore) or Path(left.place).is_absolute():
        shutil.rmtree(left.place, ignore_errors=True)
    else:
        bucket = _of_s3(store).bucket
        bucket.delete([found.path for found in bucket.objects(left.place)])


def _of_s3(store: Store) -> S3Store:
    if not isinstance(store, S3Store):
        raise TypeError(f"Nothing is known of how a {type(store).__name__} keeps its artifacts.")
    return store


def _files_below(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _folder_sizes(store: FolderStore) -> dict[str, int]:
    """Bytes of each artifact, by its reference."""
    records = sorted(store.root.glob(f"*/*/{RECORD}"))
    folders = [path.parent for path in records if path.parts[-3] not in (STAGING, UNFINISHED, POINTERS, LEASES)]
    return {
        folder.relative_to(store.root).as_posix(): sum(path.stat().st_size for path in _files_below(folder))
        for folder in folders
    }


def _object_sizes(store: S3Store) -> dict[str, int]:
    """Bytes of each artifact that has a record, by its reference, from one listing of the bucket."""
    sizes: dict[str, int] = defaultdict(int)
    published = set()
    for found in store.bucket.objects():
        parts = found.path.split("/")
        if parts[0] in (UNFINISHED, POINTERS, LEASES) or len(parts) < 3:
            continue
        ref = "/".join(parts[:2])
        sizes[ref] += found.size
        if parts[2:] == [RECORD]:
            published.add(ref)
    return {ref: sizes[ref] for ref in sorted(published)}


def _left_in_staging(store: FolderStore) -> Iterator[Leftover]:
    folder = store.root / STAGING
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not is_in_use(path):
            yield _of_folder(STAGING, path)


def _left_unfinished(store: FolderStore) -> Iterator[Leftover]:
    for path in sorted(store.root.glob(f"{UNFINISHED}/*/*")):
        if path.is_dir():
            yield _of_folder(UNFINISHED, path)


def _of_folder(kind: str, folder: Path) -> Leftover:
    files = [path.stat() for path in (folder, *_files_below(folder))]
    changed = datetime.fromtimestamp(max(status.st_mtime for status in files), UTC)
    return Leftover(kind, str(folder), sum(status.st_size for status in files[1:]), changed)


def _left_in_bucket(store: S3Store) -> Iterator[Leftover]:
    """Checkpoints, and publications that no record names: uploaded by a task that was killed, or since replaced."""
    bucket = store.bucket
    bucket.objects(f"{POINTERS}/")  # says in a sentence what is wrong with the bucket, if anything is
    below: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    named: dict[str, str] = {}
    for item in _listed_objects(bucket.client, bucket.name, bucket.prefix):
        path = item["Key"][len(bucket.prefix) :]
        if path.startswith(f"{UNFINISHED}/"):
            below[UNFINISHED, "/".join(path.split("/")[:3])].append(item)
        elif matched := UPLOADED.match(path):
            below[STAGING, matched[0]].append(item)
            if matched[1] not in named:
                named[matched[1]] = json.loads(bucket.get(f"{matched[1]}/{RECORD}") or b"{}").get("objects", "")
    for (kind, place), items in below.items():
        if kind == UNFINISHED or named["/".join(place.split("/")[:2])] != place.split("/")[2]:
            yield Leftover(kind, place, sum(i["Size"] for i in items), max(i["LastModified"] for i in items))


def _listed_objects(client: Any, name: str, prefix: str) -> Iterable[dict[str, Any]]:
    """The objects of a bucket, with the time of their last change."""
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=name, Prefix=prefix):
        yield from page.get("Contents", [])
