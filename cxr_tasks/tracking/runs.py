"""MLflow runs: one for a DAG run, one below it for each step, found again when a step is retried.

MLflow has no idempotency key, so runs carry tags that identify the work and are searched for before any is created.
Nothing here knows what a step does. With ``CXR_MLFLOW=off`` nothing is tracked: what would be logged is dropped, and
asking for a client is an error.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cxr_tasks.errors import SettingsError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

TAG_DAG_RUN = "cxr.dag_run"
TAG_WORK = "cxr.work"
TAG_ARTIFACT = "cxr.artifact"
SWITCH = "CXR_MLFLOW"
METRICS_AT_ONCE, PARAMS_AT_ONCE = 1000, 100


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


def is_on() -> bool:
    """Whether anything is tracked."""
    return os.environ.get(SWITCH, "").lower() != "off"


def client() -> MlflowClient:
    """A client of the server named by ``MLFLOW_TRACKING_URI``.

    Raises:
        SettingsError: The variable is not set; MLflow would silently write to a local file instead.
    """
    if not is_on():
        raise SettingsError(f"MLflow is needed here, and {SWITCH} is off: take that variable away.")
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        raise SettingsError(
            "MLFLOW_TRACKING_URI is not set: give it the address of the MLflow server, such as http://127.0.0.1:5000, "
            f"or set {SWITCH}=off to work without MLflow."
        )
    from mlflow import MlflowClient

    return MlflowClient()


def experiment_id(name: str) -> str:
    """The experiment's id; it is created on first use, also when two tasks try at once."""
    from mlflow.exceptions import MlflowException

    server = client()
    found = server.get_experiment_by_name(name)
    if found is None:
        try:
            return server.create_experiment(name)
        except MlflowException:
            found = server.get_experiment_by_name(name)
            if found is None:
                raise
    return found.experiment_id


def find_or_create(experiment: str, name: str, identity: Mapping[str, str], tags: Mapping[str, str]) -> str:
    """The id of the run whose tags hold ``identity``; of a new run called ``name`` if there is none."""
    server = client()
    conditions = [f"tags.`{key}` = '{value}'" for key, value in identity.items()]
    found = server.search_runs([experiment], " and ".join(conditions), max_results=1)
    run = found[0] if found else server.create_run(experiment, run_name=name, tags={**identity, **tags})
    return run.info.run_id


@contextmanager
def step_run(parent: Parent, work: str, artifact: str, tags: Mapping[str, str]) -> Iterator[str]:
    """Enter the run of one step: the one that an earlier try began, or a new one.

    Inside the block the run is MLflow's active run. It ends FINISHED, or FAILED if the block raises.

    Args:
        parent: The DAG run.
        work: What tells this step from its siblings, such as ``train_arm vgg16 none seed 0``.
        artifact: The reference of what it makes.
        tags: To find the run by.

    Yields:
        The run's id; where nothing is tracked, one that is new each time.
    """
    if not is_on():
        yield f"untracked-{uuid.uuid4().hex}"
        return
    # The artifact is part of it: after settings were mended, a cleared task is other work with other params.
    identity = {TAG_DAG_RUN: parent.dag_run, TAG_WORK: work, TAG_ARTIFACT: artifact}
    below = {"mlflow.parentRunId": parent.mlflow_run_id}
    run_id = find_or_create(parent.experiment_id, work, identity, {**below, **tags})
    with reopen(run_id):
        import mlflow

        mlflow.set_tags(dict(tags))
        yield run_id


@contextmanager
def reopen(run_id: str) -> Iterator[str]:
    """Enter a run that is there already."""
    if is_on():
        import mlflow

        with mlflow.start_run(run_id=run_id, log_system_metrics=False):
            yield run_id
    else:
        yield run_id


def end_run(run_id: str) -> None:
    """Mark the run that held a DAG run's steps as finished."""
    if is_on():
        client().set_terminated(run_id)


def log_params(params: Mapping[str, Any], run_id: str | None = None) -> None:
    """Log params in as few requests as there can be. A retry logs the same values again, which MLflow accepts.

    Args:
        params: Values by name; those that say nothing are left out.
        run_id: Of the run; ``None`` for the active one.
    """
    if not is_on():
        return
    from mlflow.entities import Param

    told = [Param(name, str(value)) for name, value in params.items() if value is not None and value != ""]
    for start in range(0, len(told), PARAMS_AT_ONCE):
        client().log_batch(run_id or _active(), params=told[start : start + PARAMS_AT_ONCE])


