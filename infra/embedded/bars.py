"""Progress bars of the tasks of a stack, below what is printed, where somebody looks at a terminal."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn

from cxr_tasks.durations import time_taken
from cxr_tasks.errors import shown
from cxr_tasks.overview.mlflow_api import MlflowApi, MlflowAwayError
from cxr_tasks.overview.under_way import WorkUnderWay, work_under_way
from cxr_tasks.steps.configure import EXPERIMENT_NOTES

# Tasks tell MLflow how far they are about as often.
LOOKS_EVERY = 5.0


class LiveBars:
    """A bar for each task that says how far it is. A context manager; without a terminal there are none."""

    def __init__(self, console: Console, look: Callable[[], Sequence[WorkUnderWay]]) -> None:
        """Show nothing yet.

        Args:
            console: Where all else is printed.
            look: Says how far the tasks are now.
        """
        self.look = look
        self.is_shown = console.is_terminal
        self.bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            TextColumn("{task.fields[told]}"),
            console=console,
            transient=True,
            disable=not self.is_shown,
        )
        self._shown: dict[tuple[str, str], TaskID] = {}
        self._looked = float("-inf")

    def __enter__(self) -> LiveBars:
        """Start to show."""
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bars away."""
        self.bars.stop()

    def update(self) -> None:
        """Show how far the tasks are now, unless that was done just before."""
        if not self.is_shown or time.monotonic() - self._looked < LOOKS_EVERY:
            return
        self._looked = time.monotonic()
        now = {(each.run_id, each.told.work): each for each in self.look()}
        for key in self._shown.keys() - now.keys():
            self.bars.remove_task(self._shown.pop(key))
        for key, each in now.items():
            if key not in self._shown:
                self._shown[key] = self.bars.add_task(escape(shown(each.told.work)), told="")
            self.bars.update(
                self._shown[key], total=each.told.total, completed=each.told.done, told=escape(pace_in_words(each))
            )


def pace_in_words(work: WorkUnderWay) -> str:
    """``120/240, 1 min 10 s left``."""
    told = f"{work.told.done:,}/{work.told.total:,}"
    return told if work.left is None else f"{told}, {time_taken(work.left)} left"


def far_in_mlflow(address: str) -> list[WorkUnderWay]:
    """How far the tasks are that tell MLflow; none where it does not answer."""
    with suppress(MlflowAwayError):
        mlflow = mlflow_at(address)
        return work_under_way(mlflow, list(mlflow.experiments(list(EXPERIMENT_NOTES)).values()))
    return []


def mlflow_at(address: str) -> MlflowApi:
    """A client of the server, which signs in as the environment says."""
    name, password = (os.environ.get(f"MLFLOW_TRACKING_{part}", "") for part in ("USERNAME", "PASSWORD"))
    return MlflowApi(address, (name, password) if name else None, os.environ.get("MLFLOW_TRACKING_TOKEN", ""))
