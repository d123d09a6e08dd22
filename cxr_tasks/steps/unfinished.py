"""The progress of a training that has not ended, in the store: for one process at a time, and given up where asked."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cxr_tasks.artifacts import Artifact, RunContext
from cxr_tasks.errors import in_one_line
from cxr_tasks.outages import is_passing, patience
from cxr_tasks.pipeline import is_forced
from cxr_tasks.store import UNFINISHED, Lease, artifact_ref, open_store

log = logging.getLogger(__name__)

# How long a training waits for a checkpoint to be in the store, before it goes on and leaves that to a thread.
SAVE_SECONDS = 20.0


def asked_by(
    run: RunContext, kind: type[Artifact], inputs: Mapping[str, Artifact | str], after: Sequence[Artifact] = ()
) -> str:
    """The DAG run, if it is to make the artifact anew; else ''. The arguments are those of :func:`perform`."""
    forced = is_forced(run, kind.step, inputs) or any(handle.forced for handle in after)
    return run.dag_run if forced else ""


def needs_of(run: RunContext, inputs: Mapping[str, Artifact | str]) -> list[Any]:
    """The settings of a run and the handles that a step of it works from, as JSON: all that they refer to is needed."""
    return [
        run.settings,
        *(each if isinstance(each, str) else each.model_dump(mode="json") for each in inputs.values()),
    ]


class Unfinished:
    """Where a training keeps its checkpoints until it has ended.

    Attributes:
        ref: Names the progress: settings and data that the next step of the training depends on.
        anew: Whether the training does not count what was made before.
        answered: Whether an earlier try of the DAG run that asks for this has done it.
    """

    def __init__(self, ref: str, work: str, asked_by: str, needs: Sequence[Any] = ()) -> None:
        """Note what is trained.

        Args:
            ref: Names the progress.
            work: What is done, such as ``the training of the GAN``, for the word to a process that has to wait.
            asked_by: The DAG run that is to make the artifact anew, or ''. Its first try gives up what progress there
                is. Its further tries, and later runs if its hours do not suffice, go on.
            needs: What a later run needs to go on, as :func:`needs_of` tells it. ``cxr store gc`` keeps that.
        """
        self.ref, self.work, self.asked_by, self.needs = ref, work, asked_by, list(needs)
        self._ended: Path | None = None
        self._lease: Lease | None = None
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._saving: Future[None] | None = None
        self._is_behind = False
        self.answered = bool(asked_by) and self._request() == {"answered": asked_by}
        self.anew = bool(self._asked_before() or (asked_by and not self.answered))

    @classmethod
    def of(
        cls,
        run: RunContext,
        kind: type[Artifact],
        version: int,
        settings: Mapping[str, Any],
        inputs: Mapping[str, Artifact | str],
        work: str,
        after: Sequence[Artifact] = (),
    ) -> Unfinished:
        """The progress of one artifact. The arguments are those that :func:`perform` is called with, and ``work``."""
        refs = {name: given if isinstance(given, str) else given.ref for name, given in inputs.items()}
        ref = artifact_ref(kind.step, version, settings, refs)
        return cls(ref, work, asked_by(run, kind, inputs, after), needs_of(run, inputs))

    def forced(self, run: RunContext, step: str) -> RunContext:
        """``run``, with ``step`` among what is made anew where the training under way is of that kind."""
        return run.model_copy(update={"force": (*run.force, step)}) if self.anew else run

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let this process alone train. Another one that wants to train the same waits here until this one has ended.

        At the end of a block in which :meth:`end` was called, and so after the artifact is published, the progress is
        dropped.
        """
        store = open_store()
        with store.lease(f"unfinished/{self.ref}", self.work) as self._lease:
            if self.asked_by and self._asked_before() != self.asked_by:
                store.drop_checkpoint(self.ref)
                store.write_pointer(self._pointer, self.asked_by)
            store.write_pointer(f"{UNFINISHED}/{self.ref}", self.needs)
            # Who asked may have ended while this process waited.
            self.anew = bool(self._asked_before())
            try:
                yield
            finally:
                # What is still being saved must not mix with what the next process saves.
                self._thread.shutdown()
            with patience():
                self._drop()

    def folder(self) -> Path:
        """A local folder with the checkpoints, as they were last saved anywhere."""
        return open_store().load_checkpoint(self.ref)

    def save(self) -> None:
        """Make the checkpoints survive the loss of this machine, or leave that to the next time.

        A store that is away for a while ends no training of days. One that does not answer holds a training up for
        :data:`SAVE_SECONDS`, once: while the store is behind, a thread alone waits for it.

        Raises:
            LeaseLost: Another process is training by now.
            UserError: The store refuses this checkpoint, or the one before.
        """
        assert self._lease is not None  # progress is made alone
        is_late = self._lease.is_late()
        self._note(0.0)
        if is_late:
            # Another process may have gone on with this training: what it has saved is not to be written over.
            self._is_behind = True
        elif self._saving is None:
            self._saving = self._thread.submit(open_store().checkpoint_to_save(self.ref))
            self._note(0.0 if self._is_behind else SAVE_SECONDS)
        else:
            self._is_behind = True

    def catch_up(self) -> None:
        """Wait for the store, if the last checkpoint is not there: another machine may go on from it.

        Raises:
            LeaseLost: Another process is training by now.
        """
        was_behind = self._is_behind
        self._note(None)
        if self._is_behind or was_behind:
            with patience():
                if self._lease is not None:
                    self._lease.check()
                open_store().save_checkpoint(self.ref)

    def end(self, checkpoints: Path | None = None) -> None:
        """The training is at its end. ``checkpoints``: the folder of its own, where that is only a part of all."""
        self._ended = checkpoints or self.folder()

    def _note(self, seconds: float | None) -> None:
        """See what became of the checkpoint that is being saved. Waits so long for that; ``None``: to the end."""
        if self._saving is None:
            return
        wait([self._saving], seconds)
        if not self._saving.done():
            if not self._is_behind:
                log.warning("The store takes long for a checkpoint: the training goes on meanwhile")
            self._is_behind = True
            return
        error, self._saving = self._saving.exception(), None
        self._is_behind = error is not None
        if error is None:
            return
        if not isinstance(error, Exception) or not is_passing(error):
            raise error
        log.warning(
            "The checkpoint is on this machine only, and goes to the store with the next one: %s",
            in_one_line(error),
        )

    def _drop(self) -> None:
        store = open_store()
        if self._ended is None:
            return
        if self._ended.parent.name == self.ref.rpartition("/")[2]:
            # A training that was longer keeps its progress.
            shutil.rmtree(self._ended)
            store.save_checkpoint(self.ref)
        else:
            store.drop_checkpoint(self.ref)
            store.remove_pointer(f"{UNFINISHED}/{self.ref}")
        if self.anew:
            # A further try of the same DAG run still asks.
            store.write_pointer(self._pointer, {"answered": self._asked_before()})

    @property
    def _pointer(self) -> str:
        return f"anew/{self.ref}"

    def _asked_before(self) -> str:
        """The DAG run that asked for this training anew, and whose training has not ended; or ''."""
        asked = self._request()
        return asked if isinstance(asked, str) else ""

    def _request(self) -> Any:
        """The DAG run that asks, or the one that was answered as ``{"answered": …}``."""
        return open_store().read_pointer(self._pointer)
