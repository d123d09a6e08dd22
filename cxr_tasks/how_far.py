"""How far work is, told to MLflow while it goes on, so that pages can say how long it still takes."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from pydantic import ValidationError

from cxr_tasks import tracking
from cxr_tasks.strict import Strict

# A training of a few seconds is told of twice, one of a week thousands of times.
TOLD_AGAIN_AFTER = 10.0


class HowFar(Strict):
    """How far work is.

    Attributes:
        work: What it is, in words.
        done: How many parts are done.
        total: How many there are.
        first: How many were done when this sitting had done its first one.
        since: When that was.
        at: When this was told.
    """

    work: str
    done: int
    total: int
    first: int
    since: datetime
    at: datetime

    @property
    def seconds_left(self) -> float | None:
        """What is left at the pace of this sitting, as of ``at``; ``None`` where there is no pace yet."""
        done, seconds = self.done - self.first, (self.at - self.since).total_seconds()
        return None if done <= 0 or seconds <= 0 else max(0.0, (self.total - self.done) * seconds / done)


class Teller:
    """A listener of :mod:`cxr_tasks.progress` that tags the active MLflow run."""

    def __init__(self) -> None:
        """Nothing is told yet."""
        self._said: dict[str, HowFar] = {}
        self._next = 0.0

    def __call__(self, work: str, done: int, total: int) -> None:
        """Tell that ``done`` of ``total`` parts of ``work`` are done, unless something was told just now."""
        now, before = datetime.now(UTC), self._said.get(work)
        first, since = (before.first, before.since) if before and before.first <= done else (done, now)
        told = HowFar(work=work, done=done, total=total, first=first, since=since, at=now)
        self._said[work] = told
        if time.monotonic() >= self._next or done >= total:
            self._next = time.monotonic() + TOLD_AGAIN_AFTER
            tracking.tell_progress(told.model_dump_json())


def read_how_far(tag: str) -> HowFar | None:
    """What the tag of a run says; ``None`` where there is none, or another program wrote it."""
    try:
        return HowFar.model_validate_json(tag)
    except ValidationError:
        return None
