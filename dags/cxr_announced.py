"""How a dataset that cxr_data has published comes to its training, also where cxr_training is paused.

Airflow keeps no event of an asset for a DAG that is paused or that it does not know yet. Then a run is queued, which
begins when somebody lets the DAG go on.
"""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from airflow.sdk import get_current_context
from airflow.sdk.exceptions import AirflowRuntimeError, AirflowSkipException, DagRunTriggerException
from cxr_wiring import DATASET, close_left_open, run_state

from cxr_tasks import steps
from cxr_tasks.artifacts import Dataset, RunContext

TRAINING_DAG = "cxr_training"
# How the ids of runs begin that were queued because no event could start them.
OWED = "owed__"
HEARD_KEY = "heard"
# Why a run is made, by its type in Airflow, where no event tells a reason.
CAUSES = {"asset_triggered": "new data", "scheduled": "schedule", "backfill": "backfill"}


def training_form() -> dict[str, Any]:
    """The fields of the form of cxr_data that are passed on."""
    return {name: value for name, value in get_current_context()["params"].items() if name != "source"}


def announce(dataset: Dataset) -> None:
    """Let the event of the asset tell of the dataset, and keep whether cxr_training hears it."""
    context = get_current_context()
    context["outlet_events"][DATASET].extra = {"dataset": dataset.model_dump(mode="json"), "form": training_form()}
    context["ti"].xcom_push(key=HEARD_KEY, value=training_is_paused() is False)


def queue_unless_heard(run: RunContext, dataset: Dataset) -> None:
    """Queue a training, unless the event of the asset starts it, or the same one waits already."""
    ti, form, paused = get_current_context()["ti"], training_form(), training_is_paused()
    if paused is None:
        raise AirflowSkipException(f"Airflow has no DAG {TRAINING_DAG}. The next run of cxr_data announces this again.")
    # It may have been paused or let go on since, and an event is heard at once or never.
    if not paused and ti.xcom_pull(task_ids="publish", key=HEARD_KEY):
        raise AirflowSkipException(f"{TRAINING_DAG} is not paused: the event of the asset starts it.")
    before = steps.queued_training(run, dataset)
    if before and before["form"] == form and run_state(ti, TRAINING_DAG, before["dag_run"]) == "queued":
        raise AirflowSkipException(f"Run {before['dag_run']} of {TRAINING_DAG} waits already, for the same.")
    # An id of its own: a run of before may have ended, and one that has begun must not be begun anew.
    queued = f"{OWED}{dataset.version}__{datetime.now(UTC).isoformat()}"
    steps.note_queued(run, dataset, {"dag_run": queued, "form": form})
    raise DagRunTriggerException(
        trigger_dag_id=TRAINING_DAG,
        dag_run_id=queued,
        conf={**form, "dataset": dataset.version},
        reset_dag_run=False,
        skip_when_already_exists=False,
        wait_for_completion=False,
        allowed_states=["success"],
        failed_states=["failed"],
        poke_interval=60,
        deferrable=False,
    )


def announced_training() -> dict[str, Any]:
    """Begin what was announced, asked for by hand, or is owed from a time when the DAG was paused."""
    context = get_current_context()
    close_left_open(context)
    events, owed = context["triggering_asset_events"].get(DATASET), context["run_id"].startswith(OWED)
    cause = CAUSES.get("asset_triggered" if owed else context["dag_run"].run_type.value, "by hand")
    begun = steps.begin_training(context["run_id"], context["params"], events, cause=cause, only_if_owed=owed)
    if begun is None:
        raise AirflowSkipException("Another run has begun to train on this dataset, or a newer one is published.")
    return begun


def training_is_paused() -> bool | None:
    """Whether cxr_training is paused; ``None`` where Airflow does not know it yet."""
    try:
        return bool(get_current_context()["ti"].get_dag(TRAINING_DAG).is_paused)
    except AirflowRuntimeError as error:
        if (error.error.detail or {}).get("status_code") == HTTPStatus.NOT_FOUND:
            return None
        raise
