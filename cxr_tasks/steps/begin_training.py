"""The beginning of a training: its settings, and the dataset that it works on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cxr_tasks.steps.configure import configure
from cxr_tasks.steps.publish import find_dataset, read_dataset


def begin_training(dag_run: str, form: Mapping[str, Any], events: Sequence[Any] | None) -> dict[str, Any]:
    """Resolve the settings once, and find the dataset that was announced or that the form names.

    Args:
        dag_run: The id of the DAG run.
        form: The fields of the trigger form; ``dataset`` may name a version.
        events: What ``cxr_data`` announced, each with ``timestamp`` and ``extra``, if that started the run.

    Returns:
        ``run`` and ``dataset``, what every step of the run is given.
    """
    filled, dataset = dict(form), None
    # An event that somebody made by hand says nothing: then it is the newest dataset, as without an event.
    if told := [event for event in events or () if "dataset" in event.extra]:
        newest = max(told, key=lambda event: event.timestamp).extra
        filled, dataset = {**filled, **newest["form"]}, read_dataset(newest["dataset"])
    run = configure("cxr_training", dag_run, filled)
    return {"run": run, "dataset": dataset or find_dataset(run, filled.get("dataset") or "")}