def set_tags(tags: Mapping[str, str], run_id: str | None = None) -> None:
    """Set tags of a run, the active one unless ``run_id`` names another."""
    if not is_on():
        return
    from mlflow.entities import RunTag

    client().log_batch(run_id or _active(), tags=[RunTag(name, value) for name, value in tags.items()])


def log_metrics(metrics: Mapping[str, float], step: int | None = None, run_id: str | None = None) -> None:
    """Log metrics to a run, the active one unless ``run_id`` names another."""
    if metrics and is_on():
        log_curves([{"step": step or 0, **metrics}], run_id)


def log_curves(rows: Sequence[Mapping[str, float]], run_id: str | None = None) -> None:
    """Log rows of metrics, each with its ``step``, in as few requests as there can be."""
    if not is_on():
        return
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    metrics = [
        Metric(name, float(value), now, int(row["step"]))
        for row in rows
        for name, value in row.items()
        if name != "step"
    ]
    for start in range(0, len(metrics), METRICS_AT_ONCE):
        client().log_batch(run_id or _active(), metrics[start : start + METRICS_AT_ONCE])


def set_reused(made_by: str | None) -> None:
    """Mark the active run as one that made its artifact, or that took the one that another run made."""
    set_tags({"cxr.reused": str(made_by is not None).lower(), "cxr.made_by": made_by or "this run"})


def log_text(text: str, path: str, run_id: str | None = None) -> None:
    """Keep a text with a run, the active one unless ``run_id`` names another."""
    if is_on():
        client().log_text(run_id or _active(), text, path)


def log_file(path: Path, run_id: str | None = None) -> None:
    """Keep a file with a run, the active one unless ``run_id`` names another."""
    if is_on():
        client().log_artifact(run_id or _active(), str(path))


def log_folder(folder: Path, name: str) -> None:
    """Keep a folder with the active run, as ``name``."""
    if is_on():
        client().log_artifacts(_active(), str(folder), name)


def log_figure(figure: Figure, path: str) -> None:
    """Keep a matplotlib figure with the active run."""
    if is_on():
        import mlflow

        mlflow.log_figure(figure, path)


def log_table(table: pd.DataFrame, path: str) -> None:
    """Keep a table with the active run, in the form MLflow's pages show. Unlike ``mlflow.log_table`` it replaces."""
    log_text(table.to_json(orient="split", index=False), path)


def log_dataset(
    table: pd.DataFrame, name: str, version: str, context: str, tags: Mapping[str, str] | None = None
) -> None:
    """Record which images the active run worked with, as an MLflow dataset input.

    Args:
        table: A row an image. MLflow keeps its number of rows and its columns, and no row.
        name: What the images are. Of one name and version MLflow keeps only the first table that it is told of.
        version: Tells the images apart from others of that name; 12 characters of it count.
        context: What the run does with the images.
        tags: Of the images in this run.
    """
    if not is_on():
        return
    import mlflow

    dataset = mlflow.data.from_pandas(table, source=f"cxr-store/{name}", name=name, digest=version[:12])
    mlflow.log_input(dataset, context=context, tags=dict(tags or {}))


def log_inputs_of(run_id: str) -> None:
    """Record with the active run the dataset inputs of the run that made what the active run takes as it is."""
    if not is_on():
        return
    from mlflow.exceptions import MlflowException

    server = client()
    try:
        inputs = server.get_run(run_id).inputs.dataset_inputs
    except MlflowException as error:
        # It may have been deleted since, or the artifact was made where nothing was tracked.
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return
    if inputs:
        server.log_inputs(_active(), inputs)


def forgiving(call: Callable[..., None]) -> Callable[..., None]:
    """``call``, with a warning instead of an exception when MLflow cannot be reached."""
    if not is_on():
        return call
    from mlflow.exceptions import MlflowException

    def attempt(*args: Any) -> None:
        try:
            call(*args)
        except MlflowException as error:
            log.warning("Not logged to MLflow: %s", error)

    return attempt


def _active() -> str:
    """The id of the active run."""
    import mlflow

    run = mlflow.active_run()
    assert run is not None  # steps log inside their runs
    return run.info.run_id
