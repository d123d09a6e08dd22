"""What breaks where there are several machines: Airflow of docker-compose.yaml, real PostgreSQL, Redis and workers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.infra.celery_stack import SOON, CeleryStack, at_work, missing, shows_secrets, until
from tests.infra.compose import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.airflow, pytest.mark.skipif(bool(missing()), reason=missing() or "-")]

DAG = """
import sys, time
from pathlib import Path
from airflow.sdk import dag, get_current_context
from cxr_wiring import DEFAULT_ARGS, heavy

@dag(dag_id="work", schedule=None, default_args=DEFAULT_ARGS)
def work():
    def train_gan():
        dag_run, ti = (get_current_context()[name] for name in ("dag_run", "ti"))
        with Path(MARKS, dag_run.run_id).open("a") as marks:
            marks.write(f"{ti.hostname}\\n")
        if {"tensorflow", "cxr_tasks.steps.train_arm"} <= set(sys.modules):
            Path(MARKS, "imported").touch()
        # A second try goes on from where the first one was.
        time.sleep(dag_run.conf["seconds"] if ti.try_number == 1 else 0)
    heavy(train_gan, "gan")()

work()
"""


class Work:
    """The stack with a DAG whose one task holds the one slot of the GPU."""

    def __init__(self, folder: Path) -> None:
        self.marks, dags = folder / "marks", folder / "dags"
        for made in (self.marks, dags):
            made.mkdir()
        (dags / "work.py").write_text(DAG.replace("MARKS", repr(str(self.marks))), encoding="utf-8")
        self.stack = CeleryStack(folder / "stack", dags, PYTHONPATH=f"{ROOT / 'dags'}:{ROOT}", **SOON)

    def begin(self, seconds: float) -> str:
        return self.api.trigger("work", {"seconds": seconds})

    def tries_once_ended(self, run: str, seconds: float = 240) -> tuple[str, int]:
        """The state and the number of tries of a run's task, once it has ended."""

        def ended() -> list[tuple[str, int]]:
            tasks = [(task["state"], task["try_number"]) for task in self.api.tasks("work", run)]
            return [task for task in tasks if task[0] in ("success", "failed")]

        (task,) = until(ended, f"{run} ends", seconds)
        return task

    @contextmanager
    def begun_without_a_worker(self) -> Iterator[str]:
        """A run whose task waits in Redis; its worker goes on afterwards."""
        # A worker that still has to note a result in PostgreSQL would take no further task.
        until(lambda: self.stack.unfinished() == 0, "the worker has noted what it ended")
        with self.stack.suspended("worker-gpu"):
            # What it asked Redis last ends after a second.
            time.sleep(2)
            run = self.begin(0)
            until(lambda: self.stack.waiting_in("gpu") == 1, "the task is with Redis")
            yield run

    def hosts(self, run: str) -> list[str]:
        """Where the task was at work, at each try."""
        mark = self.marks / run
        return mark.read_text().split() if mark.is_file() else []


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("celery")
    working = Work(folder)
    with at_work(working.stack, ["work"]) as (_, working.api):
        # The worker is there once it has done something.
        assert working.tries_once_ended(working.begin(0)) == ("success", 1)
        yield working


def test_a_task_for_the_gpu_is_done_by_its_worker(work):
    run = work.begin(0)

    assert work.tries_once_ended(run) == ("success", 1)
    assert work.hosts(run) == ["worker-gpu"]
    # Its worker has imported what tasks need: none spends seconds on that.
    assert (work.marks / "imported").is_file()


def test_a_task_that_a_worker_takes_while_postgresql_is_away_is_not_lost(work):
    with ExitStack() as meanwhile:
        with work.begun_without_a_worker() as run:
            meanwhile.enter_context(work.stack.gone("postgres"))
        until(lambda: work.stack.waiting_in("gpu") == 0, "the worker takes the task")
        time.sleep(6)

    assert work.tries_once_ended(run) == ("success", 1)
    assert work.hosts(run) == ["worker-gpu"]


def test_a_task_that_the_scheduler_did_not_send_before_it_was_killed_is_handed_out_anew(work):
    with work.begun_without_a_worker() as run, work.stack.suspended("scheduler"):
        work.stack.forget("gpu")
        work.stack.kill("scheduler")

    # The limit of the queue is 900 s.
    assert work.tries_once_ended(run)[0] == "success"
    assert work.hosts(run) == ["worker-gpu"]


def test_a_task_that_was_sent_before_the_scheduler_was_killed_is_done_once(work):
    def adoptions() -> int:
        return work.stack.services["scheduler"].log.read_text().count("Adopted the following 1 tasks")

    before = adoptions()
    with work.begun_without_a_worker() as run:
        work.stack.kill("scheduler")
        until(lambda: adoptions() > before, "the next scheduler takes it over")

    assert work.tries_once_ended(run) == ("success", 1)
    assert work.hosts(run) == ["worker-gpu"]


def test_a_worker_that_was_killed_leaves_no_slot_taken(work):
    killed, waiting = work.begin(600), work.begin(0)
    until(lambda: work.hosts(killed), "the first task is at work")
    work.stack.kill("worker-gpu")

    # The limit of the heartbeat is 900 s.
    assert work.tries_once_ended(killed, 300) == ("success", 2)
    assert work.tries_once_ended(waiting, 60) == ("success", 1)
    assert work.hosts(killed) == ["worker-gpu", "worker-gpu"]


def test_no_secret_shows_in_the_list_of_processes_or_in_a_log(work):
    arguments, said = work.stack.arguments(), work.stack.said()

    assert {place.split()[0] for place in arguments} == set(work.stack.services)
    assert any("attempt=1" in place for place in said) and any("worker-gpu" in place for place in said)
    assert shows_secrets(arguments) == shows_secrets(said) == []
