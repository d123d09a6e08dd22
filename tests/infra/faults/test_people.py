"""What people do to runs that are at work, and what a limit of time does."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.infra.celery_stack import until
from tests.infra.faults.faults import Faults

pytestmark = [pytest.mark.stack, pytest.mark.timeout(3000)]


def test_two_alike_are_triggered_at_once(faults: Faults) -> None:
    name = uuid.uuid4().hex[:8]
    with ThreadPoolExecutor(2) as together:
        runs = list(together.map(lambda _: faults.begin(2, 5, name=name), range(2)))
    faults.assert_recovered("Two runs alike at once.", *runs, at_the_first_try=True)
    pieces = [run for begun in runs for run in faults.mlflow_runs(begun) if "cxr.reused" in run.data.tags]
    assert sorted(run.data.tags["cxr.reused"] for run in pieces) == ["false", "false", "true", "true"]


def test_a_run_is_cleared_in_the_middle(faults: Faults) -> None:
    begun = faults.begin(2, 20)
    faults.at_work(begun, 2, saved=4)
    with faults.ending():
        faults.clear(begun)
    faults.assert_recovered("A run is cleared while its tasks are at work.", begun)
    assert max(second for _, second in faults.marks(begun, "begun")) >= 3


def test_a_task_takes_longer_than_its_limit(faults: Faults) -> None:
    longer, endless = (faults.begin(seconds=seconds, dag="pieces_limited") for seconds in (20, 45))

    faults.assert_nothing_lost_or_doubled(longer)
    assert faults.tasks(longer)[0][1] > 1 and max(second for _, second in faults.marks(longer, "begun")) > 5
    assert faults.ended(endless) == "failed"
    assert faults.sentence(endless).startswith("The task ran out of its time (execution_timeout in the DAG). Clear it")
    # Cleared, it goes on from its checkpoint.
    far = faults.saved_seconds(endless)
    with faults.ending():
        faults.clear(endless)
    until(lambda: max(second for _, second in faults.marks(endless, "begun")) >= far, "it goes on")
    faults.assert_recovered("A task takes longer than its limit.", endless)
