"""Servers and workers are killed, told to end, cut off, or have another time, while tasks are at work."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.infra.celery_stack import until
from tests.infra.faults.clock import Clock, cannot_jump
from tests.infra.faults.cut import cannot_cut
from tests.infra.faults.faults import Begun, Faults

pytestmark = [pytest.mark.stack, pytest.mark.timeout(3000)]


def both_at_work(faults: Faults, seconds: int = 20) -> tuple[Begun, Begun]:
    """A run on each worker; the GPU's worker has a task at work and one that waits."""
    runs = faults.begin(2, seconds, dag="pieces_gpu"), faults.begin(2, seconds)
    for begun in runs:
        faults.at_work(begun, saved=3)
    return runs


@pytest.mark.parametrize("service", ["worker-gpu", "scheduler"])
def test_what_is_started_again_at_once_is_killed(faults: Faults, service: str) -> None:
    runs = both_at_work(faults)
    faults.kill(service)
    faults.assert_recovered(f"SIGKILL of {service}.", *runs)
    # No checkpoint is lost.
    again = [second for _, second in faults.marks(runs[0], "begun")]
    assert len(again) == 2 if service == "scheduler" else max(again) >= 3


@pytest.mark.parametrize("service", ["redis", "postgres"])
def test_what_keeps_the_state_of_tasks_is_killed(faults: Faults, service: str) -> None:
    runs = both_at_work(faults)
    with faults.gone(service):
        time.sleep(5)
    faults.assert_recovered(f"SIGKILL of {service}, which is back after 5 s.", *runs)


def test_a_worker_that_is_told_to_end_lets_short_tasks_end(faults: Faults) -> None:
    begun = faults.begin(seconds=10, dag="pieces_gpu")
    faults.at_work(begun, saved=1)
    faults.terminate("worker-gpu")
    faults.assert_recovered("SIGTERM of a worker, whose task ends in time.", begun, at_the_first_try=True)


def test_a_worker_that_is_told_to_end_leaves_a_checkpoint_of_long_tasks(faults: Faults) -> None:
    begun = faults.begin(seconds=40, dag="pieces_gpu")
    faults.at_work(begun, saved=3)
    worker = faults.terminate("worker-gpu")
    # What Docker does when the time is over (stop_grace_period).
    time.sleep(5)
    assert worker.poll() is None
    faults.kill("worker-gpu")
    faults.assert_recovered("SIGTERM of a worker, and SIGKILL before its task has ended.", begun)
    (_, first), (_, second) = faults.marks(begun, "begun")
    assert first == 0 and second >= 5


@pytest.mark.skipif(bool(cannot_cut()), reason=cannot_cut() or "-")
def test_a_worker_is_cut_off_from_everything(faults: Faults) -> None:
    begun = faults.begin(seconds=60, dag="pieces_gpu")
    faults.at_work(begun, saved=1)
    with faults.cut_off():
        time.sleep(40)
    faults.assert_recovered("A worker is cut off for 40 s.", begun, at_the_first_try=True)


@pytest.mark.skipif(bool(cannot_cut()), reason=cannot_cut() or "-")
def test_a_worker_is_cut_off_for_longer_than_its_task_may_be_silent(faults: Faults) -> None:
    with faults.settings("scheduler", {"AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20"}):
        begun = faults.begin(seconds=100, dag="pieces_gpu")
        faults.at_work(begun, saved=3)
        with faults.cut_off():
            until(lambda: faults.tasks(begun) != [("running", 1)], "the task is taken for dead")
        faults.assert_recovered("A worker is cut off until its task is taken for dead.", begun)
    assert max(second for _, second in faults.marks(begun, "begun")) >= 3


@pytest.mark.skipif(bool(cannot_jump()), reason=cannot_jump() or "-")
def test_the_clock_of_a_worker_jumps_an_hour_ahead_and_back(faults: Faults, tmp_path: Path) -> None:
    clock = Clock(tmp_path)
    with faults.settings("worker-gpu", clock.variables):
        runs = both_at_work(faults, 30)
        with faults.ending():
            clock.jump(3600)
            time.sleep(20)
            clock.jump(0)
        faults.assert_recovered("The clock of worker-gpu jumps an hour ahead, and back after 20 s.", *runs)


@pytest.mark.skipif(bool(cannot_jump()), reason=cannot_jump() or "-")
def test_the_clock_of_the_scheduler_jumps_an_hour_ahead_and_back(faults: Faults, tmp_path: Path) -> None:
    clock = Clock(tmp_path)
    with faults.settings("scheduler", clock.variables):
        runs = both_at_work(faults, 30)
        clock.jump(3600)
        # Nobody has heard of them for an hour. They are to be tried again a moment later: in an hour, that is.
        until(lambda: {"up_for_retry"} == {state for state, _ in faults.tasks(runs[1])}, "tasks are taken for dead")
        with faults.ending():
            clock.jump(0)
            for begun in runs:
                faults.clear(begun)
        faults.assert_recovered("The clock of scheduler jumps an hour ahead, and back. Runs are cleared.", *runs)
    assert max(second for _, second in faults.marks(runs[1], "begun")) >= 3
