"""Where what a step logs goes: a training has an MLflow run of its own, all else goes to that of the DAG run.

Several tasks log to the run of a DAG run at once, and none of them ends it. Each has its own outbox, and a folder of
its own there.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace

from cxr_tasks import outages
from cxr_tasks.errors import SettingsError, in_one_line
from cxr_tasks.names import slug
from cxr_tasks.tracking.outbox import Outbox
from cxr_tasks.tracking.runs import (
    MOST_ERROR,
    TAG_ARTIFACT,
    TAG_DAG_RUN,
    TAG_ERROR,
    TAG_REFUSED,
    TAG_WORK,
    Parent,
    find_or_create,
)
from cxr_tasks.tracking.server import client, is_on, patient, reviving

log = logging.getLogger(__name__)

# A step that failed tells MLflow what it can in so many seconds: its error is what counts.
FAREWELL_SECONDS = 10.0


@dataclass(frozen=True)
class LogPlace:
    """Where what is logged goes.

    Attributes:
        outbox: What waits for the run.
        experiment: Of the run.
        folder: What stands before the names of metrics and files there: ``compare/vgg16/``; empty where the run is of
            the step alone.
        tags: That the run had when it was entered, where it is of the step alone.
        begun: When the run began, in milliseconds since 1970, where it is of the step alone.
    """

    outbox: Outbox
    experiment: str
    folder: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    begun: int = 0

    @property
    def run_id(self) -> str:
        """The run."""
        return self.outbox.run_id


_entered: ContextVar[LogPlace | None] = ContextVar("entered", default=None)


def place_of(run_id: str | None) -> LogPlace | None:
    """Where the step logs, unless ``run_id`` names another run; a run that is named has no folder for the step."""
    place = _entered.get()
    if place is None or run_id is None:
        return place
    return replace(place, folder="") if run_id == place.run_id else None


@contextmanager
def step_run(parent: Parent, work: str, artifact: str, tags: Mapping[str, str], name: str = "") -> Iterator[str]:
    """Enter the run of one training: the one that an earlier try began, or a new one.

    Inside the block the run is MLflow's active run, and what is logged to it is sent by a thread: MLflow may be away
    meanwhile. The block's end waits until all is sent. The run ends FINISHED, or FAILED if the block raises, with the
    sentence of the error as a tag.

    Args:
        parent: The DAG run.
        work: What tells this training from its siblings, such as ``train_arm vgg16 none seed 0``.
        artifact: The reference of what it makes.
        tags: To find the run by.
        name: What people call it, where that is not ``work``.

    Yields:
        The run's id; where nothing is tracked, one that is new each time.

    Raises:
        ConnectionError: MLflow was away for longer than :data:`cxr_tasks.outages.OUTAGE_SECONDS` at the end.
        SettingsError: MLflow denied the step its run, from some moment on to the end.
    """
    if not is_on():
        yield f"untracked-{uuid.uuid4().hex}"
        return
    # The artifact is part of it: after settings were mended, a cleared task is other work with other params.
    identity = {TAG_DAG_RUN: parent.dag_run, TAG_WORK: work, TAG_ARTIFACT: artifact}
    below = {"mlflow.parentRunId": parent.mlflow_run_id}
    run_id = find_or_create(parent.experiment_id, name or work, identity, {**below, **tags})
    with reopen(run_id):
        if (place := _entered.get()) is not None:
            place.outbox.put_batch(tags=[[tag, value] for tag, value in tags.items()])
        yield run_id


@contextmanager
def reopen(run_id: str) -> Iterator[str]:
    """Enter a run that is there already, as :func:`step_run` does. A run that people deleted is restored."""
    if not is_on():
        yield run_id
        return
    import mlflow

    client()
    # First: a cache that cannot be written must not leave a run active that MLflow then ends as finished.
    outbox = Outbox(run_id)
    active = reviving(lambda: mlflow.start_run(run_id=run_id, log_system_metrics=False), run_id)
    has_error = TAG_ERROR in active.data.tags or outbox.took_over
    token = _entered.set(
        LogPlace(outbox, active.info.experiment_id, tags=active.data.tags, begun=active.info.start_time)
    )
    try:
        yield run_id
        with outages.patience():
            outbox.drain(outages.OUTAGE_SECONDS)
            _tell_refused(outbox)
            if has_error:
                _forget_error(run_id, TAG_ERROR)
            _end_active(run_id, "FINISHED")
    except BaseException as error:
        _say_farewell(outbox, error, TAG_ERROR)
        try:
            _end_active(run_id, "FAILED")
        except Exception as why:
            log.warning("MLflow does not know that the run %s failed: %s", run_id, in_one_line(why))
        raise
    finally:
        outbox.close()
        _entered.reset(token)


@contextmanager
def within_dag_run(parent: Parent, step: str, work: str, *, had_failed: bool) -> Iterator[None]:
    """Let what is logged in the block go to the run of the DAG run, beside what its other steps log there.

    Metrics are named after the work, and files are in a folder of the work. Where nothing is logged MLflow is not
    asked. The run goes on, also where the block raises: then it has the sentence of the error as a tag of the work.

    Args:
        parent: The DAG run.
        step: What is done, such as ``compare``.
        work: What tells it from its siblings, such as ``compare vgg16 none seed 0``.
        had_failed: Whether an earlier try has left its error.

    Raises:
        ConnectionError: As for :func:`step_run`.
        SettingsError: As for :func:`step_run`.
    """
    if not is_on():
        yield
        return
    label = work.removeprefix(step).strip()
    folder = f"{step}/{slug(label)}/" if label else f"{step}/"
    outbox, tag = Outbox(parent.mlflow_run_id, work), f"{TAG_ERROR}.{slug(work)}"
    # A try that was killed may have left its error there and no note of it.
    had_failed = had_failed or outbox.took_over
    token = _entered.set(LogPlace(outbox, parent.experiment_id, folder))
    try:
        yield
        if outbox.is_used or had_failed:
            with outages.patience():
                outbox.drain(outages.OUTAGE_SECONDS)
                _tell_refused(outbox)
                if had_failed:
                    _forget_error(parent.mlflow_run_id, tag)
    except BaseException as error:
        _say_farewell(outbox, error, tag)
        raise
    finally:
        outbox.close()
        _entered.reset(token)


def _tell_refused(outbox: Outbox) -> None:
    """Say what is missing in MLflow because MLflow did not take it, in the log and as a tag."""
    if outbox.refused:
        said = f"{len(outbox.refused)} things are missing in this run, because MLflow refuses them: {outbox.refused[0]}"
        log.error("%s", said)
        outbox.put_batch(tags=[[TAG_REFUSED, said[:MOST_ERROR]]])
        outbox.drain(FAREWELL_SECONDS)


def _say_farewell(outbox: Outbox, why: BaseException, tag: str) -> None:
    """Tell MLflow that the step failed, as far as MLflow listens: the step's own error is what people must see."""
    try:
        sentence = f"{in_one_line(why)}."
        outbox.put_batch(tags=[[tag, sentence[:MOST_ERROR]]])
        outbox.drain(FAREWELL_SECONDS)
        _tell_refused(outbox)
    except (ConnectionError, SettingsError, OSError) as error:
        log.warning("%s", error)


@patient
def _forget_error(run_id: str, tag: str) -> None:
    """Take away the error of an earlier try."""
    if tag in client().get_run(run_id).data.tags:
        client().delete_tag(run_id, tag)


@patient
def _end_active(run_id: str, status: str) -> None:
    import mlflow

    active = mlflow.active_run()
    if active is not None and active.info.run_id == run_id:
        # First it leaves the run, then it tells the server. Asked again, there is no active run any more.
        reviving(lambda: mlflow.end_run(status), run_id)
    else:
        reviving(lambda: client().set_terminated(run_id, status), run_id)
