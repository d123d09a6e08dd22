"""Servers that are away while tasks are at work, end and begin: each task is done at its first try."""

from __future__ import annotations

import os
import time

import pytest

from tests.infra.celery_stack import until
from tests.infra.faults.faults import Faults

pytestmark = [pytest.mark.stack, pytest.mark.timeout(3000)]

# Airflow's own defaults end a task after three heartbeats that failed, or when five tries of a request did: half a
# minute. 600 is what is promised; the mechanism is the same.
API_AWAY = int(os.environ.get("CXR_API_AWAY_SECONDS", "60"))
MLFLOW_AWAY = 40


def test_the_api_server_gives_no_answer(faults: Faults) -> None:
    through, within = faults.begin(seconds=API_AWAY + 10), faults.begin(2, API_AWAY // 2)
    faults.at_work(through)
    faults.at_work(within, 2)
    with faults.suspended("api-server"):
        time.sleep(API_AWAY)
    faults.assert_recovered(f"The API server gives no answer for {API_AWAY} s.", through, within, at_the_first_try=True)


def test_nobody_listens_for_the_api_server_when_a_task_begins(faults: Faults) -> None:
    through = faults.begin(seconds=40)
    faults.at_work(through)
    with faults.suspended("worker-gpu"):
        begins = faults.begin(seconds=2, dag="pieces_gpu")
        until(lambda: faults.stack.waiting_in("gpu") == 1, "the task is with Redis")
    with faults.gone("api-server"):
        until(lambda: faults.stack.waiting_in("gpu") == 0, "the worker takes the task")
        time.sleep(35)
    faults.assert_recovered("Nobody listens for the API server.", through, begins, at_the_first_try=True)


def test_mlflow_is_gone(faults: Faults) -> None:
    through, within = faults.begin(seconds=MLFLOW_AWAY + 10), faults.begin(2, 20)
    faults.at_work(through)
    faults.at_work(within, 2)
    with faults.gone("mlflow"):
        time.sleep(MLFLOW_AWAY)
    faults.assert_recovered(f"MLflow is gone for {MLFLOW_AWAY} s.", through, within, at_the_first_try=True)


def test_redis_is_killed_while_tasks_wait_in_it(faults: Faults) -> None:
    at_work = faults.begin(seconds=20, dag="pieces_gpu")
    faults.at_work(at_work)
    with faults.suspended("worker-cpu"):
        waits = faults.begin(2)
        until(lambda: faults.stack.waiting_in("default") > 0, "a task is with Redis")
        # Redis writes once a second what it is to keep.
        time.sleep(2)
        with faults.gone("redis"):
            time.sleep(5)
    faults.assert_recovered("Redis is killed with tasks in it.", at_work, waits, at_the_first_try=True)
