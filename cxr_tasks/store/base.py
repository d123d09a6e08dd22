"""What every store of artifacts gives: artifacts that are published whole or not at all, pointers, checkpoints, leases.

The files of each publication are in a folder of their own, ``<step>/<key>/<publication>``. The record
``<step>/<key>/artifact.json`` names the publication and is written last, on the condition that the record is still
what it was when the work began: of several writers one wins. What was published before stays for a while, so that
whoever reads it can end in peace.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from cxr_tasks.store.files import RECORD, Care, described
from cxr_tasks.store.lease import Lease
from cxr_tasks.store.staging import staging_folder

log = logging.getLogger(__name__)

# Where checkpoints are, and below the pointers what they need.
UNFINISHED = "unfinished"
# The field of a record that names the publication.
PUBLICATION = "objects"
WHEN = "%Y-%m-%dT%H:%M:%SZ"
# An artifact that is taken is marked as used, unless that was done so lately.
MARKED_SECONDS = 3600.0
# The field of a record in S3 that each mark changes. S3 names an object by its content: the same record once more would
# look as if nobody had taken the artifact.
MARK = "mark"
# The field of a record whose artifact is being removed: nobody takes it any more.
REMOVED = "removed"
SECRETS, SECRET_BYTES = "secrets", 32


def artifact_ref(step: str, version: int, settings: Mapping[str, Any], inputs: Mapping[str, Any]) -> str:
    """``<step>/<key>``: the same step, version, settings and inputs give the same reference."""
    content = json.dumps([step, version, settings, inputs], sort_keys=True, ensure_ascii=True)
    return f"{step}/{hashlib.sha256(content.encode()).hexdigest()[:20]}"


def published_at(record: Mapping[str, Any]) -> datetime | None:
    """When an artifact was published; ``None`` where its record does not say."""
    try:
        return datetime.strptime(record["published"], WHEN).replace(tzinfo=UTC)
    except (KeyError, TypeError, ValueError):
        return None


class RecordEntry(NamedTuple):
    """A record as it is in the store.

    Attributes:
        content: The record; ``None`` where there is none that can be read.
        tag: Changes with the record; ``None`` where there is nothing.
        used: When an artifact was last taken or made.
        is_removed: Whether the artifact is being removed, and its record only says so.
    """

    content: dict[str, Any] | None
    tag: str | None
    used: datetime
    is_removed: bool = False

    def is_still(self, now: RecordEntry) -> bool:
        """Whether ``now`` is of the same publication; that an artifact was used changes the tag alone."""
        if self.tag == now.tag or (self.content is None and now.content is None):
            return True
        both = [entry.content.get(PUBLICATION) if entry.content else None for entry in (self, now)]
        return both[0] is not None and both[0] == both[1]


NO_RECORD = RecordEntry(None, None, datetime.fromtimestamp(0, UTC))


def read_entry(ref: str, content: bytes, tag: str, used: datetime) -> RecordEntry:
    """The record that ``content`` is; one that cannot be read counts as none, with a word."""
    try:
        record = json.loads(content)
        if isinstance(record, dict):
            is_removed = REMOVED in record
            return RecordEntry(None if is_removed else record, tag, used, is_removed)
    except ValueError:
        pass
    log.warning("the record %s of artifact %s cannot be read, so it is made anew", RECORD, ref)
    return RecordEntry(None, tag, used)


class Store(ABC):
    """What steps need of a store. :func:`open_store` opens one."""

    def record(self, ref: str) -> dict[str, Any] | None:
        """The ``artifact.json`` of a published artifact, or ``None``."""
        return self.entry(ref).content

    @abstractmethod
    def entry(self, ref: str) -> RecordEntry:
        """The record of an artifact, with what is known of it."""

    def take(self, ref: str) -> dict[str, Any] | None:
        """The record of an artifact that may be used as it is, and mark it as used.

        Returns:
            ``None`` where the artifact has to be made: it is not there, or has lost files. A warning tells of those.
        """
        entry = self.entry(ref)
        if entry.content is None:
            return None
        fault = self.fault(ref, entry.content)
        if fault:
            log.warning("artifact %s is damaged, %s: it is made anew", ref, fault)
            return None
        # Who clears up may have been faster.
        return entry.content if self._mark(ref, entry) else None

    @abstractmethod
    def fault(self, ref: str, record: Mapping[str, Any], care: Care = Care.SMALL) -> str:
        """What is wrong with the files of an artifact, as the end of a sentence; '' where nothing is.

        An artifact of 0.1.0 has no hashes in its record: of that only whether its folder is there can be said.

        Args:
            ref: Of the artifact.
            record: Of the artifact.
            care: How closely the files are looked at.
        """

    @abstractmethod
    def fetch(self, ref: str) -> Path:
        """A local folder with the artifact's files, to be read only.

        The folder is one publication, whole. It stays readable for a day after another publication replaced it.

        Raises:
            MissingArtifact: Nothing is published under ``ref``.
            DamagedArtifact: Its files are not what was published.
        """

    @contextmanager
    def publish(self, ref: str, record: dict[str, Any], *, replace: bool = False) -> Iterator[Path]:
        """Yield an empty folder to fill; when the block ends well it becomes the artifact ``ref``.

        If the block raises, nothing is left. Where somebody else published ``ref`` while the block ran, that
        publication stays, and what the block made is dropped: read the record again to go on with what is there.

        Args:
            ref: Of the artifact.
            record: Content of ``artifact.json``, which is written last. The block may add to it.
            replace: Whether the artifact takes the place of one that is published already. Otherwise that one stays.
        """
        before = self.entry(ref)
        with staging_folder(self._staging_root(), ref) as staging:
            yield staging
            if before.content is not None and not replace:
                return
            told = {"ref": ref, "published": time.strftime(WHEN, time.gmtime()), PUBLICATION: uuid.uuid4().hex}
            if not self._commit(staging, ref, {**record, **told, "files": described(staging)}, before):
                log.warning("artifact %s was published by another run meanwhile, and that publication stays", ref)

    @abstractmethod
    def read_pointer(self, name: str) -> Any:
        """The JSON value last written under ``name``, or ``None``."""

    @abstractmethod
    def write_pointer(self, name: str, value: Any) -> None:
        """Replace the value under ``name`` in one move."""

    @abstractmethod
    def pointers(self) -> list[str]:
        """The names under which values are written."""

    @abstractmethod
    def remove_pointer(self, name: str) -> None:
        """Forget the value under ``name``; where there is none, nothing happens."""

    @abstractmethod
    def secret(self, name: str) -> bytes:
        """32 random bytes that are drawn once for this store, and the same ever after."""

    @abstractmethod
    def where(self, ref: str) -> str:
        """Where people find the files of a published artifact."""

    @abstractmethod
    def load_checkpoint(self, ref: str) -> Path:
        """A local working folder for the unfinished artifact ``ref``, filled with what was last saved."""

    def save_checkpoint(self, ref: str) -> None:
        """Make what the working folder of ``ref`` holds now survive the loss of this machine."""
        self.checkpoint_to_save(ref)()

    @abstractmethod
    def checkpoint_to_save(self, ref: str) -> Callable[[], None]:
        """Take the working folder of ``ref`` as it is now.

        Returns:
            A function that makes what was taken survive the loss of this machine. Call it once, in any thread: the
            working folder may change meanwhile.
        """

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
            work: What is done under the lease, for the word to the one who has to wait; '' for no word.
            wait: Whether to wait for the name; if not, a name that is held raises.

        Yields:
            The lease, which says whether somebody else held the name before.

        Raises:
            LeaseHeld: Somebody holds the name, and ``wait`` is false.
        """

    @abstractmethod
    def remove(self, ref: str, unused_since: datetime) -> bool:
        """Remove an artifact that was not used since then.

        First nobody can take the artifact any more, and then its files go. Where this is killed half-way, what is
        left counts as left over. Hold the lease ``artifact/<ref>`` meanwhile, so that nobody makes it anew.

        Args:
            ref: Of the artifact.
            unused_since: More than ``MARKED_SECONDS`` ago: so late the mark of a use may be.

        Returns:
            Whether the artifact is gone; if not, it was used since then.
        """

    @abstractmethod
    def sweep(self) -> None:
        """Remove what killed processes left behind, and what nobody reads any more. Artifacts stay."""

    @abstractmethod
    def _mark(self, ref: str, entry: RecordEntry) -> bool:
        """Note that the artifact is used now; returns whether it is still there."""

    @abstractmethod
    def _staging_root(self) -> Path: ...

    @abstractmethod
    def _commit(self, staging: Path, ref: str, record: dict[str, Any], before: RecordEntry) -> bool:
        """Publish the files of ``staging`` if the entry still is as it was before; returns whether it was."""
