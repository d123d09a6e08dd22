"""The times of one sitting of a training: how fast it is, how long it will take, what is due."""

from __future__ import annotations

import time

PROGRESS_SECONDS = 10.0


class Clock:
    """Starts when it is made.

    Args:
        first_step: where this sitting begins. batch: images a step. before: seconds that earlier sittings took.
    """

    def __init__(self, first_step: int, batch: int, before: float) -> None:
        self.batch, self.before = batch, before
        self._started = self._spoken = self._saved = self._measured_from = time.monotonic()
        self._measured_step = first_step
        self._first_call: tuple[float, int] | None = None

    def call_ended(self, step: int) -> None:
        """Speed is measured from the end of the first call, which compiles, where a second one has been."""
        if self._first_call is None:
            self._first_call = time.monotonic(), step
        elif self._measured_from == self._started:
            self._measured_from, self._measured_step = self._first_call

    def speed(self, step: int) -> float:
        """Images a second."""
        return (step - self._measured_step) * self.batch / max(time.monotonic() - self._measured_from, 1e-9)

    def seconds_left(self, step: int, total: int) -> float:
        """Until ``total``, at the present speed."""
        return (total - step) * self.batch / self.speed(step)

    def is_time_to_speak(self) -> bool:
        """True once every ten seconds."""
        now = time.monotonic()
        if now - self._spoken < PROGRESS_SECONDS:
            return False
        self._spoken = now
        return True

    def this_sitting(self) -> float:
        """Seconds since this sitting began."""
        return time.monotonic() - self._started

    def all_sittings(self) -> float:
        """Seconds of training, earlier sittings counted in."""
        return self.before + self.this_sitting()

    def since_checkpoint(self) -> float:
        """Seconds since the last :meth:`checkpoint_written`."""
        return time.monotonic() - self._saved

    def checkpoint_written(self) -> None:
        """The next checkpoint is counted from now."""
        self._saved = time.monotonic()


def duration(seconds: float) -> str:
    """For people: seconds up to an hour and a half, then hours."""
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{seconds:.0f} s"
