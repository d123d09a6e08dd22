"""Servers that are away while tasks are at work, end and begin: each task is done at its first try."""

from __future__ import annotations

import os
import time

import pytest

from tests.infra.faults.faults import Faults

pytestmark = [pytest.mark.stack, pytest.mark.timeout(3000)]

# Airflow's own defaults end a task after three heartbeats that failed, or when five tries of a request did: half a
# minute. 600 is what is promised; the mechanism is the same.
API_AWAY = int(os.environ.get("CXR_API_AWAY_SECONDS", "90"))
MLFLOW_AWAY = 120


def test_the_api_server_gives_no_answer(faults: Faults) -> None:
    through, within = faults.begin(seconds=API_AWAY + 20), faults.begin(2, API_AWAY // 2)
    faults.at_work(through)
    faults.at_work(within, 2)
    with faults.suspended("api-server"):
        time.sleep(API_AWAY)
    faults.assert_done_at_the_first_try(within, through, f"the API server gives no answer for {API_AWAY} s")


def test_nobody_listens_for_the_api_server_when_a_task_begins(faults: Faults) -> None:
    through = faults.begin(seconds=60)
    faults.at_work(through)
    with faults.suspended("worker-gpu"):
        begins = faults.begin(seconds=2, dag="pieces_gpu")
        faults.until(lambda: faults.stack.waiting_in("gpu") == 1, "the task is with Redis")
    with faults.gone("api-server"):
        faults.until(lambda: faults.stack.waiting_in("gpu") == 0, "the worker takes the task")
        time.sleep(45)
    faults.healthy()
    faults.assert_done_at_the_first_try(begins, through, "the API server is gone when a task begins")


def test_mlflow_is_gone_for_two_minutes(faults: Faults) -> None:
    through, within = faults.begin(seconds=MLFLOW_AWAY + 20), faults.begin(2, 30)
    faults.at_work(through)
    faults.at_work(within, 2)
    faults.stack.kill("mlflow")
    time.sleep(MLFLOW_AWAY)
    faults.stack.serve_mlflow()
    faults.assert_done_at_the_first_try(within, through, f"MLflow is gone for {MLFLOW_AWAY} s")


def test_redis_is_killed_while_tasks_wait_in_it(faults: Faults) -> None:
    at_work = faults.begin(seconds=20, dag="pieces_gpu")
    faults.at_work(at_work)
    with faults.suspended("worker-cpu"):
        waits = faults.begin(2)
        faults.until(lambda: faults.stack.waiting_in("default") > 0, "a task is with Redis")
        # Redis writes once a second what it is to keep.
        time.sleep(2)
        faults.stack.kill("redis")
        time.sleep(5)
        faults.stack.start_redis()
    faults.assert_done_at_the_first_try(at_work, waits, "Redis is killed, and back after 5 s")
