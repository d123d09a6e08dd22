"""The beginning of a training: its settings, and the dataset that it works on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from cxr_tasks import tracking
from cxr_tasks.artifacts import Dataset, RunContext
from cxr_tasks.errors import SettingsError
from cxr_tasks.estimate.ask import known_forecast
from cxr_tasks.pipeline import load_settings
from cxr_tasks.steps.configure import configure
from cxr_tasks.steps.publish import find_dataset, note_begun, read_dataset

log = logging.getLogger(__name__)

# What an event of the asset may tell.
TOLD = ("dataset", "form", "reason")


def begin_training(
    dag_run: str,
    form: Mapping[str, Any],
    events: Sequence[Any] | None,
    *,
    cause: str = "by hand",
    only_if_owed: bool = False,
) -> dict[str, Any] | None:
    """Resolve the settings once, and find the dataset that was announced or that the form names.

    An event that tells nothing, as one that somebody made by hand, starts a training on the newest dataset, and so
    does a run without an event. From here on the training of this dataset is not owed any more.

    Args:
        dag_run: The id of the DAG run.
        form: The fields of the trigger form; ``dataset`` may name a version.
        events: What ``cxr_data`` or ``cxr_monitor`` announced, each with ``timestamp`` and ``extra``, if that started
            the run.
        cause: Why the run is made, where no event tells a reason. MLflow keeps it as the tag ``cxr.cause``.
        only_if_owed: The run was queued, and begins only where it is still owed.

    Returns:
        ``run`` and ``dataset``, what every step of the run is given; ``None`` where no training is owed.

    Raises:
        SettingsError: The form, or what an event tells, is wrong.
        DataError: There is no such dataset.
    """
    told = _told_by(events)
    filled = {**form, **_mapping(told.get("form", {}))}
    announced = told.get("dataset")
    run = configure("cxr_training", dag_run, filled)
    by_cxr_data = isinstance(announced, Mapping)
    tracking.set_tags({tracking.TAG_CAUSE: str(told.get("reason") or cause)}, run.mlflow_run_id)
    dataset = read_dataset(announced) if by_cxr_data else find_dataset(run, announced or filled.get("dataset") or "")
    if not note_begun(run, dataset, only_if_owed=only_if_owed, announced=by_cxr_data):
        return None
    _tell_estimate(run, dataset)
    return {"run": run, "dataset": dataset}


def _tell_estimate(run: RunContext, dataset: Dataset) -> None:
    """Say in the log how long the training will take, where that was measured: this task measures nothing itself."""
    told = known_forecast(load_settings(run), dataset.counts)
    log.info("%s", told.sentence if told else "How long this takes is not known here: cxr estimate measures it.")


def _told_by(events: Sequence[Any] | None) -> Mapping[str, Any]:
    """What the newest event that tells anything tells."""
    newest: Mapping[str, Any] = {}
    for event in sorted(events or (), key=lambda event: event.timestamp):
        extra = event.extra or {}
        for name in extra:
            # Airflow has words of its own there, so only what looks like one of ours is refused.
            if name not in TOLD and (close := get_close_matches(str(name), TOLD, n=1)):
                raise SettingsError(
                    f"The event of the asset cxr_dataset tells {name!r}, which nobody reads: did you mean {close[0]!r}?"
                )
        if any(name in extra for name in TOLD):
            newest = extra
    dataset = newest.get("dataset", "")
    if not isinstance(dataset, str | Mapping):
        raise SettingsError(
            "The event of the asset cxr_dataset is to tell a dataset's version, or nothing, "
            f"and not {type(dataset).__name__} {dataset!r}."
        )
    return newest


def _mapping(form: Any) -> Mapping[str, Any]:
    if not isinstance(form, Mapping):
        raise SettingsError(
            f"The event of the asset cxr_dataset tells the form {form!r}: "
            'give an object, such as {"profile": "quick"}.'
        )
    return form
