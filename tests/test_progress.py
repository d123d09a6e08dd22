"""How far tasks are, kept where somebody outside of their processes looks."""

import io
import json
import os
import subprocess
import sys
import time

import pytest
from rich.console import Console

from cxr_tasks import progress
from cxr_tasks.progress import HowFar, kept_for_watchers, read_progress
from infra.embedded.bars import LiveBars, in_words
from tests.hostile import CODES, obeyed


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CXR_PROGRESS", str(tmp_path / "progress"))
    return tmp_path / "progress"


def test_a_task_keeps_how_far_it_is_until_it_ends(folder):
    with kept_for_watchers("train_gan"):
        assert read_progress(folder) == []
        progress.advance("GAN training", 40, 240)
        (begun,) = read_progress(folder)
        time.sleep(progress.SECONDS_BETWEEN + 0.1)
        progress.advance("GAN training", 60, 240)
        (later,) = read_progress(folder)

    assert (begun.work, begun.part, begun.done, begun.total) == ("train_gan", "GAN training", 40, 240)
    assert begun.seconds_left is None
    # What was done before this process began says nothing of its pace.
    pace = (later.told - later.began) / 20
    assert later.done == 60 and later.seconds_left == pytest.approx(180 * pace)
    assert read_progress(folder) == [] and list(folder.iterdir()) == []


def test_the_next_part_has_a_pace_of_its_own(folder):
    with kept_for_watchers("scan"):
        progress.advance("hash files", 5, 10)
        progress.advance("hash files", 10, 10)
        progress.advance("read headers", 1, 99)
        (now,) = read_progress(folder)

    assert (now.part, now.first, now.seconds_left) == ("read headers", 1, None)


def test_nothing_is_kept_where_nobody_looks(tmp_path, monkeypatch):
    monkeypatch.delenv("CXR_PROGRESS", raising=False)
    monkeypatch.chdir(tmp_path)

    with kept_for_watchers("scan"):
        progress.advance("hash files", 1, 2)

    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_stops_no_work(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CXR_PROGRESS", str(tmp_path / "file" / "below"))

    with kept_for_watchers("scan"):
        progress.advance("hash files", 1, 2)


def test_what_a_killed_task_left_does_not_count(folder):
    folder.mkdir()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (folder / f"{ended.pid}.json").write_text(json.dumps(vars(HowFar("scan", "a", 1, 2, 1, 0.0, 0.0))))
    (folder / f"{os.getpid()}.json").write_text("[half")

    assert read_progress(folder) == []


class Screen(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("no_color", ["", "1"])
def test_bars_are_shown_on_a_terminal_below_the_lines(folder, monkeypatch, no_color):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", no_color)
    screen = Screen()
    console = Console(file=screen, width=100, highlight=False)
    with kept_for_watchers("train_gan"), LiveBars(console, folder) as bars:
        progress.advance("GAN training", 40, 240)
        bars.update()
        console.print("a line")
        time.sleep(0.3)

    written = screen.getvalue()
    assert "train_gan" in written and "40/240 GAN training" in written and "a line\n" in written
    assert ("\x1b[38;5" in written or "\x1b[32m" in written) == (not no_color)


def test_without_a_terminal_there_are_lines_alone(folder):
    stream = io.StringIO()
    console = Console(file=stream, width=100)
    with kept_for_watchers("train_gan"), LiveBars(console, folder) as bars:
        progress.advance("GAN training", 40, 240)
        bars.update()
        console.print("a line")

    assert stream.getvalue() == "a line\n"


def test_a_bar_of_a_task_that_has_ended_goes(folder):
    with LiveBars(Console(file=Screen()), folder) as bars:
        with kept_for_watchers("scan"):
            progress.advance("hash files", 1, 2)
            bars.update()
            assert [task.description for task in bars.bars.tasks] == ["scan"]
        bars.update()
        assert bars.bars.tasks == []


def test_what_a_terminal_obeys_is_written_out():
    for text in CODES:
        assert obeyed(in_words(HowFar(text, text, 1, 2, 0, 0.0, 5.0))) == set()
    assert in_words(HowFar("w", "files", 1_000, 2_000, 0, 0.0, 70.0)) == "1,000/2,000 files, 1 min 10 s left"
