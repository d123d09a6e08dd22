"""The times of one sitting of a training: how fast it is, how long it will take, what is due."""

from __future__ import annotations

import time

PROGRESS_SECONDS = 10.0


class Clock:
    """Measures one sitting of a training, from the moment the clock is made."""

    def __init__(self, first_step: int, batch: int, before: float) -> None:
        """Start the clock.

        Args:
            first_step: Where this sitting begins.
            batch: Images a step.
            before: Seconds that earlier sittings took.
        """
        self.batch, self.before = batch, before
        self._started = self._spoken = self._saved = self._measured_from = time.monotonic()
        self._measured_step = first_step
        self._first_call: tuple[float, int] | None = None

    def call_ended(self, step: int) -> None:
        """Note that a call of some steps has ended at ``step``.

        The first call compiles. Once a second call has ended, speed is measured from the end of the first.
        """
        if self._first_call is None:
            self._first_call = time.monotonic(), step
        elif self._measured_from == self._started:
            self._measured_from, self._measured_step = self._first_call

    def went_back(self, step: int) -> None:
        """Measure speed from now on: the training stands at the earlier ``step`` again."""
        self._measured_from, self._measured_step = time.monotonic(), step

    def speed(self, step: int) -> float:
        """Images a second."""
        return (step - self._measured_step) * self.batch / max(time.monotonic() - self._measured_from, 1e-9)

    def seconds_left(self, step: int, total: int) -> float:
        """Seconds from ``step`` until ``total``, at the present speed."""
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
        """Seconds of training in this sitting and in all earlier ones."""
        return self.before + self.this_sitting()

    def since_checkpoint(self) -> float:
        """Seconds since the last :meth:`checkpoint_written`."""
        return time.monotonic() - self._saved

    def checkpoint_written(self) -> None:
        """Count the time to the next checkpoint from now."""
        self._saved = time.monotonic()
