"""Makes what a store holds older than it is."""

from __future__ import annotations

import os
from datetime import datetime

from cxr_tasks.store import FolderStore, S3Store, Store


def make_old(store: Store, place: str, when: datetime) -> None:
    """Let all that is at ``place``, such as an artifact, have been written then."""
    if isinstance(store, FolderStore):
        folder = store.root / place
        # The files' own times are in the record.
        records = [folder / "artifact.json"] if (folder / "artifact.json").is_file() else [folder, *folder.rglob("*")]
        for path in records:
            os.utime(path, (when.timestamp(), when.timestamp()))
        return
    from moto.s3.models import s3_backends

    assert isinstance(store, S3Store)
    (account,) = s3_backends.values()
    (backend,) = account.values()
    for found in store.bucket.objects(f"{place}/"):
        key = backend.get_object(store.bucket.name, store.bucket.prefix + found.path)
        key.last_modified = when.replace(tzinfo=None)
    if place.startswith("unfinished/"):
        make_old(store.cache, place, when)
