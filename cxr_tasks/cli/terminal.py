"""What people see: results on stdout, and on stderr errors, finished steps and a progress bar."""

from __future__ import annotations

import inspect
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

import typer
from rich.markup import escape

from cxr_tasks.durations import time_taken
from cxr_tasks.errors import UNPRINTABLE, UserError, shown
from cxr_tasks.local import Watcher
from cxr_tasks.progress import listening

if TYPE_CHECKING:
    from rich.console import Console

    from cxr_tasks.artifacts import Artifact

# Their message is all that people need: it says what is wrong and what to do.
PLAIN_ERRORS = (UserError, ConnectionError)
# Where nobody looks at a screen nothing is cut short.
WIDE = 200
# Longer lines are hard to follow.
READABLE_WIDTH = 110


def open_console(stream: TextIO | None = None) -> Console:
    """A console on ``stream``, or on stdout; whether it has colours is for the terminal and ``NO_COLOR`` to say.

    Names of files and cells of tables may hold codes that a terminal obeys. The console writes them out.
    """
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class WritingOut(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(_written_out(segment.text), segment.style)

    stream = stream or sys.stdout
    return WritingOut(file=stream, highlight=False, soft_wrap=True, width=None if stream.isatty() else WIDE)


def print_json(text: str) -> None:
    """Print JSON for programs; in its texts too, what a terminal obeys is written out."""
    typer.echo(UNPRINTABLE.sub(lambda found: found[0] if found[0] == "\n" else f"\\u{ord(found[0]):04x}", text))


def _written_out(text: str) -> str:
    return "".join(each if each in "\n\t" else shown(each) for each in text) if UNPRINTABLE.search(text) else text


def print_error(sentence: str) -> None:
    """Say on stderr what went wrong."""
    open_console(sys.stderr).print(f"[bold red]Error:[/] {escape(sentence)}")


def print_warnings(console: Console, title: str, warnings: Iterable[str]) -> None:
    """Say each warning once, below a title; on a terminal in lines that fit."""
    from rich.table import Table
    from rich.text import Text

    told = list(dict.fromkeys(warnings))
    if not told:
        return
    console.print(title, style="bold yellow", markup=False)
    if not console.is_terminal:
        for warning in told:
            console.print(f"- {warning}", style="yellow", markup=False)
        return
    table = Table.grid(padding=(0, 1))
    for warning in told:
        table.add_row("-", Text(warning))
    console.print(table, style="yellow", soft_wrap=False, width=min(console.width, READABLE_WIDTH))


def help_of(command: Callable[..., None]) -> str:
    """A command's docstring with each paragraph in one line, for the terminal to wrap."""
    paragraphs = (inspect.getdoc(command) or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def file_size(size: float) -> str:
    """``512 B``, ``3.4 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def is_debugging() -> bool:
    """Whether ``--debug`` was given: then the log is shown, and nothing is held back."""
    return logging.getLogger("cxr_tasks").isEnabledFor(logging.INFO)


@contextmanager
def hold_back_chatter() -> Iterator[TextIO]:
    """Hold back what libraries write to stderr, past Python's logging, while the block runs.

    TensorFlow greets with ten lines that no setting switches off. They are shown after all where the block ends with
    an error that nobody expected.

    Yields:
        Stderr, for the block's own words.
    """
    try:
        descriptor = sys.stderr.fileno()
    except (OSError, ValueError):
        descriptor = -1
    if descriptor < 0 or is_debugging():
        yield sys.stderr
        return
    own = os.fdopen(os.dup(descriptor), "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace")
    with own, tempfile.TemporaryFile() as chatter:
        os.dup2(chatter.fileno(), descriptor)
        try:
            yield own
        except Exception as error:
            if not isinstance(error, PLAIN_ERRORS):
                chatter.seek(0)
                own.write(chatter.read().decode(errors="replace"))
            raise
        finally:
            sys.stderr.flush()
            os.dup2(own.fileno(), descriptor)


class Display(Watcher):
    """Shows the steps of a local run on stderr: a line for each that has ended, and a bar for the one under way.

    A context manager. The bar is there only where stderr is a terminal.
    """

    def __enter__(self) -> Display:
        """Start to show."""
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        with ExitStack() as stack:
            self._console = open_console(stack.enter_context(hold_back_chatter()))
            self._bar = stack.enter_context(
                Progress(
                    SpinnerColumn(),
                    TextColumn("{task.description}"),
                    BarColumn(bar_width=16),
                    TextColumn("{task.fields[part]}"),
                    console=self._console,
                    transient=True,
                    disable=not self._console.is_terminal,
                )
            )
            self._work, self._began = "", time.monotonic()
            stack.enter_context(listening(self.advanced))
            stack.enter_context(self._warnings())
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar away; the lines stay."""
        self._stack.__exit__(kind, error, trace)

    def began(self, work: str) -> None:
        """Show a bar for ``work``, which moves as soon as the step says how far it is."""
        self._work, self._began = work, time.monotonic()
        self._show(None)

    def advanced(self, work: str, done: int, total: int) -> None:
        """Move the bar, and say which part of the step is under way and how long that part will take.

        Args:
            work: The part.
            done: How much of it is done.
            total: How much there is.
        """
        tasks = self._bar.tasks
        if done >= total:
            # What the step does next it may not say.
            self._show(None)
            return
        if not tasks or tasks[0].total != total or tasks[0].completed > done:
            # Another part: how fast the part before was says nothing of this one.
            self._show(total)
        (task,) = self._bar.tasks
        self._bar.update(task.id, completed=done)
        left = task.time_remaining
        words = "" if left is None else f", {time_taken(left)} left"
        self._bar.update(task.id, part=escape(f"{done:,}/{total:,} {work}{words}"))

    def ended(self, work: str, handle: Artifact) -> None:
        """Write how long the step took, or that its artifact was taken as it was; and its notes."""
        took = "taken as it was" if handle.reused else time_taken(time.monotonic() - self._began)
        self._line("[green]✓[/]", f"{work:<44} {took}")
        for note in handle.notes:
            self._console.print(f"  {shown(note)}", style="dim", markup=False)

    def failed(self, work: str, error: Exception) -> None:
        """Write that the step failed; who runs the command says why."""
        self._line("[red]✗[/]", f"{work:<44} failed")

    def _show(self, total: int | None) -> None:
        """Put a new bar in the place of the one that is there."""
        self._hide()
        self._bar.add_task(escape(self._work), total=total, part="")

    def _hide(self) -> None:
        for task in self._bar.tasks:
            self._bar.remove_task(task.id)
        self._bar.refresh()

    def _line(self, mark: str, text: str) -> None:
        self._hide()
        self._console.print(f"{mark} {escape(text)}")

    @contextmanager
    def _warnings(self) -> Iterator[None]:
        """Show the project's warnings as lines of their own."""
        if is_debugging():
            yield
            return
        handler = logging.Handler(logging.WARNING)
        handler.emit = lambda record: self._console.print(  # type: ignore[method-assign]
            f"! {shown(record.getMessage())}", style="yellow", markup=False
        )
        logger = logging.getLogger("cxr_tasks")
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)
