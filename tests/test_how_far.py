"""How far work is, as MLflow is told while it goes on."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from cxr_tasks import how_far, progress, tracking
from cxr_tasks.artifacts import RunContext
from cxr_tasks.how_far import HowFar, Teller, read_how_far

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def told(done: int, seconds: float, first: int = 0) -> HowFar:
    at = BEGAN + timedelta(seconds=seconds)
    return HowFar(work="x", done=done, total=40, first=first, since=BEGAN, at=at)


def test_what_is_left_is_at_the_pace_of_this_sitting() -> None:
    # 10 parts in 50 seconds: 25 more take 125. What an earlier sitting did says nothing of the pace.
    assert told(done=15, first=5, seconds=50).seconds_left == 125
    assert told(done=5, first=5, seconds=50).seconds_left is None
    assert told(done=40, seconds=50).seconds_left == 0


@pytest.mark.parametrize("tag", ["", "{}", "nonsense", "[1]"])
def test_what_another_program_wrote_is_none(tag: str) -> None:
    assert read_how_far(tag) is None


@pytest.mark.slow
def test_a_run_says_how_far_it_is(new_run: Callable[..., RunContext], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(how_far, "TOLD_AGAIN_AFTER", 0.0)
    run = new_run()
    with tracking.step_run(run, "train_gan", "train_gan/1", {}) as run_id, progress.listening(Teller()):
        progress.advance("GAN training", 10, 40)
        progress.advance("GAN training", 20, 40)

    found = read_how_far(tracking.client().get_run(run_id).data.tags[tracking.TAG_PROGRESS])

    assert found is not None and (found.work, found.first, found.done, found.total) == ("GAN training", 10, 20, 40)


def test_work_outside_of_a_run_tells_nobody() -> None:
    with progress.listening(Teller()):
        progress.advance("images", 1, 2)
