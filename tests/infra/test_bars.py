"""Progress bars below what ``cxr run`` prints."""

import io
import time
from datetime import UTC, datetime

import pytest
from rich.console import Console

from cxr_tasks.how_far import HowFar
from cxr_tasks.overview.under_way import WorkUnderWay
from infra.embedded import bars as bars_module
from infra.embedded.bars import LiveBars, pace_in_words
from tests.hostile import CODES, obeyed


def at_work(work="GAN training", done=40, left=70.0, run_id="run-1"):
    now = datetime.now(UTC)
    told = HowFar(work=work, done=done, total=1_240, first=0, since=now, at=now)
    return WorkUnderWay(told=told, dag_run="one", left=left, url="", run_id=run_id)


class Screen(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def always(monkeypatch):
    monkeypatch.setattr(bars_module, "LOOKS_EVERY", 0.0)
    monkeypatch.setenv("TERM", "xterm")


@pytest.mark.parametrize("no_color", ["", "1"])
def test_bars_are_shown_on_a_terminal_below_the_lines(always, monkeypatch, no_color):
    monkeypatch.setenv("NO_COLOR", no_color)
    screen = Screen()
    console = Console(file=screen, width=100, highlight=False)
    with LiveBars(console, lambda: [at_work()]) as bars:
        bars.update()
        console.print("a line")
        time.sleep(0.3)

    written = screen.getvalue()
    assert "GAN training" in written and "40/1,240, 1 min 10 s left" in written and "a line\n" in written
    # Moving the cursor is no colour.
    assert any(f"\x1b[{code}" in written for code in ("38;5", "32m", "35m")) == (not no_color)


def test_without_a_terminal_there_are_lines_alone_and_nobody_is_asked(always):
    stream = io.StringIO()
    console = Console(file=stream, width=100)
    with LiveBars(console, lambda: pytest.fail("asked")) as bars:
        bars.update()
        console.print("a line")

    assert stream.getvalue() == "a line\n"


def test_a_bar_moves_and_goes_with_its_task(always):
    told = [[at_work()], [at_work(done=80, left=None), at_work("features of VGG16", run_id="run-2")], []]
    with LiveBars(Console(file=Screen()), lambda: told.pop(0)) as bars:
        bars.update()
        assert [(task.description, task.completed) for task in bars.bars.tasks] == [("GAN training", 40)]
        bars.update()
        seen = [(task.completed, task.fields["told"]) for task in bars.bars.tasks]
        assert seen == [(80, "80/1,240"), (40, "40/1,240, 1 min 10 s left")]
        bars.update()
        assert bars.bars.tasks == []


def test_servers_are_not_asked_again_and_again(monkeypatch):
    asked = []
    with LiveBars(Console(file=Screen()), lambda: asked.append(1) or []) as bars:
        for _ in range(5):
            bars.update()

    assert len(asked) == 1


def test_what_a_terminal_obeys_is_written_out(always):
    for text in CODES:
        with LiveBars(Console(file=Screen()), lambda text=text: [at_work(text)]) as bars:
            bars.update()
            assert obeyed(bars.bars.tasks[0].description) == set()
    assert pace_in_words(at_work(left=None)) == "40/1,240"
