"""The embedded stack: what it says when it cannot start, and that nothing of it survives its end."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from infra.embedded import stack as stack_module
from infra.embedded.run import task_name
from infra.embedded.stack import Stack, StackError

REPOSITORY = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_taken_port_is_named_with_a_way_out(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(StackError, match=f"Port {port} on 127.0.0.1 is taken: .* make run MLFLOW_PORT={port + 1}"):
            Stack(tmp_path, free_port(), port, {}).check()


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(stack_module, "NEEDED_GIB", 1e9)

    with pytest.raises(StackError, match=r"Only .* GiB are free .* make room"):
        Stack(tmp_path, free_port(), free_port(), {}).check()


def test_a_stack_that_is_up_is_not_started_twice(tmp_path):
    other = psutil.Process(os.getppid())
    state = {"runner": other.pid, "started": other.create_time(), "sessions": []}
    (tmp_path / "stack.json").write_text(json.dumps(state))

    with pytest.raises(StackError, match=f"is up already, run by process {other.pid}"):
        Stack(tmp_path, free_port(), free_port(), {}).check()


def test_what_a_killed_runner_left_behind_is_ended(tmp_path):
    started = time.time() - 5
    orphan = subprocess.Popen(["sleep", "600"], start_new_session=True)
    state = {"runner": 2**22 - 1, "started": started, "sessions": [orphan.pid]}
    (tmp_path / "stack.json").write_text(json.dumps(state))

    Stack(tmp_path, free_port(), free_port(), {}).check()

    assert not psutil.pid_exists(orphan.pid)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--profile", "papr"], "Profile 'papr' does not exist: choose one of paper, quick"),
        (["--data", "/nowhere"], "The data source /nowhere does not exist"),
    ],
)
def test_a_run_that_cannot_start_says_why_and_exits_with_2(tmp_path, arguments, sentence):
    done = subprocess.run(
        [sys.executable, "-m", "infra.embedded.run", "--once", "--home", str(tmp_path), *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "COLUMNS": "400"},
    )

    assert done.returncode == 2
    assert sentence in done.stdout and "Traceback" not in done.stdout + done.stderr


def test_mapped_tasks_are_named_by_what_they_map():
    task = {"task_id": "train", "map_index": 2, "rendered_map_index": "cnn none seed 0"}

    assert task_name(task) == "train [cnn none seed 0]"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_process_is_left_after_ctrl_c_and_the_stack_starts_again(tmp_path):
    first, again = (interrupted_run(tmp_path) for _ in range(2))

    assert "was left unfinished" not in first
    assert "was left unfinished when the stack was ended: it is marked as failed" in again


def interrupted_run(home: Path) -> str:
    """Start a run, interrupt it when it reads the data, check that nothing is left; returns what it printed."""
    runner = subprocess.Popen(
        [
            *(sys.executable, "-m", "infra.embedded.run", "--home", str(home)),
            *("--airflow-port", str(free_port()), "--mlflow-port", str(free_port())),
        ],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    seen: set[psutil.Process] = set()
    printed = ""
    for line in runner.stdout:
        seen |= set(psutil.Process(runner.pid).children(recursive=True))
        printed += line
        if "scan" in line:
            break

    runner.send_signal(signal.SIGINT)
    runner.stdout.read()

    assert runner.wait(60) == 130
    assert len(seen) > 5
    assert [process for process in seen if process.is_running()] == []
    assert not (home / "stack.json").exists()
    return printed
