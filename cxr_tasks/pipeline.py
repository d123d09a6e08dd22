"""How a step runs: take the artifact if it is there, else make it, and let MLflow show it.

A step is a function of content. The key of its artifact is a hash of the step's name and version, its resolved
settings and the references of its inputs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic

from pydantic import ValidationError

from cxr_tasks import progress, tracking
from cxr_tasks.artifacts import Artifact, Kind, RunContext
from cxr_tasks.cache import full_disk_told
from cxr_tasks.config import Settings, flatten
from cxr_tasks.how_far import Teller
from cxr_tasks.outages import patience
from cxr_tasks.store import RecordEntry, Use, artifact_ref, open_store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Made(Generic[Kind]):
    """What filling an artifact's folder gave.

    Attributes:
        artifact: The handle, without what :func:`perform` adds.
        metrics: For MLflow.
        curves: Rows of metrics for MLflow, each with a ``step``.
        volatile: Whether the circumstances may pass, so that the next run makes the artifact anew. What follows from
            a volatile artifact must be keyed by its content.
    """

    artifact: Kind
    metrics: Mapping[str, float] = field(default_factory=dict)
    curves: Sequence[Mapping[str, float]] = ()
    volatile: bool = False


@dataclass(frozen=True)
class ShownTraining:
    """How MLflow shows a training.

    Attributes:
        name: What people call its run.
        tags: To find the run by.
        params: Beside the training's settings.
    """

    name: str
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)


class Postponed(Exception):
    """A step has done what it could for now, and a later run goes on. ``artifact``: what its handle says of that."""

    def __init__(self, artifact: Artifact, state: str) -> None:
        """Note the handle to return, and where the work stands in words."""
        super().__init__(state)
        self.artifact = artifact


def load_settings(run: RunContext) -> Settings:
    """The settings that were resolved when the run was configured."""
    folder = open_store().fetch(run.settings)
    return Settings.model_validate_json((folder / "settings.json").read_text(encoding="utf-8"))


def is_forced(run: RunContext, step: str, inputs: Mapping[str, Artifact | str]) -> bool:
    """Whether ``step`` is to be made anew: it was named, or something it works from was made anew."""
    return step in run.force or any(isinstance(given, Artifact) and given.forced for given in inputs.values())


def perform(
    run: RunContext,
    kind: type[Kind],
    fill: Callable[[Path], Made[Kind]],
    *,
    settings: Mapping[str, Any],
    inputs: Mapping[str, Artifact | str],
    version: int = 1,
    after: Sequence[Artifact] = (),
    label: str = "",
    training: ShownTraining | None = None,
    within: Artifact | None = None,
    around: Callable[[], AbstractContextManager[object]] = nullcontext,
    answered: bool = False,
) -> Kind:
    """Make an artifact unless it exists already.

    Args:
        run: The DAG run.
        kind: What the step makes; its ``step`` is the step's name.
        fill: Fills the artifact's folder. What it logs goes to the MLflow run of the training, or of the DAG run.
        settings: All that ``fill`` depends on besides ``inputs``.
        inputs: Handles of earlier steps by their role, or references.
        version: To be raised when the code makes something else of the same settings and inputs.
        after: Handles that the step works from whose content ``inputs`` names already.
        label: Tells mapped instances of the step apart, such as ``vgg16 none seed 0``.
        training: How MLflow shows the training that the step makes, or that ``within`` is.
        within: The handle of a training to which what the step makes belongs.
        around: Gives the block in which the artifact is made and published.
        answered: Whether an earlier try of this run has made anew what was asked for. Then it is not made once more.

    Returns:
        The handle. Where ``fill`` raised :class:`Postponed` there is no artifact, and ``ref`` is empty.
    """
    step = kind.step
    refs = {name: given if isinstance(given, str) else given.ref for name, given in inputs.items()}
    ref = artifact_ref(step, version, settings, refs)
    forced = is_forced(run, step, inputs) or any(handle.forced for handle in after)
    work = f"{step} {label}".strip()
    with _told_where_it_fails(run, step, work, ref), progress.listening(Teller()), full_disk_told():
        before = open_store().entry(ref)
        found = _published(ref, kind) if answered or not forced else None
        own = _OwnRun(training or ShownTraining(work), work, ref)
        place = _own_place(run, kind, own, found) if within is None else _place_of_earlier(run, own, within, found)
        with place as shown:
            tracking.note_page(shown.url)
            if shown.is_own and within is None:
                tracking.log_params(flatten(settings) | dict(own.shown.params))
            postponed = None
            if found is not None:
                log.info("%s: artifact %s was made before and is taken as it is", work, ref)
            else:
                try:
                    record = {"step": step, "settings": dict(settings), "inputs": refs}
                    found = _make_alone(ref, kind, fill, record, shown.run_id, before, work, around)
                    forced = forced or _differs(before, found)
                except Postponed as reason:
                    log.warning("%s: %s", work, reason)
                    postponed = reason.artifact
            moment: dict[str, Any] = {"mlflow_run_id": shown.run_id, "url": shown.url, "shown_here": shown.is_here}
            if postponed is not None or found is None:
                assert isinstance(postponed, kind)  # what was not made was postponed
                if shown.is_own:
                    tracking.set_reused(None)
                return postponed.model_copy(update={**moment, "forced": forced})
            # A retry may find what an earlier try in the same run made: that is not another run's work.
            reused = not shown.is_here or found.made_by != shown.run_id
            if shown.is_own and within is None:
                if reused:
                    tracking.log_curves(found.curves)
                    tracking.log_inputs_of(found.made_by)
                tracking.set_reused(found.made_by if reused else None)
            if shown.is_here:
                tracking.log_metrics(found.metrics)
            made = {"ref": ref, "made_by": found.made_by, "seconds": found.seconds, "reused": reused, "forced": forced}
            return found.artifact.model_copy(update=moment | made)


@dataclass(frozen=True)
class _Published(Generic[Kind]):
    """An artifact as the store has it. ``hashes``: of its files."""

    artifact: Kind
    made_by: str
    seconds: float
    metrics: Mapping[str, float]
    curves: Sequence[Mapping[str, float]]
    hashes: Mapping[str, str]


@dataclass(frozen=True)
class _OwnRun:
    """The MLflow run of a training, if there is to be one.

    Attributes:
        shown: What people see of it.
        work: What tells it from its siblings.
        ref: The training's artifact.
    """

    shown: ShownTraining
    work: str
    ref: str

    def entered(self, run: RunContext) -> AbstractContextManager[str]:
        """The block in which it is the active run."""
        tags = {tracking.TAG_STEP: self.ref.partition("/")[0], **self.shown.tags}
        return tracking.step_run(run, self.work, self.ref, tags, self.shown.name)


@dataclass(frozen=True)
class _Shown:
    """Where MLflow shows an artifact.

    Attributes:
        run_id: The run.
        url: Its page.
        is_own: Whether the run is of the step alone.
        is_here: Whether it belongs to this DAG run.
    """

    run_id: str
    url: str
    is_own: bool = False
    is_here: bool = True


@contextmanager
def _told_where_it_fails(run: RunContext, step: str, work: str, ref: str) -> Iterator[None]:
    """Note that the DAG run uses an artifact, and let its MLflow run say why the block failed."""
    if not tracking.is_on():
        yield
        return
    tracking.note_page(run.url)
    use = Use(run.mlflow_run_id, work, ref)
    had_failed = use.begin(open_store())
    try:
        with tracking.within_dag_run(run, step, work, had_failed=had_failed):
            yield
    except BaseException:
        # The error of the step is what people must see.
        with suppress(Exception):
            use._replace(failed=True).note(open_store())
        raise
    if had_failed:
        use.note(open_store())


@contextmanager
def _own_place(run: RunContext, kind: type[Artifact], own: _OwnRun, found: _Published[Any] | None) -> Iterator[_Shown]:
    """Where MLflow shows what a step makes or takes: in a run of its own only where the step trains."""
    if tracking.is_on() and not kind.has_run:
        yield _Shown(run.mlflow_run_id, run.url)
        return
    if found is not None and (elsewhere := _shown_elsewhere(run, own.ref, found.made_by)):
        yield elsewhere
        return
    with own.entered(run) as run_id:
        yield _Shown(run_id, tracking.run_url(run.experiment_id, run_id), is_own=True)


@contextmanager
def _place_of_earlier(
    run: RunContext, own: _OwnRun, within: Artifact, found: _Published[Any] | None
) -> Iterator[_Shown]:
    """Where MLflow shows what belongs to a training: with the training.

    A training of another DAG run is shown with what was found of it then. Where this DAG run finds something else, it
    shows the training too.
    """
    if within.shown_here or not tracking.is_on():
        with tracking.reopen(within.mlflow_run_id) as run_id:
            yield _Shown(run_id, within.url, is_own=True)
        return
    if found is not None:
        same = found.made_by == within.mlflow_run_id
        shown = None if same else tracking.run_that_shows(within.ref, found.made_by, run.experiment_id)
        if shown is None:
            yield _Shown(within.mlflow_run_id, within.url, is_here=False)
            return
        if shown.dag_run != run.dag_run:
            yield _Shown(shown.run_id, tracking.run_url(shown.experiment, shown.run_id), is_here=False)
            return
    of_training = replace(own, work=f"{within.step} {own.work.partition(' ')[2]}", ref=within.ref)
    with of_training.entered(run) as run_id:
        record = open_store().record(within.ref)
        if record is not None and not tracking.is_told():
            tracking.log_params(flatten(record.get("settings", {})) | dict(own.shown.params))
            tracking.log_curves(record.get("curves", []))
            tracking.log_metrics(record.get("metrics", {}))
            tracking.log_inputs_of(within.made_by)
            tracking.set_reused(within.made_by)
        yield _Shown(run_id, tracking.run_url(run.experiment_id, run_id), is_own=True)


def _shown_elsewhere(run: RunContext, ref: str, made_by: str) -> _Shown | None:
    """The MLflow run of another DAG run that shows an artifact, if there is one."""
    shown = tracking.run_that_shows(ref, made_by, run.experiment_id)
    # An earlier try of this very step may have more to say.
    if shown is None or shown.dag_run == run.dag_run:
        return None
    return _Shown(shown.run_id, tracking.run_url(shown.experiment, shown.run_id), is_here=False)


def _published(ref: str, kind: type[Kind], *, volatile: bool = False) -> _Published[Kind] | None:
    """The artifact ``ref``, unless it has to be made: it is not there, damaged, of an older form, or volatile.

    Args:
        ref: Its reference.
        kind: What it is.
        volatile: Take a volatile one too.
    """
    record = open_store().take(ref)
    if record is None or (record.get("volatile") and not volatile):
        return None
    try:
        return _Published(
            kind.model_validate(record["made"]),
            record["mlflow_run_id"],
            record["seconds"],
            record.get("metrics", {}),
            record.get("curves", []),
            _file_hashes(record),
        )
    except (KeyError, ValidationError):
        log.info("artifact %s was made by another version of this program and is made anew", ref)
        return None


def _make_alone(
    ref: str,
    kind: type[Kind],
    fill: Callable[[Path], Made[Kind]],
    record: dict[str, Any],
    run_id: str,
    before: RecordEntry,
    work: str,
    around: Callable[[], AbstractContextManager[object]],
) -> _Published[Kind]:
    """Make the artifact ``ref`` while nobody else does, unless somebody did so since it was ``before``."""
    store = open_store()
    with store.lease(f"artifact/{ref}", work):
        if not before.is_still(store.entry(ref)):
            # Made at the same time, so it counts like one's own: volatile, or made anew on request.
            found = _published(ref, kind, volatile=True)
            if found is not None:
                log.info("%s: another run has just made artifact %s, which is taken", work, ref)
                return found
        with around():
            return _make(ref, kind, fill, record, run_id)


def _make(
    ref: str, kind: type[Kind], fill: Callable[[Path], Made[Kind]], record: dict[str, Any], run_id: str
) -> _Published[Kind]:
    """Fill the artifact ``ref`` and publish it."""
    store, started = open_store(), time.monotonic()
    record["mlflow_run_id"] = run_id
    # Where a record is there, it is one that does not count any more.
    with patience(0.0) as wait_longer, store.publish(ref, record, replace=True) as folder:
        with tracking.measured():
            made = fill(folder)
        # What took hours to make is worth half an hour. What was not begun fails at once, and is tried again.
        wait_longer()
        record["made"] = made.artifact.model_dump(mode="json", exclude=set(Artifact.MOMENT))
        record["metrics"], record["curves"] = dict(made.metrics), list(made.curves)
        record["volatile"] = made.volatile
        record["seconds"] = round(time.monotonic() - started, 1)
    # Where leases are not to be had, two may have made it at once: one was published, and both go on with that one.
    published = _published(ref, kind, volatile=True)
    return published or _Published(made.artifact, run_id, record["seconds"], made.metrics, made.curves, {})


def _file_hashes(record: Mapping[str, Any]) -> dict[str, str]:
    """The hash of each file that a record names; nothing where the record is of 0.1.0."""
    return {name: told["sha256"] for name, told in record.get("files", {}).items()}


def _differs(before: RecordEntry, found: _Published[Any]) -> bool:
    """Whether what was made because the artifact before was damaged is not the same again.

    What follows was made from that, and is to be made anew as well. What follows from a volatile artifact is keyed by
    its content.
    """
    lost = before.content
    if lost is None or lost.get("volatile") or "files" not in lost:
        return False
    return _file_hashes(lost) != found.hashes
