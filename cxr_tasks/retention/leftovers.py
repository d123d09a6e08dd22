"""What killed or unfinished tasks left in a store, what was replaced there, and copies that nobody uses any more."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from cxr_tasks.errors import in_one_line
from cxr_tasks.retention.inventory import NO_ARTIFACTS, files_below, of_s3, record_entries
from cxr_tasks.store import RECORD, UNFINISHED, FolderStore, LeaseHeld, RecordEntry, S3Store, Store
from cxr_tasks.store.base import PUBLICATION, published_at
from cxr_tasks.store.folder import PUBLICATION_NAME, REPLACED_SECONDS
from cxr_tasks.store.staging import STAGING, is_in_use, staging_folder

log = logging.getLogger(__name__)

# The files of one publication in S3: ``<step>/<key>/<32 digits>/…``.
UPLOADED = re.compile(r"([^/]+/[^/]+)/([0-9a-f]{32})/")
# What nobody is seen to work at may be worked at all the same for so long: an upload that has just begun, say.
AT_LEAST = timedelta(hours=1)
AT_MOST = timedelta(seconds=REPLACED_SECONDS)


@dataclass(frozen=True)
class Leftover:
    """What a task began and did not end, or what something else has replaced.

    Attributes:
        kind: ``staging``: files of an artifact that was not published. ``replaced``: files of a publication that
            another has replaced. ``unfinished``: checkpoints. ``upload``: a part of a file. ``copy``: of an artifact,
            on this machine.
        place: Where it is: a folder, or the beginning of the keys of objects.
        size: Bytes.
        changed: When anything of it was last written; of a copy, when its artifact was last used.
        remove: Removes it.
        lease: Whoever works at it holds this; empty where nobody can.
    """

    kind: str
    place: str
    size: int
    changed: datetime
    remove: Callable[[], object] = field(compare=False, repr=False)
    lease: str = ""


def leftovers(store: Store, before: datetime, now: datetime | None = None) -> list[Leftover]:
    """What is left over; the oldest first.

    What is unfinished counts where it was not written since ``before``: a training whose hours were used up, and
    which waits for its next run, is among that. So do copies that were not used since then. All else counts after a
    day, or since ``before`` where that is less, but after an hour at the earliest.

    Args:
        store: Where to look.
        before: What was written later is young.
        now: The time; that of the clock where none is given.
    """
    now = now or datetime.now(UTC)
    half_done = now - min(max(now - before, AT_LEAST), AT_MOST)
    if isinstance(store, FolderStore):
        short, long = [*_in_staging(store), *_unnamed_folders(store, now)], list(_unfinished_folders(store))
    else:
        opened = of_s3(store)
        listed = _listed_objects(opened)
        short = [*_in_staging(opened.cache), *_unnamed_objects(opened, listed, now), *_uploads(opened)]
        long = [*_unfinished_objects(opened, listed), *_copies(opened)]
    found = [left for left in short if left.changed < half_done] + [left for left in long if left.changed < before]
    return sorted((left for left in found if not _is_held(store, left)), key=lambda left: left.changed)


def remove_leftover(store: Store, left: Leftover) -> bool:
    """Remove what :func:`leftovers` found, unless somebody works at it now; returns whether it is gone."""
    try:
        if left.lease:
            with store.lease(left.lease, left.place, wait=False):
                left.remove()
        else:
            left.remove()
    except LeaseHeld:
        return False
    return True


def _is_held(store: Store, left: Leftover) -> bool:
    if not left.lease:
        return False
    try:
        with store.lease(left.lease, left.place, wait=False):
            return False
    except LeaseHeld:
        return True


def _in_staging(store: FolderStore) -> Iterator[Leftover]:
    folder = store.root / STAGING
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not is_in_use(path):
            yield _of_folder(STAGING, path, partial(shutil.rmtree, path, ignore_errors=True))


def _unfinished_folders(store: FolderStore) -> Iterator[Leftover]:
    for path in sorted(store.root.glob(f"{UNFINISHED}/*/*")):
        if path.is_dir():
            ref = path.relative_to(store.root / UNFINISHED).as_posix()
            yield _of_folder(UNFINISHED, path, _dropping(store, ref), f"{UNFINISHED}/{ref}")
    for name in store.pointers():
        # Of a training that was killed before its first checkpoint.
        if name.startswith(f"{UNFINISHED}/") and not (store.root / name).is_dir():
            path = store.root / "pointers" / f"{name}.json"
            yield _of_folder(UNFINISHED, path, _dropping(store, name.removeprefix(f"{UNFINISHED}/")), name)


def _dropping(store: Store, ref: str) -> Callable[[], None]:
    def drop() -> None:
        store.drop_checkpoint(ref)
        store.remove_pointer(f"{UNFINISHED}/{ref}")

    return drop


def _unnamed_folders(store: FolderStore, now: datetime) -> Iterator[Leftover]:
    """Publications that were replaced, or whose task was killed before it wrote the record."""
    for path in sorted(store.root.glob("*/*/*")):
        ref = path.parent.relative_to(store.root).as_posix()
        if not PUBLICATION_NAME.fullmatch(path.name) or ref.split("/")[0] in NO_ARTIFACTS:
            continue
        if kind := _unnamed(store.entry(ref), path.name, now):
            yield _of_folder(kind, path, _moving(store, ref, path), f"artifact/{ref}")


def _moving(store: FolderStore, ref: str, path: Path) -> Callable[[], None]:
    def move() -> None:
        with staging_folder(store.root, "removed") as aside, store.lease(f"record/{ref}", ""), suppress(OSError):
            if _unnamed(store.entry(ref), path.name, datetime.now(UTC)):
                os.rename(path, aside / path.name)

    return move


def _unnamed(entry: RecordEntry, publication: str, now: datetime) -> str:
    """What a publication is that the record does not name; empty where it does, or did so lately."""
    if entry.content is None:
        return STAGING
    if entry.content.get(PUBLICATION, publication) == publication:
        return ""
    since = published_at(entry.content)
    # Who began to read before it was replaced may be reading still.
    return "replaced" if since is not None and now - since > AT_MOST else ""


def _of_folder(kind: str, folder: Path, remove: Callable[[], object], lease: str = "") -> Leftover:
    files = [path.lstat() for path in (folder, *files_below(folder))]
    changed = datetime.fromtimestamp(max(status.st_mtime for status in files), UTC)
    return Leftover(kind, str(folder), sum(status.st_size for status in files[1:]), changed, remove, lease)


Listed = dict[str, dict[str, Any]]


def _listed_objects(store: S3Store) -> Listed:
    """All objects of the store with the time of their last change, by path."""
    bucket = store.bucket
    bucket.objects("pointers/")  # says in a sentence what is wrong with the bucket, if anything is
    pages = bucket.client.get_paginator("list_objects_v2").paginate(Bucket=bucket.name, Prefix=bucket.prefix)
    return {item["Key"][len(bucket.prefix) :]: item for page in pages for item in page.get("Contents", [])}


def _of_objects(
    kind: str, place: str, items: list[dict[str, Any]], remove: Callable[[], object], lease: str
) -> Leftover:
    return Leftover(
        kind, place, sum(each["Size"] for each in items), max(each["LastModified"] for each in items), remove, lease
    )


def _unfinished_objects(store: S3Store, listed: Listed) -> Iterator[Leftover]:
    below: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for path, item in listed.items():
        if path.startswith(f"{UNFINISHED}/"):
            below["/".join(path.split("/")[1:3])].append(item)
    for ref, items in below.items():
        place = f"{UNFINISHED}/{ref}"
        yield _of_objects(UNFINISHED, place, items, _dropping(store, ref), place)
    for path, item in listed.items():
        name = path.removeprefix("pointers/").removesuffix(".json")
        if path.startswith(f"pointers/{UNFINISHED}/") and name.removeprefix(f"{UNFINISHED}/") not in below:
            yield _of_objects(UNFINISHED, path, [item], _dropping(store, name.removeprefix(f"{UNFINISHED}/")), name)
    for left in _unfinished_folders(store.cache):
        # Without what goes with the objects, which may be younger: another machine went on with them.
        ref = left.lease.removeprefix(f"{UNFINISHED}/")
        if ref not in below:
            yield left


def _unnamed_objects(store: S3Store, listed: Listed, now: datetime) -> Iterator[Leftover]:
    """Publications that no record names, and records of artifacts that were half removed."""
    below: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for path, item in listed.items():
        if (matched := UPLOADED.match(path)) and path.split("/")[0] not in NO_ARTIFACTS:
            below[matched[1], matched[2]].append(item)
    records = {"/".join(path.split("/")[:2]) for path in listed if path.split("/")[2:] == [RECORD]}
    entries = record_entries(store, records | {ref for ref, _ in below})
    for (ref, publication), items in below.items():
        place = f"{ref}/{publication}/"
        if kind := _unnamed(entries[ref], publication, now):
            yield _of_objects(kind, place, items, _deleting(store, ref, place), f"artifact/{ref}")
    for ref in sorted(records):
        if entries[ref].content is None and ref.split("/")[0] not in NO_ARTIFACTS:
            path = f"{ref}/{RECORD}"
            yield _of_objects(STAGING, path, [listed[path]], _deleting(store, ref, path), f"artifact/{ref}")


def _deleting(store: S3Store, ref: str, place: str) -> Callable[[], None]:
    def delete() -> None:
        # Looked at again, now that nobody else publishes the artifact.
        entry = store.entry(ref)
        named = "" if entry.content is None else f"{ref}/{entry.content.get(PUBLICATION)}/"
        if place != named and not (place.endswith(RECORD) and named):
            store.bucket.delete([found.path for found in store.bucket.objects(place)])

    return delete


def _uploads(store: S3Store) -> Iterator[Leftover]:
    """Parts of large files whose upload was killed: no listing of objects shows them, and they cost all the same."""
    from botocore.exceptions import ClientError

    bucket = store.bucket
    pages = bucket.client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket.name, Prefix=bucket.prefix)
    try:
        found = [each for page in pages for each in page.get("Uploads", [])]
    except ClientError as error:
        log.warning("Uploads that were broken off are not looked for: %s", in_one_line(error))
        return
    for each in found:
        what = {"Bucket": bucket.name, "Key": each["Key"], "UploadId": each["UploadId"]}
        parts = bucket.client.get_paginator("list_parts").paginate(**what)
        size = sum(part["Size"] for page in parts for part in page.get("Parts", []))
        place = each["Key"][len(bucket.prefix) :]
        remove = partial(bucket.client.abort_multipart_upload, **what)
        yield Leftover("upload", place, size, each["Initiated"], remove)


def _copies(store: S3Store) -> Iterator[Leftover]:
    """Copies on this machine of artifacts that are gone, were replaced, or were not used for long."""
    cache = store.cache
    found = [
        path.parent
        for path in sorted(cache.root.glob(f"*/*/*/{RECORD}"))
        if PUBLICATION_NAME.fullmatch(path.parent.name) and path.parts[-4] not in NO_ARTIFACTS
    ]
    places = {folder: folder.relative_to(cache.root).as_posix() for folder in found}
    entries = record_entries(store, {place.rpartition("/")[0] for place in places.values()})
    for folder, place in places.items():
        entry = entries[place.rpartition("/")[0]]
        left = _of_folder("copy", folder, _moving_copy(cache, folder, place))
        is_named = entry.content is not None and entry.content.get(PUBLICATION) == folder.name
        yield Leftover(
            left.kind, left.place, left.size, max(left.changed, entry.used) if is_named else left.changed, left.remove
        )


def _moving_copy(cache: FolderStore, folder: Path, place: str) -> Callable[[], None]:
    def move() -> None:
        with staging_folder(cache.root, "removed") as aside, cache.lease(f"copy/{place}", ""), suppress(OSError):
            os.rename(folder, aside / folder.name)

    return move
