"""What the stack in a folder does now, and what its last run said."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from cxr_tasks.overview.mlflow_api import MlflowAwayError
from cxr_tasks.overview.under_way import WorkUnderWay
from cxr_tasks.registry.champions import CHAMPION
from infra.embedded.airflow_api import AirflowApi
from infra.embedded.bars import far_in_mlflow, mlflow_at
from infra.embedded.run import LAST_RUN, task_name
from infra.embedded.stack import STATE_FILE, StackError, is_runner_alive

# Somebody waits for the answer at a terminal.
PATIENCE_AT_TERMINAL = 5.0
UNDER_WAY = {"running", "queued", "scheduled", "up_for_retry", "deferred", "awaiting_input"}


@dataclass(frozen=True)
class TaskNow:
    """A task that is under way. ``seconds``: since it began, ``None`` while it waits."""

    task: str
    state: str
    seconds: float | None


@dataclass(frozen=True)
class RunNow:
    """A DAG run.

    Attributes:
        dag: The DAG's id.
        run: The run's id.
        state: ``queued``, ``running``, ``success`` or ``failed``.
        seconds: Since it began, or what it took.
        tasks: How many tasks are in each state.
        under_way: The tasks that run, wait for their turn, or are to be tried again.
        failed: The names of those that have failed.
        page: Where people see it.
    """

    dag: str
    run: str
    state: str
    seconds: float | None
    tasks: dict[str, int]
    under_way: list[TaskNow]
    failed: list[str]
    page: str


@dataclass(frozen=True)
class ChampionNow:
    """A model that is champion. ``page``: where people see its version."""

    model: str
    version: str
    page: str


@dataclass(frozen=True)
class StackStatus:
    """What is known of the stack in a folder.

    Attributes:
        home: The folder.
        up: Whether the stack is up.
        answers: Whether Airflow answers, which takes it some time after its start.
        runner: The process that keeps the stack up.
        airflow: Airflow's address.
        mlflow: MLflow's address.
        runs: What runs now; where nothing does, the newest run of each DAG.
        last_run: What the last run said when it ended; ``None`` where none has ended.
        progress: How far the tasks are that say so.
        champions: Of each registered model; ``None`` where MLflow does not answer.
    """

    home: str
    up: bool
    answers: bool = False
    runner: int | None = None
    airflow: str = ""
    mlflow: str = ""
    runs: list[RunNow] = field(default_factory=list)
    last_run: dict[str, Any] | None = None
    progress: list[WorkUnderWay] = field(default_factory=list)
    champions: list[ChampionNow] | None = None


def stack_status(home: Path, *, ask: bool = True) -> StackStatus:
    """Whether the stack in ``home`` is up, and what it does.

    Args:
        home: Where databases, logs and artifacts of the stack live.
        ask: Whether Airflow is asked what it does.

    Raises:
        StackError: There is no such folder.
    """
    home = home.expanduser().absolute()
    if not home.is_dir():
        raise StackError(f"Nothing was ever run in {home}: start with make run, or name another folder with --home.")
    last_run = _parsed(home / LAST_RUN)
    state = _parsed(home / STATE_FILE)
    if state is None or not is_runner_alive(state):
        return StackStatus(str(home), up=False, last_run=last_run)
    told = StackStatus(str(home), True, False, state["runner"], state.get("airflow", ""), state.get("mlflow", ""))
    told = replace(told, last_run=last_run)
    return _asked(told) if ask else told


def status_of(airflow: str, mlflow: str, account: tuple[str, str] | None = None) -> StackStatus:
    """What Airflow and MLflow at these addresses say. Either may be empty; then it is not asked.

    Args:
        airflow: Address of Airflow.
        mlflow: Address of MLflow.
        account: Name and password for Airflow, where it asks for them.

    Raises:
        StackError: Airflow does not answer, or does not know the account.
    """
    told = _asked(StackStatus("", up=True, airflow=airflow.rstrip("/"), mlflow=mlflow.rstrip("/")), account)
    if airflow and not told.answers:
        raise StackError(
            f"Airflow does not answer at {airflow}, or does not know the account: correct the address, or set "
            "AIRFLOW_USERNAME and AIRFLOW_PASSWORD."
        )
    if mlflow and told.champions is None:
        raise StackError(f"MLflow does not answer at {mlflow}, or does not know the account: correct the address.")
    return told


def _asked(told: StackStatus, account: tuple[str, str] | None = None) -> StackStatus:
    """What the servers say, too; a server that is away is left out."""
    if told.airflow:
        # What answers with another page, as a proxy does, is no Airflow.
        with suppress(httpx.HTTPError, ValueError, KeyError):
            told = replace(told, runs=_runs(AirflowApi(told.airflow, PATIENCE_AT_TERMINAL, account)), answers=True)
    if told.mlflow:
        with suppress(MlflowAwayError):
            told = replace(told, champions=_champions_in_mlflow(told.mlflow), progress=far_in_mlflow(told.mlflow))
    return told


def _champions_in_mlflow(address: str) -> list[ChampionNow]:
    models = mlflow_at(address).get("registered-models/search", max_results=200).get("registered_models", [])
    found = [
        ChampionNow(model["name"], alias["version"], f"{address}/#/models/{model['name']}/versions/{alias['version']}")
        for model in models
        for alias in model.get("aliases", [])
        if alias["alias"] == CHAMPION
    ]
    return sorted(found, key=lambda each: each.model)


def _parsed(path: Path) -> dict[str, Any] | None:
    """The JSON file at ``path``; ``None`` where there is none that can be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _runs(api: AirflowApi) -> list[RunNow]:
    dags = sorted(api.dags())
    found = [(dag, run) for dag in dags for run in api.unfinished_runs(dag)]
    if not found:
        newest = [(dag, api.newest_run(dag)) for dag in dags]
        found = [(dag, run) for dag, run in newest if run is not None]
    return [_run_now(api, dag, run) for dag, run in found]


def _run_now(api: AirflowApi, dag: str, run: dict[str, Any]) -> RunNow:
    tasks = api.tasks(dag, run["dag_run_id"])
    return RunNow(
        dag=dag,
        run=run["dag_run_id"],
        state=run["state"],
        seconds=_seconds_between(run["start_date"], run["end_date"]),
        tasks=dict(Counter(task["state"] or "waiting" for task in tasks)),
        under_way=[
            TaskNow(task_name(task), task["state"], _seconds_between(task["start_date"], None))
            for task in tasks
            if task["state"] in UNDER_WAY
        ],
        failed=[task_name(task) for task in tasks if task["state"] == "failed"],
        page=f"{api.url}/dags/{dag}/runs/{run['dag_run_id']}",
    )


def _seconds_between(start: str | None, end: str | None) -> float | None:
    """Seconds from ``start`` to ``end``, or to now."""
    if start is None:
        return None
    until = datetime.fromisoformat(end) if end else datetime.now(UTC)
    return round((until - datetime.fromisoformat(start)).total_seconds(), 1)
