"""Far more tasks than slots wait in their turn."""

from __future__ import annotations

import pytest

from tests.infra.faults.faults import ENDED_WELL, Faults

pytestmark = [pytest.mark.stack, pytest.mark.timeout(3000)]

# The limit of the queue is 900 s, and the waiting here is many times as long as this one.
IMPATIENT = {
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "10",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "5",
}


def test_fifty_tasks_wait_for_one_slot_in_their_pool(faults: Faults) -> None:
    with faults.settings("scheduler", IMPATIENT):
        begun = faults.begin(50, dag="pieces_gpu")
        faults.assert_nothing_lost_or_doubled(begun)

        assert set(faults.tasks(begun)) == {ENDED_WELL} and len(faults.tasks(begun)) == 50
        faults.recovered("50 tasks for one slot of a pool", begun.at)
