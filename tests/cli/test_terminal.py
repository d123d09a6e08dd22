"""What a local run shows on stderr while it works."""

import io
import json
import logging
import subprocess
import sys
import time

import pytest

from cxr_tasks import progress
from cxr_tasks.artifacts import Gallery
from cxr_tasks.cli.terminal import Display, file_size, open_console, print_json
from cxr_tasks.durations import time_taken
from tests.hostile import CODES, obeyed

DONE = Gallery(comparison="compare/1", shown=3, notes=("a note [with brackets]",))


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self):
        return True


def shown(monkeypatch, stream):
    """What a display writes to ``stream`` of three steps."""
    monkeypatch.setattr(sys, "stderr", stream)
    with Display() as display:
        display.began("explain CNN")
        progress.advance("drawing", 1, 4)
        time.sleep(0.3 if stream.isatty() else 0)
        progress.advance("drawing", 4, 4)
        logging.getLogger("cxr_tasks.tracking").warning("Not logged to MLflow: gone")
        display.ended("explain CNN", DONE)
        display.began("explain VGG16")
        display.ended("explain VGG16", DONE.model_copy(update={"reused": True, "notes": ()}))
        display.began("promote")
        display.failed("promote", ValueError("no"))
    progress.advance("afterwards nobody listens", 1, 2)
    return stream.getvalue()


def test_where_nobody_looks_there_are_lines_and_no_bar(monkeypatch):
    assert shown(monkeypatch, io.StringIO()).splitlines() == [
        "! Not logged to MLflow: gone",
        f"✓ {'explain CNN':<44} 0 s",
        "  a note [with brackets]",
        f"✓ {'explain VGG16':<44} taken as it was",
        f"✗ {'promote':<44} failed",
    ]


@pytest.mark.parametrize("no_color", ["", "1"])
def test_on_a_terminal_a_bar_moves_in_colour_unless_no_color_is_set(monkeypatch, no_color):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", no_color)
    written = shown(monkeypatch, Screen())

    assert "1/4 drawing" in written
    assert ("\x1b[32m" in written) == (not no_color)


CHATTER = """
import os, sys
from cxr_tasks.cli.terminal import hold_back_chatter
from cxr_tasks.errors import UserError
with hold_back_chatter() as own:
    os.write(2, b"a library speaks\\n")
    own.write("own words\\n")
    if len(sys.argv) > 1:
        raise {"user": UserError, "bug": ZeroDivisionError}[sys.argv[1]]("why")
os.write(2, b"afterwards\\n")
"""


@pytest.mark.parametrize("ends", ["", "user", "bug"])
def test_what_libraries_write_past_python_is_shown_only_after_an_error_that_nobody_expected(ends):
    done = subprocess.run([sys.executable, "-c", CHATTER, *([ends] if ends else [])], capture_output=True, text=True)

    assert done.stderr.startswith("own words\n")
    assert ("a library speaks" in done.stderr) == (ends == "bug")
    assert ("afterwards" in done.stderr) == (ends == "")


def test_times_and_sizes_are_for_people():
    assert [time_taken(s) for s in (0.2, 61, 7500, 9.2 * 86400)] == ["0 s", "1 min 1 s", "2 h 5 min", "9 d 4 h"]
    assert [time_taken(s) for s in (60, 43200, 86400, 604800, 3601)] == ["1 min", "12 h", "24 h", "7 d", "1 h"]
    assert [file_size(s) for s in (3, 2048, 5 * 2**20, 3 * 2**40)] == ["3 B", "2.0 KiB", "5.0 MiB", "3.0 TiB"]


def test_a_console_writes_out_what_a_terminal_obeys_and_keeps_its_own_colours(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for text in CODES:
        screen = Screen()
        open_console(screen).print(f"[red]{text}[/]")
        written = screen.getvalue()
        assert written.startswith("\x1b[31m") and written.endswith("\x1b[0m\n")
        assert obeyed(written.replace("\x1b[31m", "").replace("\x1b[0m", "")) == set()


def test_json_keeps_its_texts(capsys):
    print_json(json.dumps(CODES, ensure_ascii=False, indent=2))
    told = capsys.readouterr().out

    assert json.loads(told) == CODES and obeyed(told) == set()
