"""The beginning of every run: settings are resolved once and kept, and the run's place in MLflow is opened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cxr_tasks import tracking
from cxr_tasks.config import merge, resolve
from cxr_tasks.execution import RunContext
from cxr_tasks.store import artifact_ref, open_store

# Fields of the trigger form and the settings that they are.
FIELDS = {
    "classifiers": "classifiers.names",
    "baseline": "arms.baseline",
    "arms": "arms.compared",
    "seeds": "classifiers.seeds",
    "gan_epochs": "gan.epochs",
    "reproduce_leak": "evaluation.reproduce_leak",
}


def form_overrides(form: Mapping[str, Any]) -> dict[str, Any]:
    """Settings from the fields of the trigger form that were filled in; its ``settings`` field has the last word."""
    overrides: dict[str, Any] = {}
    for field, path in FIELDS.items():
        if form.get(field) not in (None, []):
            section, name = path.split(".")
            overrides = merge(overrides, {section: {name: form[field]}})
    if form.get("synthetic_per_class") is not None:
        # Of the run, not of the profile: the form's last field may add one.
        classes = resolve(form["profile"], merge(overrides, form.get("settings") or {})).data.classes
        counts = dict.fromkeys(classes, form["synthetic_per_class"])
        overrides = merge(overrides, {"synthetic": {"counts": counts}})
    return merge(overrides, form.get("settings") or {})


def configure(dag: str, dag_run: str, form: Mapping[str, Any]) -> RunContext:
    """Resolve the settings once, keep them, and open the MLflow run that holds the DAG run's steps.

    Raises:
        SettingsError: the profile or an override is wrong.
    """
    settings = resolve(form["profile"], form_overrides(form))
    values = settings.model_dump(mode="json")
    store = open_store()
    ref = artifact_ref("settings", 1, values, {})
    if store.record(ref) is None:
        with store.publish(ref, {"step": "settings"}) as folder:
            (folder / "settings.json").write_text(json.dumps(values), encoding="utf-8")

    experiment = tracking.experiment_id(dag)
    parent = tracking.find_or_create(
        experiment,
        dag_run,
        {tracking.TAG_DAG_RUN: dag_run, tracking.TAG_WORK: "dag run", tracking.TAG_ARTIFACT: ref},
        {"cxr.profile": settings.profile},
    )
    server = tracking.client()
    for name, value in settings.flat().items():
        if value not in (None, ""):
            server.log_param(parent.info.run_id, name, value)
    server.log_text(parent.info.run_id, settings.to_yaml(), "settings.yaml")
    return RunContext(
        dag_run=dag_run,
        settings=ref,
        force=list(form.get("force") or []),
        experiment_id=experiment,
        mlflow_run_id=parent.info.run_id,
        url=tracking.run_url(experiment, parent.info.run_id),
    )
