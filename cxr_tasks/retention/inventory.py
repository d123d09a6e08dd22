"""What a store holds: its artifacts.

Goes below the store's own interface, which serves steps and lists nothing. A kind of store that is not known here is
an error.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cxr_tasks.s3 import CONNECTIONS
from cxr_tasks.store import RECORD, UNFINISHED, FolderStore, RecordEntry, S3Store, Store
from cxr_tasks.store.base import PUBLICATION, SECRETS, published_at
from cxr_tasks.store.lease import LEASES
from cxr_tasks.store.staging import STAGING

# Folders of a store that hold no artifacts.
POINTERS = "pointers"
NO_ARTIFACTS = (STAGING, UNFINISHED, POINTERS, LEASES, SECRETS)


@dataclass(frozen=True)
class Stored:
    """An artifact.

    Attributes:
        ref: Its reference.
        size: Bytes of its files.
        record: Its ``artifact.json``.
        used: When it was last taken or made; up to an hour later than this says.
    """

    ref: str
    size: int
    record: dict[str, Any]
    used: datetime

    @property
    def step(self) -> str:
        """The step that made it."""
        return str(self.record.get("step") or self.ref.split("/")[0])

    @property
    def published(self) -> datetime | None:
        """When it was made."""
        return published_at(self.record)


def stored_artifacts(store: Store) -> list[Stored]:
    """Every artifact of the store, the newest first."""
    sizes = recorded(store)
    entries = record_entries(store, sizes)
    found = [Stored(ref, sizes[ref], each.content, each.used) for ref, each in entries.items() if each.content]
    return sorted(found, key=lambda stored: str(stored.record.get("published", "")), reverse=True)


def recorded(store: Store) -> dict[str, int]:
    """Bytes of each artifact that has a record, by its reference."""
    return _folder_sizes(store) if isinstance(store, FolderStore) else _object_sizes(of_s3(store))


def record_entries(store: Store, refs: Iterable[str]) -> dict[str, RecordEntry]:
    """The record of each of ``refs``, several read at a time."""
    asked = list(refs)
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return dict(zip(asked, pool.map(store.entry, asked), strict=True))


def files_of(store: Store, ref: str) -> dict[str, int]:
    """The files of an artifact, each with its bytes."""
    record = store.record(ref) or {}
    if "files" in record:
        return {name: told["size"] for name, told in record["files"].items()}
    if isinstance(store, FolderStore):
        folder = store.root / ref
        return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files_below(folder)}
    below = f"{ref}/{record.get(PUBLICATION, '')}/"
    return {found.path.removeprefix(below): found.size for found in of_s3(store).bucket.objects(below)}


def of_s3(store: Store) -> S3Store:
    """The store, which is known to be in S3."""
    if not isinstance(store, S3Store):
        raise TypeError(f"Nothing is known of how a {type(store).__name__} keeps its artifacts.")
    return store


def files_below(folder: Path) -> Iterator[Path]:
    """The files in a folder and in those within."""
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _folder_sizes(store: FolderStore) -> dict[str, int]:
    """Bytes of each artifact, by its reference."""
    records = sorted(store.root.glob(f"*/*/{RECORD}"))
    folders = [path.parent for path in records if path.parts[-3] not in NO_ARTIFACTS]
    return {
        folder.relative_to(store.root).as_posix(): sum(path.stat().st_size for path in files_below(folder))
        for folder in folders
    }


def _object_sizes(store: S3Store) -> dict[str, int]:
    """Bytes of each artifact that has a record, by its reference, from one listing of the bucket."""
    sizes: dict[str, int] = defaultdict(int)
    published = set()
    for found in store.bucket.objects():
        parts = found.path.split("/")
        if parts[0] in NO_ARTIFACTS or len(parts) < 3:
            continue
        ref = "/".join(parts[:2])
        sizes[ref] += found.size
        if parts[2:] == [RECORD]:
            published.add(ref)
    return {ref: sizes[ref] for ref in sorted(published)}
