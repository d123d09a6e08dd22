"""What every store of artifacts gives: artifacts that are published whole or not at all, pointers, checkpoints, leases.

An artifact is a folder of files with an ``artifact.json``, found under ``<step>/<key>``. The key is a hash of what
the step made the artifact from. Pointers are small named values that may change, such as the newest dataset.
Checkpoints are the one kind of half-finished work that survives a killed task.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from cxr_tasks.store.lease import Lease

RECORD = "artifact.json"


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
    def lease(self, name: str, work: str, *, wait: bool = True) -> AbstractContextManager[Lease]:
        """Hold ``name`` while the block runs: of all processes that ask for the name one at a time is in its block.

        Take a lease around everything that two runs must not do at once: reading and then writing one pointer, filling
        one folder of checkpoints, moving one alias. Example::

            with store.lease(f"unfinished/{ref}", "the training of the GAN") as lease:
                folder = store.load_checkpoint(ref)
                ...
                lease.check()  # before each save: raises LeaseLost where another run has taken over
                store.save_checkpoint(ref)

        A lease is not for the same thread twice: asked for again inside its block, the name waits for itself. Take
        leases of several names in one order everywhere. The lease of a process that died is free at once in a folder,
        and after ``LEASE_SECONDS`` in S3. Where the file system knows no locks, or the S3 server no conditional writes,
        a warning says so, and nobody waits.

        Args:
            name: Such as ``champion/cxr-vgg16``; may contain slashes.
            work: What is done under the lease, for the word to the one who has to wait.
            wait: Whether to wait for the name; if not, a name that is held raises.

        Yields:
            The lease, which says whether somebody else held the name before.

        Raises:
            LeaseHeld: Somebody holds the name, and ``wait`` is false.
        """

    @abstractmethod
    def _staging_root(self) -> Path: ...

    @abstractmethod
    def _commit(self, staging: Path, ref: str, replace: bool) -> None: ...
