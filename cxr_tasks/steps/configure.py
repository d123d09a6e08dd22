"""The beginning of every run: settings are resolved once and kept, and the run's place in MLflow is opened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cxr_tasks import tracking
from cxr_tasks.artifacts import RunContext
from cxr_tasks.config import Settings
from cxr_tasks.filled_form import read_form, settings_of
from cxr_tasks.steps.mlflow_views import VIEWS
from cxr_tasks.store import artifact_ref, open_store

# What people read above the runs of each DAG in MLflow.
EXPERIMENT_NOTES = {
    "cxr_data": "Chest X-rays become datasets: read, held against expectations, and split. Each run has Data Docs.",
    "cxr_training": (
        "Does synthetic augmentation help? Each run trains classifiers with and without it on one dataset, and compares"
        " them on the same real test images. Its answer is its name. Below it stand its trainings. The report is among "
        "the files of the run."
    ),
    "cxr_monitor": "The champion beside the images that came after its dataset: macro F1, and whether they differ.",
}


def configure(dag: str, dag_run: str, form: Mapping[str, Any]) -> RunContext:
    """Resolve the settings once, keep them, and open the MLflow run that holds the DAG run's steps.

    Args:
        dag: The DAG's name; its runs are an MLflow experiment.
        dag_run: The id of the DAG run.
        form: The fields of the trigger form, see :mod:`cxr_tasks.form`.

    Raises:
        SettingsError: The form, the profile or an override is wrong, or names a relative path.
    """
    filled = read_form(dag, form)
    settings = settings_of(filled)
    open_store().sweep()
    ref = keep_settings(settings)
    force = tuple(filled["force"])
    if not tracking.is_on():
        return RunContext(dag_run=dag_run, settings=ref, force=force)
    experiment = tracking.experiment_id(dag)
    tracking.keep_views(experiment, VIEWS.get(dag, ()), EXPERIMENT_NOTES.get(dag, ""))
    identity = {tracking.TAG_DAG_RUN: dag_run, tracking.TAG_WORK: "dag run", tracking.TAG_ARTIFACT: ref}
    run_id = tracking.find_or_create(experiment, dag_run, identity, {"cxr.profile": settings.profile})
    tracking.log_params(settings.flat(), run_id)
    tracking.log_text(settings.to_yaml(), "settings.yaml", run_id)
    return RunContext(
        dag_run=dag_run,
        settings=ref,
        force=force,
        experiment_id=experiment,
        mlflow_run_id=run_id,
        url=tracking.run_url(experiment, run_id),
    )


def keep_settings(settings: Settings) -> str:
    """Keep resolved settings in the store; returns their reference."""
    store, values = open_store(), settings.model_dump(mode="json")
    ref = artifact_ref("settings", 1, values, {})
    if store.take(ref) is None:
        with store.publish(ref, {"step": "settings"}, replace=True) as folder:
            (folder / "settings.json").write_text(json.dumps(values), encoding="utf-8")
    return ref
