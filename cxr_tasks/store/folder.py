"""A store in a folder, on this machine or on a disk that several machines share."""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from cxr_tasks.store.base import RECORD, Store
from cxr_tasks.store.lease import LEASES, Lease, hold_file


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

    def lease(self, name: str, work: str, *, wait: bool = True) -> AbstractContextManager[Lease]:
        """A lock on a file below ``leases``."""
        return hold_file(self.root / LEASES, name, work, wait=wait)

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
