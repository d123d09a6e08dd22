"""Content-addressed artifacts in a folder or in S3: published whole or not at all.

An artifact is a folder of files with an ``artifact.json``, found under ``<step>/<key>``. The key is a hash of what
the step made the artifact from. Pointers are small named values that may change, such as the newest dataset.
Checkpoints are the one kind of half-finished work that survives a killed task. A lease lets one run at a time do
what two must not do at once.
"""

from __future__ import annotations

import os
from pathlib import Path

from cxr_tasks.cache import cache_root
from cxr_tasks.errors import SettingsError
from cxr_tasks.store.base import UNFINISHED, RecordEntry, Store, artifact_ref
from cxr_tasks.store.bucket import STORE_USE, S3Store
from cxr_tasks.store.files import RECORD, DamagedArtifact, MissingArtifact
from cxr_tasks.store.folder import FolderStore
from cxr_tasks.store.lease import Lease, LeaseHeld, LeaseLost
from cxr_tasks.store.uses import USES, Use, drop_uses, noted_uses

__all__ = [
    "RECORD",
    "STORE_USE",
    "UNFINISHED",
    "USES",
    "DamagedArtifact",
    "FolderStore",
    "Lease",
    "LeaseHeld",
    "LeaseLost",
    "MissingArtifact",
    "RecordEntry",
    "S3Store",
    "Store",
    "Use",
    "artifact_ref",
    "drop_uses",
    "noted_uses",
    "open_store",
]


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
