"""What Airflow knows for the page: which runs go on, which questions are open, and what a visitor may do."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from airflow.api_fastapi.app import API_ROOT_PATH, get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.hitl import HITLDetail
from airflow.models.taskinstance import TaskInstance
from sqlalchemy import select

from cxr_tasks.overview.under_way import AirflowFacts, OpenQuestion, RunUnderWay, TaskUnderWay, Visitor

TRAINED_BY, ROLLED_BACK_BY = "cxr_training", "cxr_rollback"
DAGS = ("cxr_data", TRAINED_BY, "cxr_monitor", ROLLED_BACK_BY, "cxr_cleanup")
GOES_ON = ("queued", "running")
TASK_ENDED = ("success", "failed", "skipped", "upstream_failed", "removed")
TASK_UNDER_WAY = ("running", "queued", "up_for_retry", "deferred", "awaiting_input", "restarting")
RUNS_SHOWN = 10


def airflow_facts(session: Any, user: Any) -> AirflowFacts:
    """What the page is told.

    Args:
        session: Of Airflow's database.
        user: Who looks at the page, and may read the runs of ``cxr_training``.
    """
    dags = [dag for dag in DAGS if may(user, "GET", dag)]
    return AirflowFacts(
        root=API_ROOT_PATH,
        runs=tuple(_runs_now(session, dags)),
        questions=tuple(_questions(session)) if may(user, "GET", TRAINED_BY, DagAccessEntity.HITL_DETAIL) else (),
        visitor=Visitor(
            may_train=may(user, "POST", TRAINED_BY),
            may_roll_back=may(user, "POST", ROLLED_BACK_BY),
            may_answer=may(user, "PUT", TRAINED_BY, DagAccessEntity.HITL_DETAIL),
        ),
    )


def may(user: Any, method: str, dag: str, what: DagAccessEntity = DagAccessEntity.RUN) -> bool:
    """Whether Airflow lets ``user`` do that with the runs of a DAG, or with another part of it."""
    details = DagDetails(id=dag, team_name=DagModel.get_team_name(dag))
    return get_auth_manager().is_authorized_dag(method=method, access_entity=what, details=details, user=user)


def _runs_now(session: Any, dags: list[str]) -> Iterator[RunUnderWay]:
    runs = session.execute(
        select(DagRun.dag_id, DagRun.run_id, DagRun.start_date)
        .where(DagRun.dag_id.in_(dags), DagRun.state.in_(GOES_ON))
        .order_by(DagRun.state == "running", DagRun.run_after)
        .limit(RUNS_SHOWN)
    ).all()
    for dag, run, began in runs:
        told = (TaskInstance.task_id, TaskInstance.map_index, TaskInstance.state, TaskInstance.start_date)
        of_run = (TaskInstance.dag_id == dag, TaskInstance.run_id == run)
        tasks = session.execute(select(*told, TaskInstance.rendered_map_index).where(*of_run)).all()
        page = f"{API_ROOT_PATH}dags/{quote(dag)}/runs/{quote(run, safe='')}"
        yield RunUnderWay(
            dag=dag,
            dag_run=run,
            seconds=_seconds_since(began),
            tasks=tuple(_task(task, page) for task in tasks if task.state in TASK_UNDER_WAY),
            done=sum(task.state in TASK_ENDED for task in tasks),
            total=len(tasks),
            failed=tuple(_task_for_people(task) for task in tasks if task.state == "failed"),
            page=page,
        )


def _task(task: Any, page: str) -> TaskUnderWay:
    mapped = f"/mapped/{task.map_index}" if task.map_index >= 0 else ""
    return TaskUnderWay(
        name=_task_for_people(task),
        state=task.state,
        seconds=_seconds_since(task.start_date) if task.state == "running" else None,
        page=f"{page}/tasks/{quote(task.task_id)}{mapped}",
    )


def _task_for_people(task: Any) -> str:
    """What a task is called for people: a mapped one by what it works on."""
    short = task.task_id.rpartition(".")[2]
    return short if task.map_index < 0 else f"{short}: {task.rendered_map_index or task.map_index}"


def _questions(session: Any) -> Iterator[OpenQuestion]:
    rows = session.execute(
        select(TaskInstance.run_id, TaskInstance.task_id, HITLDetail)
        .join(TaskInstance, TaskInstance.id == HITLDetail.ti_id)
        .where(
            TaskInstance.dag_id == TRAINED_BY,
            TaskInstance.state.in_(("awaiting_input", "deferred")),
            HITLDetail.responded_at.is_(None),
        )
        .order_by(HITLDetail.created_at)
        .limit(RUNS_SHOWN)
    ).all()
    for run, task, detail in rows:
        of_run = f"{quote(run, safe='')}"
        page = f"{API_ROOT_PATH}dags/{TRAINED_BY}/runs/{of_run}/tasks/{quote(task)}/required_actions"
        yes, *others = detail.options
        yield OpenQuestion(
            dag_run=run,
            subject=detail.subject,
            models=tuple(_models(detail.params)),
            asked=detail.created_at,
            page=page,
            api=f"{API_ROOT_PATH}api/v2/dags/{TRAINED_BY}/dagRuns/{of_run}/taskInstances/{quote(task)}/-1/hitlDetails",
            yes=yes,
            no=others[0] if others else "",
        )


def _models(params: Any) -> list[str]:
    """The models that a question is about, of the fields of its form."""
    field = (params or {}).get("models")
    given = field.get("value") if isinstance(field, dict) else field
    return [str(model) for model in given or ()]


def _seconds_since(moment: datetime | None) -> float | None:
    return None if moment is None else max(0.0, (datetime.now(UTC) - moment).total_seconds())
