"""Far more tasks than slots wait in their turn."""

from __future__ import annotations

import pytest

from tests.infra.faults.faults import ENDED_WELL, Faults

pytestmark = [pytest.mark.stack, pytest.mark.timeout(3000)]

# The limit of the queue is 900 s, and the waiting here is many times as long as this one. By itself Airflow fails what
# was handed out three times.
IMPATIENT = {
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "10",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "5",
}
TASKS = 12


def test_tasks_are_handed_out_again_as_often_as_they_must_wait(faults: Faults) -> None:
    with faults.one_slot("worker-cpu"), faults.settings("scheduler", IMPATIENT):
        begun = faults.begin(TASKS, 4)
        faults.assert_nothing_lost_or_doubled(begun)
        assert faults.requeued(begun) > 2

    assert faults.tasks(begun) == [ENDED_WELL] * TASKS
    faults.told.append({"tasks": TASKS, "handed out again": faults.requeued(begun)})
