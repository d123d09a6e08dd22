"""MLflow: one parent run per DAG run, one child run per step, found again when a step is retried.

MLflow has no idempotency key, so runs carry tags that identify the work and are searched for before any
is created. Nothing here knows what a step does.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from cxr_tasks.errors import SettingsError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from mlflow import MlflowClient
    from mlflow.entities import Run

log = logging.getLogger(__name__)

TAG_DAG_RUN = "cxr.dag_run"
TAG_WORK = "cxr.work"
TAG_ARTIFACT = "cxr.artifact"


def client() -> MlflowClient:
    """A client of the server named by ``MLFLOW_TRACKING_URI``.

    Raises:
        SettingsError: the variable is not set; MLflow would silently write to a local file instead.
    """
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        raise SettingsError(
            "MLFLOW_TRACKING_URI is not set: give it the address of the MLflow server, such as http://127.0.0.1:5000."
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


def find_or_create(experiment: str, name: str, identity: Mapping[str, str], tags: Mapping[str, str]) -> Run:
    """The run whose tags hold ``identity``; a new one called ``name`` if there is none."""
    server = client()
    conditions = [f"tags.`{key}` = '{value}'" for key, value in identity.items()]
    found = server.search_runs([experiment], " and ".join(conditions), max_results=1)
    if found:
        return found[0]
    return server.create_run(experiment, run_name=name, tags={**identity, **tags})


@contextmanager
def step_run(parent: Mapping[str, Any], work: str, artifact: str, tags: Mapping[str, str]) -> Iterator[Run]:
    """Enter the child run of one step: the one an earlier try began, or a new one.

    Args:
        parent: ``experiment_id``, ``mlflow_run_id`` and ``dag_run`` of the parent run.
        work: what tells this step from its siblings, such as ``train_arm vgg16 baseline seed 0``.
        artifact: the reference of what it makes.

    Inside the block the run is MLflow's active run. It ends FINISHED, or FAILED if the block raises.
    """
    import mlflow

    # The artifact is part of it: after settings were mended, a cleared task is other work with other params.
    identity = {TAG_DAG_RUN: parent["dag_run"], TAG_WORK: work, TAG_ARTIFACT: artifact}
    run = find_or_create(
        parent["experiment_id"], work, identity, {"mlflow.parentRunId": parent["mlflow_run_id"], **tags}
    )
    with mlflow.start_run(run_id=run.info.run_id, log_system_metrics=False):
        mlflow.set_tags(dict(tags))
        yield run


def end_run(run_id: str) -> None:
    """Mark the run that held a DAG run's steps as finished."""
    client().set_terminated(run_id)


def log_params(params: Mapping[str, Any]) -> None:
    """Log params to the active run. A retry logs the same values again, which MLflow accepts."""
    import mlflow

    mlflow.log_params({name: value for name, value in params.items() if value is not None and value != ""})


def run_url(experiment: str, run_id: str) -> str:
    """Where people see the run; empty when the tracking store has no pages of its own."""
    base = _pages()
    return f"{base}/#/experiments/{experiment}/runs/{run_id}" if base else ""


def artifact_url(experiment: str, run_id: str, path: str) -> str:
    """Where people see one artifact of a run; empty as for :func:`run_url`."""
    base = run_url(experiment, run_id)
    return f"{base}/artifacts/{path}" if base else ""


def search_url(experiment: str, condition: str, order_by: str, *, charts: bool = False) -> str:
    """Where people see the runs that fulfil ``condition``, those with most of ``order_by`` first.

    ``charts``: their curves over each other instead of a list.
    """
    base = _pages()
    query = {"searchFilter": condition, "orderByKey": order_by, "orderByAsc": "false"}
    if charts:
        query["compareRunsMode"] = "CHART"
    return f"{base}/#/experiments/{experiment}/runs?{urlencode(query, quote_via=quote)}" if base else ""


def _pages() -> str:
    """The address of MLflow's pages, or '' where the tracking store has none."""
    base = os.environ.get("CXR_MLFLOW_UI") or os.environ.get("MLFLOW_TRACKING_URI", "")
    return base.rstrip("/") if base.startswith("http") else ""


def log_metrics(metrics: Mapping[str, float], step: int | None = None) -> None:
    """Log metrics to the active run."""
    import mlflow

    if metrics:
        mlflow.log_metrics({name: float(value) for name, value in metrics.items()}, step=step)


def log_curves(rows: Sequence[Mapping[str, float]]) -> None:
    """Log rows of metrics, each with its ``step``, in one request."""
    import mlflow
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    metrics = [
        Metric(name, float(value), now, int(row["step"]))
        for row in rows
        for name, value in row.items()
        if name != "step"
    ]
    for start in range(0, len(metrics), 1000):
        client().log_batch(mlflow.active_run().info.run_id, metrics[start : start + 1000])


def set_reused(made_by: str | None) -> None:
    """Mark the active run as one that made its artifact, or that took the one another run made."""
    import mlflow

    mlflow.set_tags({"cxr.reused": str(made_by is not None).lower(), "cxr.made_by": made_by or "this run"})


def log_figure(figure: Figure, path: str) -> None:
    """Keep a matplotlib figure with the active run."""
    import mlflow

    mlflow.log_figure(figure, path)


def log_table(table: pd.DataFrame, path: str) -> None:
    """Keep a table with the active run, in the form MLflow's pages show. Unlike ``mlflow.log_table`` it replaces."""
    import mlflow

    mlflow.log_text(table.to_json(orient="split", index=False), path)


def forgiving(call: Callable[..., None]) -> Callable[..., None]:
    """``call``, with a warning instead of an exception when MLflow cannot be reached."""
    from mlflow.exceptions import MlflowException

    def attempt(*args: Any) -> None:
        try:
            call(*args)
        except MlflowException as error:
            log.warning("Not logged to MLflow: %s", error)

    return attempt


def log_dataset(table: pd.DataFrame, name: str, version: str, context: str) -> None:
    """Record which images the active run worked with, as an MLflow dataset input."""
    import mlflow

    dataset = mlflow.data.from_pandas(table, source=f"cxr-store/{name}", name=name, digest=version[:12])
    mlflow.log_input(dataset, context=context)
