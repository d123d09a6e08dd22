"""Which tasks of a DAG run have failed, and why.

A failed task returns nothing. So each task keeps a record of its own, an XCom, from its first line on: what it works
on, and in the end the sentence of its error. A task that is killed leaves the record without a sentence. Which tasks
have failed is asked of Airflow, so that none is overlooked.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from airflow.sdk import get_current_context
from airflow.sdk.exceptions import AirflowSkipException, AirflowTaskTimeout, DagRunTriggerException

from cxr_tasks import steps
from cxr_tasks.artifacts import Comparison, ExternalSet, Failure, Pair, Training

log = logging.getLogger(__name__)

RECORD_KEY = "record"
LEFT_NO_WORD = "The task ended without a word: it was killed, or was not run at all. Its log may say more."
RAN_OUT = (
    "The task ran out of its time (execution_timeout in the DAG). Clear it to give it as much again: a training goes "
    "on from its last checkpoint."
)
ENDED_BY_HAND = "The task was not run: somebody ended the run."
# Skipped, these did not run because a person ended the run: nothing else skips them.
NEVER_SKIPPED = ("split", "verdict.write_report")


@contextmanager
def on_record(step: str, given: Mapping[str, Any]) -> Iterator[None]:
    """Keep a record of the task that runs inside the block.

    Args:
        step: The step that it runs.
        given: The arguments of the step.
    """
    ti = get_current_context()["ti"]
    record = {"step": step, "label": _label(given), "task": ti.task_id, "sentence": "", "link": ti.log_url}
    _keep(ti, record)
    try:
        yield
    except (AirflowSkipException, DagRunTriggerException):
        raise
    except (Exception, AirflowTaskTimeout) as error:
        _keep(ti, record | {"sentence": reason_of(error)})
        raise


def reason_of(error: BaseException | None) -> str:
    """Why a task has failed, in a sentence; ``None``: nothing was raised, or nobody knows."""
    if isinstance(error, AirflowTaskTimeout):
        return RAN_OUT
    return steps.sentence_of(error) if isinstance(error, Exception) else LEFT_NO_WORD


def failures_so_far() -> list[Failure]:
    """The tasks of this DAG run that have failed by now, or that a person kept from running."""
    context = get_current_context()
    ti, run_id = context["ti"], context["run_id"]
    ended = list(ti.get_task_breadcrumbs(ti.dag_id, run_id))
    begun = any(task["task_id"] == "configure" and task["state"] == "success" for task in ended)
    found = []
    for task in ended:
        by_hand = begun and task["state"] == "skipped" and task["task_id"] in NEVER_SKIPPED
        if task["state"] != "failed" and not by_hand:
            continue
        name, index = task["task_id"], task["map_index"]
        kept = ti.xcom_pull(task_ids=name, key=RECORD_KEY, map_indexes=index if index >= 0 else None) or {}
        record = {"step": name.rpartition(".")[2], "task": name, **kept}
        record["sentence"] = record.get("sentence") or (ENDED_BY_HAND if by_hand else LEFT_NO_WORD)
        found.append(Failure(**record))
    return found


def _label(given: Mapping[str, Any]) -> str:
    """What tells the task from other instances of its step."""
    if "arm" in given:
        return Training.model_validate(given["arm"]).label
    if "pair" in given:
        return Pair.model_validate(given["pair"]).label
    if "comparison" in given:
        return Comparison.model_validate(given["comparison"]).name
    if isinstance(external := given.get("external"), Mapping):
        return ExternalSet.model_validate(external).name
    if "name" in given:
        return str(given["name"])
    if "shard" in given:
        return f"shard {given['shard'] + 1}"
    return given["backbone"] + " synthetic" * ("synthetic" in given) if "backbone" in given else ""


def _keep(ti: Any, record: dict[str, str]) -> None:
    try:
        ti.xcom_push(RECORD_KEY, record)
    except Exception:
        # The record is for the report. It must not hide what the task itself has to say.
        log.warning("No record of this task could be kept.", exc_info=True)
