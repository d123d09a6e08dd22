"""How much of the machine a training uses, as MLflow's pages show it under *System metrics*.

MLflow's own thread would ask the server for the run at each sample, and would end for good when the server is away.
Here MLflow measures, and what it measures waits with all else that the training has to say.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cxr_tasks.errors import in_one_line
from cxr_tasks.tracking.places import LogPlace, place_of

if TYPE_CHECKING:
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

log = logging.getLogger(__name__)

# A sample takes a millisecond. What is told is the mean since the last word. A training of days tells more and more
# seldom: hundreds of times and not many thousands. What is over sooner than the first sample is not told of.
SAMPLE_SECONDS, TOLD_SECONDS, TOLD_SHARE = 5.0, 10.0, 0.02


@contextmanager
def measured() -> Iterator[None]:
    """Measure the machine while the block runs, where that is in the MLflow run of a training."""
    place = place_of(None)
    meter = None if place is None or place.folder else _meter(place)
    if meter is None:
        yield
        return
    meter.start()
    try:
        yield
    finally:
        meter.end()


def _meter(place: LogPlace) -> Meter | None:
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    # It tells each time that this machine has no GPU.
    logging.getLogger("mlflow.system_metrics").setLevel(logging.WARNING)
    try:
        return Meter(place, SystemMetricsMonitor(place.run_id))
    except Exception as error:
        log.warning("The machine is not measured: %s", in_one_line(error))
        return None


class Meter(threading.Thread):
    """Measures now and then until it is ended."""

    def __init__(self, place: LogPlace, monitor: SystemMetricsMonitor) -> None:
        """``place``: where it tells; ``monitor``: MLflow's, which is not started."""
        super().__init__(name=f"machine {place.run_id}", daemon=True)
        self._place, self._monitor, self._ended = place, monitor, threading.Event()

    def run(self) -> None:
        """Measure."""
        began = told = time.monotonic()
        try:
            while not self._ended.wait(SAMPLE_SECONDS):
                self._monitor.collect_metrics()
                now = time.monotonic()
                if now - told >= max(TOLD_SECONDS, TOLD_SHARE * (now - began)):
                    self._tell()
                    told = now
            self._tell()
        except Exception as error:
            # No training fails for that.
            log.warning("The machine is not measured any more: %s", in_one_line(error))

    def end(self) -> None:
        """Tell what is left, and end."""
        self._ended.set()
        self.join()

    def _tell(self) -> None:
        now = int(time.time() * 1000)
        second = max(0, (now - self._place.begun) // 1000)
        found = self._monitor.aggregate_metrics().items()
        self._place.outbox.put_batch(metrics=[[f"system/{name}", float(value), now, second] for name, value in found])
        for each in self._monitor.monitors:
            each.clear_metrics()
