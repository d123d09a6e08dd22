"""Old DAG runs and versions in MLflow: what there is, and how it goes with its files.

A deleted run stays in MLflow's list of deleted runs, without its files, until ``mlflow gc`` takes it out of the
database.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from cxr_tasks.outages import is_passing
from cxr_tasks.tracking.runs import TAG_ARTIFACT, TAG_DAG_RUN, TAG_GAN_RUN, TAG_TRAINING_RUNS
from cxr_tasks.tracking.server import all_pages, client, patient

if TYPE_CHECKING:
    from mlflow.entities import Run

# Of a DAG run whose artifacts a cleanup has begun to remove: from which store.
TAG_CLEANED = "cxr.cleaned"


@dataclass(frozen=True)
class TrackedDagRun:
    """A DAG run in MLflow.

    Attributes:
        experiment: The id of its experiment.
        runs: The ids of its run and of those of its steps.
        artifacts: References of what its steps made or took.
        begun: When the first of them began, in milliseconds since 1970.
        goes_on: Whether one of them has not ended.
        cleaned_from: The store that :func:`mark_dag_run` was told; empty where it was not called.
        shown: The ids of the runs, also of other DAG runs, that its pages lead to.
    """

    experiment: str
    runs: tuple[str, ...]
    artifacts: frozenset[str]
    begun: int
    goes_on: bool
    cleaned_from: str
    shown: frozenset[str] = frozenset()


@patient
def tracked_dag_runs(experiments: Collection[str]) -> dict[str, list[TrackedDagRun]]:
    """The DAG runs in each of these experiments, the newest first; experiments that are not there are left out."""
    server, found = client(), {}
    for name in experiments:
        experiment = server.get_experiment_by_name(name)
        if experiment is None:
            continue
        by_name: dict[str, list[Run]] = defaultdict(list)
        for run in all_pages(partial(server.search_runs, [experiment.experiment_id], max_results=1000)):
            if dag_run := run.data.tags.get(TAG_DAG_RUN):
                by_name[dag_run].append(run)
        runs = [_of_runs(experiment.experiment_id, each) for each in by_name.values()]
        found[name] = sorted(runs, key=lambda each: each.begun, reverse=True)
    return found


def _of_runs(experiment: str, runs: list[Run]) -> TrackedDagRun:
    runs = sorted(runs, key=lambda run: run.info.start_time, reverse=True)
    artifacts = frozenset(run.data.tags[TAG_ARTIFACT] for run in runs if TAG_ARTIFACT in run.data.tags)
    begun, goes_on = min(run.info.start_time for run in runs), any(run.info.status == "RUNNING" for run in runs)
    cleaned_from = runs[-1].data.tags.get(TAG_CLEANED, "")
    told = " ".join(run.data.tags.get(tag, "") for run in runs for tag in (TAG_TRAINING_RUNS, TAG_GAN_RUN))
    ids, shown = tuple(run.info.run_id for run in runs), frozenset(told.replace(",", " ").split())
    return TrackedDagRun(experiment, ids, artifacts, begun, goes_on, cleaned_from, shown)


def is_old(run: TrackedDagRun, before: datetime) -> bool:
    """Whether a DAG run has ended and began before that time."""
    return not run.goes_on and run.begun < before.timestamp() * 1000


@patient
def mark_dag_run(run: TrackedDagRun, store: str) -> None:
    """Note that artifacts of a DAG run are about to go, so that a cleanup that is killed is ended by the next one.

    Args:
        run: The DAG run.
        store: Where its artifacts are.
    """
    # The oldest run holds those of the steps, and is deleted last.
    client().set_tag(run.runs[-1], TAG_CLEANED, store)


@patient
def forget_dag_run(run: TrackedDagRun) -> None:
    """Delete the runs of a DAG run, with their files and the models that they logged."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    server = client()
    for run_id in run.runs:
        logged = partial(server.search_logged_models, [run.experiment], f"source_run_id = '{run_id}'")
        for model in list(all_pages(logged)):
            get_artifact_repository(model.artifact_location).delete_artifacts()
            server.delete_logged_model(model.model_id)
        get_artifact_repository(server.get_run(run_id).info.artifact_uri).delete_artifacts()
        server.delete_run(run_id)


@patient
def forget_version(name: str, version: str) -> None:
    """Delete a registered version; one that is not there is deleted already."""
    from mlflow.exceptions import MlflowException

    try:
        client().delete_model_version(name, version)
    except MlflowException as error:
        if is_passing(error) or error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
