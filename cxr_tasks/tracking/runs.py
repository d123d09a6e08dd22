"""MLflow runs: one for a DAG run, one below it for each step, found again when a step is retried.

MLflow has no idempotency key, so runs carry tags that identify the work and are searched for before any is created.
Nothing here knows what a step does.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from cxr_tasks import outages
from cxr_tasks.errors import SettingsError, in_one_line
from cxr_tasks.tracking.outbox import Outbox
from cxr_tasks.tracking.server import DELETED, client, is_on, patient, revive_experiment, reviving

log = logging.getLogger(__name__)

TAG_DAG_RUN = "cxr.dag_run"
TAG_WORK = "cxr.work"
TAG_ARTIFACT = "cxr.artifact"
# Why a training was made, and the run that trained its GAN.
TAG_CAUSE, TAG_GAN_RUN = "cxr.cause", "cxr.gan_run"
# The run that made the artifact which a run took as it was, and how far the work of a run is.
TAG_MADE_BY, TAG_PROGRESS = "cxr.made_by", "cxr.progress"
# MLflow's own: what people see above runs, and that the runs train models. Without that MLflow's pages guess.
TAG_NOTE, EXPERIMENT_KIND = "mlflow.note.content", {"mlflow.experimentKind": "custom_model_development"}
# Why a run failed, and what MLflow itself did not take of what it was told.
TAG_ERROR, TAG_REFUSED = "cxr.error", "cxr.refused"
# MLflow refuses much longer tags.
MOST_ERROR = 5000
# A step that failed tells MLflow what it can in so many seconds: its error is what counts.
FAREWELL_SECONDS = 10.0

# The experiment and the id of the run that was opened last.
_opened: list[tuple[str, str]] = []
_outbox: ContextVar[Outbox | None] = ContextVar("outbox", default=None)


class Parent(Protocol):
    """What a step's run needs to know of the DAG run."""

    @property
    def dag_run(self) -> str:
        """Airflow's id of the DAG run."""

    @property
    def experiment_id(self) -> str:
        """MLflow's experiment."""

    @property
    def mlflow_run_id(self) -> str:
        """The MLflow run that holds the runs of the steps."""


def experiment_id(name: str, note: str = "") -> str:
    """The experiment's id. It is created on first use, also when two tasks try at once, and restored if deleted.

    Args:
        name: Of the experiment.
        note: What it is, as Markdown, where nobody has said that yet.
    """
    from mlflow.exceptions import MlflowException

    server, tags = client(), EXPERIMENT_KIND | ({TAG_NOTE: note} if note else {})
    found = server.get_experiment_by_name(name)
    if found is None:
        try:
            return server.create_experiment(name, tags=tags)
        except MlflowException:
            found = server.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == DELETED:
        # MLflow keeps the name for it, so that there cannot be another one.
        revive_experiment(found.experiment_id)
    for tag in tags.keys() - found.tags.keys():
        server.set_experiment_tag(found.experiment_id, tag, tags[tag])
    return found.experiment_id


def find_or_create(experiment: str, name: str, identity: Mapping[str, str], tags: Mapping[str, str]) -> str:
    """The id of the run whose tags hold ``identity``; of a new run called ``name`` if there is none.

    A run that people deleted does not count. An experiment that they deleted is restored.
    """
    from mlflow.exceptions import MlflowException

    try:
        return _find_or_create(experiment, name, identity, tags)
    except MlflowException as error:
        if outages.is_passing(error) or not revive_experiment(experiment):
            raise
        return _find_or_create(experiment, name, identity, tags)


def _find_or_create(experiment: str, name: str, identity: Mapping[str, str], tags: Mapping[str, str]) -> str:
    server = client()
    conditions = [f"tags.`{key}` = '{value}'" for key, value in identity.items()]
    found = server.search_runs([experiment], " and ".join(conditions), max_results=1)
    run = found[0] if found else server.create_run(experiment, run_name=name, tags={**identity, **tags})
    return run.info.run_id


@contextmanager
def step_run(parent: Parent, work: str, artifact: str, tags: Mapping[str, str]) -> Iterator[str]:
    """Enter the run of one step: the one that an earlier try began, or a new one.

    Inside the block the run is MLflow's active run, and what is logged to it is sent by a thread: MLflow may be away
    meanwhile. The block's end waits until all is sent. The run ends FINISHED, or FAILED if the block raises, with the
    sentence of the error as a tag.

    Args:
        parent: The DAG run.
        work: What tells this step from its siblings, such as ``train_arm vgg16 none seed 0``.
        artifact: The reference of what it makes.
        tags: To find the run by.

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
    run_id = find_or_create(parent.experiment_id, work, identity, {**below, **tags})
    with reopen(run_id):
        if outbox := _outbox.get():
            outbox.put_batch(tags=[[name, value] for name, value in tags.items()])
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
    _opened[:] = [(active.info.experiment_id, run_id)]
    has_error = TAG_ERROR in active.data.tags or outbox.took_over
    token = _outbox.set(outbox)
    try:
        yield run_id
        with outages.patience():
            outbox.drain(outages.OUTAGE_SECONDS)
            _tell_refused(outbox)
            if has_error:
                _forget_error(run_id)
            _end_active(run_id, "FINISHED")
    except BaseException as error:
        _say_farewell(outbox, error)
        raise
    finally:
        outbox.close()
        _outbox.reset(token)


def last_run() -> tuple[str, str] | None:
    """The experiment and the id of the run that this process has opened last, also after its end."""
    return _opened[0] if _opened else None


def outbox_of(run_id: str | None) -> Outbox | None:
    """The outbox of the active run, unless ``run_id`` names another run."""
    outbox = _outbox.get()
    return outbox if outbox is not None and run_id in (None, outbox.run_id) else None


def _tell_refused(outbox: Outbox) -> None:
    """Say what is missing in MLflow because MLflow did not take it, in the log and as a tag."""
    if outbox.refused:
        said = f"{len(outbox.refused)} things are missing in this run, because MLflow refuses them: {outbox.refused[0]}"
        log.error("%s", said)
        outbox.put_batch(tags=[[TAG_REFUSED, said[:MOST_ERROR]]])
        outbox.drain(FAREWELL_SECONDS)


def _say_farewell(outbox: Outbox, why: BaseException) -> None:
    """Tell MLflow that the step failed, as far as MLflow listens: the step's own error is what people must see."""
    try:
        sentence = f"{in_one_line(why)}."
        outbox.put_batch(tags=[[TAG_ERROR, sentence[:MOST_ERROR]]])
        outbox.drain(FAREWELL_SECONDS)
        _tell_refused(outbox)
    except (ConnectionError, SettingsError, OSError) as error:
        log.warning("%s", error)
    try:
        _end_active(outbox.run_id, "FAILED")
    except Exception as error:
        log.warning("MLflow does not know that the run %s failed: %s", outbox.run_id, in_one_line(error))


@patient
def _forget_error(run_id: str) -> None:
    """Take away the error of an earlier try."""
    if TAG_ERROR in client().get_run(run_id).data.tags:
        client().delete_tag(run_id, TAG_ERROR)


@patient
def _end_active(run_id: str, status: str) -> None:
    import mlflow

    active = mlflow.active_run()
    if active is not None and active.info.run_id == run_id:
        # First it leaves the run, then it tells the server. Asked again, there is no active run any more.
        reviving(lambda: mlflow.end_run(status), run_id)
    else:
        reviving(lambda: client().set_terminated(run_id, status), run_id)
