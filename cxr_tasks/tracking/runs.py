"""MLflow runs: one for a DAG run, one below it for each training, found again when a step is retried.

MLflow has no idempotency key, so runs carry tags that identify the work and are searched for before any is created.
Nothing here knows what a step does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from cxr_tasks import outages
from cxr_tasks.tracking.server import DELETED, client, revive_experiment

TAG_DAG_RUN = "cxr.dag_run"
TAG_WORK = "cxr.work"
TAG_ARTIFACT = "cxr.artifact"
# Why a training was made.
TAG_CAUSE = "cxr.cause"
TAG_STEP = "cxr.step"
# Whether the run shows what another one made, which one did, and how far the work of a run is.
TAG_REUSED, TAG_MADE_BY, TAG_PROGRESS = "cxr.reused", "cxr.made_by", "cxr.progress"
# Of a DAG run: the run that trained its GAN, and those of its trainings (ids with commas), of whichever DAG runs.
TAG_GAN_RUN, TAG_TRAINING_RUNS = "cxr.gan_run", "cxr.training_runs"
# MLflow's own: the name of a run, what people see above runs, and that the runs train models.
TAG_NAME = "mlflow.runName"
TAG_NOTE, EXPERIMENT_KIND = "mlflow.note.content", {"mlflow.experimentKind": "custom_model_development"}
# Why a run failed, and what MLflow itself did not take of what it was told.
TAG_ERROR, TAG_REFUSED = "cxr.error", "cxr.refused"
# MLflow refuses much longer tags.
MOST_ERROR = 5000


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
        """The MLflow run that holds those of its trainings."""


def experiment_id(name: str) -> str:
    """The experiment's id. It is created on first use, also when two tasks try at once, and restored if deleted."""
    from mlflow.exceptions import MlflowException

    server, tags = client(), EXPERIMENT_KIND
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
