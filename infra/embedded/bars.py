"""Progress bars of the tasks of a stack, below what is printed, where somebody looks at a terminal."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn

from cxr_tasks.durations import time_taken
from cxr_tasks.errors import shown
from cxr_tasks.progress import HowFar, read_progress


class LiveBars:
    """A bar for each task that says how far it is. A context manager; without a terminal there are none."""

    def __init__(self, console: Console, folder: Path) -> None:
        """Show nothing yet.

        Args:
            console: Where all else is printed.
            folder: Where tasks keep how far they are.
        """
        self.folder = folder
        self.bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            TextColumn("{task.fields[told]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._shown: dict[str, TaskID] = {}

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
        """Show how far the tasks are now."""
        now = {each.work: each for each in read_progress(self.folder)}
        for work in self._shown.keys() - now.keys():
            self.bars.remove_task(self._shown.pop(work))
        for work, each in now.items():
            if work not in self._shown:
                self._shown[work] = self.bars.add_task(escape(shown(work)), told="")
            self.bars.update(self._shown[work], total=each.total, completed=each.done, told=escape(in_words(each)))


def in_words(how_far: HowFar) -> str:
    """``120/240 GAN training, 1 min 10 s left``."""
    left = how_far.seconds_left
    told = f"{how_far.done:,}/{how_far.total:,} {shown(how_far.part)}"
    return told if left is None or how_far.done >= how_far.total else f"{told}, {time_taken(left)} left"
