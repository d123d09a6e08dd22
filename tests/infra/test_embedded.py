"""The embedded stack: what it says when it cannot start, and that nothing of it survives its end."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from infra.embedded import run as run_module
from infra.embedded import stack as stack_module
from infra.embedded import status as status_module
from infra.embedded.run import is_still_unnamed, task_name, told_sources
from infra.embedded.stack import Stack, StackError
from infra.embedded.status import StackStatus, stack_status
from tests.servers import arguments_of, free_port

CXR = str(Path(sys.executable).with_name("cxr"))


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
    state = {"runner": other.pid, "started": other.create_time(), "sessions": {}}
    (tmp_path / "stack.json").write_text(json.dumps(state))

    with pytest.raises(StackError, match=f"is up already, run by process {other.pid}"):
        Stack(tmp_path, free_port(), free_port(), {}).check()


def test_what_a_killed_runner_left_behind_is_ended(tmp_path):
    started = time.time() - 5
    orphan = subprocess.Popen(["sleep", "600"], start_new_session=True)
    state = {"runner": 2**22 - 1, "started": started, "sessions": {"mlflow": orphan.pid}}
    (tmp_path / "stack.json").write_text(json.dumps(state))

    Stack(tmp_path, free_port(), free_port(), {}).check()

    assert not psutil.pid_exists(orphan.pid)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--profile", "papr"], "Profile 'papr' does not exist: choose one of paper, quick"),
        (["--set", "gpu.steps=[]"], "The section gpu is not for one run"),
        (["--data", "/nowhere"], "The data source /nowhere does not exist"),
        (["--set", "data.sources=[{name: a, source: /nowhere}]"], "The data source /nowhere does not exist"),
        (["--set", "data.sources=[{name: a, source: nowhere}]"], "The data source {here}/nowhere does not exist"),
    ],
)
def test_a_run_that_cannot_start_says_why_and_exits_with_2(tmp_path, arguments, sentence):
    done = subprocess.run(
        [CXR, "run", "--once", "--home", str(tmp_path), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "COLUMNS": "400"},
    )

    assert done.returncode == 2
    assert done.stderr.startswith(f"Error: Cannot start: {sentence.format(here=tmp_path)}") and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1


def test_without_dags_beside_the_package_nothing_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(stack_module, "REPOSITORY", tmp_path / "site-packages")

    with pytest.raises(StackError, match=r"There are no DAGs in .*: run this in a checkout"):
        Stack(tmp_path, free_port(), free_port(), {}).check()


def test_what_a_stack_starts_finds_the_project_by_itself(tmp_path):
    # As after `pip install`: the folder of the DAGs is all that Airflow adds to the import path.
    environment = Stack(tmp_path, free_port(), free_port(), {}).environment
    code = "import cxr_tasks, infra, importlib.util; print(importlib.util.find_spec('mlflow').origin)"
    clean = {name: value for name, value in environment.items() if name != "PYTHONPATH"}

    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=clean, capture_output=True, text=True)

    assert "site-packages" in done.stdout, done.stderr


def test_a_copied_folder_has_a_database_of_its_own(tmp_path):
    # Airflow has written down where the database was.
    (tmp_path / "airflow").mkdir()
    settings = "[database]\nsql_alchemy_conn = sqlite:////nowhere/airflow.db\n"
    (tmp_path / "airflow" / "airflow.cfg").write_text(settings, encoding="utf-8")
    environment = Stack(tmp_path, free_port(), free_port(), {}).environment
    command = ["airflow", "config", "get-value", "database", "sql_alchemy_conn"]

    told = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True).stdout

    assert told.strip().splitlines()[-1] == f"sqlite:///{tmp_path}/airflow/airflow.db"


@pytest.mark.parametrize(
    ("driver", "queue"),
    [("echo 'GPU 0: NVIDIA H200 (UUID: GPU-1)'", "gpu"), ("echo 'No devices were found'; exit 6", ""), ("exit 9", "")],
)
def test_tasks_go_to_a_gpu_where_the_driver_lists_one(tmp_path, monkeypatch, driver, queue):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{driver}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CXR_GPU_QUEUE", raising=False)

    assert Stack(tmp_path, 1, 2, {}).environment["CXR_GPU_QUEUE"] == queue
    # Who says it outright is not contradicted.
    monkeypatch.setenv("CXR_GPU_QUEUE", "")
    assert Stack(tmp_path, 1, 2, {}).environment["CXR_GPU_QUEUE"] == ""


def test_mapped_tasks_are_named_by_what_they_map():
    task = {"task_id": "train", "map_index": 2, "rendered_map_index": "cnn none seed 0"}

    assert task_name(task) == "train [cnn none seed 0]"


def test_a_mapped_task_is_said_to_run_when_it_has_its_name():
    now = datetime.now(UTC).isoformat()
    task = {"task_id": "train", "map_index": 2, "state": "running", "start_date": now, "rendered_map_index": "2"}

    assert is_still_unnamed(task) and is_still_unnamed({**task, "rendered_map_index": None})
    assert not is_still_unnamed({**task, "rendered_map_index": "cnn none seed 0"})
    assert not is_still_unnamed({**task, "map_index": -1})
    assert not is_still_unnamed({**task, "state": "success"})
    # A DAG without a template never names it.
    assert not is_still_unnamed({**task, "start_date": START})


def test_a_summary_names_each_of_several_sources():
    listed = [{"name": "a", "source": "/data/a"}, {"name": "b", "source": "s3://bucket/b"}]

    assert told_sources("", "quick", {"data": {"sources": listed}}) == {
        "source": "a, b",
        "sources": {"a": "/data/a", "b": "s3://bucket/b"},
    }
    assert told_sources("/data/a", "quick", {}) == {"source": "/data/a", "sources": {}}


def test_status_of_a_folder_without_a_run_says_so(tmp_path):
    with pytest.raises(StackError, match=r"Nothing was ever run in .*: start with make run"):
        stack_status(tmp_path / "nothing")
    assert stack_status(tmp_path) == StackStatus(str(tmp_path), up=False)


def test_status_tells_a_stack_that_is_up_from_one_that_was_killed(tmp_path):
    other = psutil.Process(os.getppid())
    state = {"runner": other.pid, "started": other.create_time(), "airflow": "http://127.0.0.1:1", "mlflow": ""}
    (tmp_path / "stack.json").write_text(json.dumps(state))
    starting = stack_status(tmp_path)
    (tmp_path / "stack.json").write_text(json.dumps({**state, "started": 1.0}))

    assert starting.up and not starting.answers and starting.runner == other.pid
    assert not stack_status(tmp_path).up


class FakeApi:
    """Airflow as far as the status asks it."""

    url = "http://airflow"

    def __init__(self, unfinished):
        self.unfinished = unfinished

    def dags(self):
        return ["cxr_data", "cxr_training"]

    def unfinished_runs(self, dag):
        return [run for run in self.unfinished if run["dag"] == dag]

    def newest_run(self, dag):
        return {"dag_run_id": "old", "state": "success", "start_date": START, "end_date": END} if dag == DATA else None

    def tasks(self, dag, run):
        tasks = [("scan", "success", -1), ("train", "running", 1), ("train", None, 2), ("split", "failed", -1)]
        return [
            {"task_id": name, "state": state, "map_index": index, "start_date": START, "rendered_map_index": "cnn none"}
            for name, state, index in tasks
        ]


START, END, DATA = "2026-01-01T10:00:00Z", "2026-01-01T10:01:30Z", "cxr_data"


def test_status_shows_what_runs_and_only_that():
    running = {"dag": "cxr_training", "dag_run_id": "new", "state": "running", "start_date": START, "end_date": None}
    (run,) = status_module._runs(FakeApi([running]))

    assert (run.dag, run.run, run.state) == ("cxr_training", "new", "running")
    assert run.tasks == {"success": 1, "running": 1, "waiting": 1, "failed": 1}
    assert [task.task for task in run.under_way] == ["train [cnn none]"] and run.under_way[0].seconds > 0
    assert run.failed == ["split"] and run.page == "http://airflow/dags/cxr_training/runs/new"


def test_status_shows_the_newest_runs_where_nothing_runs():
    (run,) = status_module._runs(FakeApi([]))

    assert (run.dag, run.run, run.state, run.seconds) == ("cxr_data", "old", "success", 90.0)


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
            CXR,
            "run",
            "--no-estimate",
            f"--home={home}",
            f"--airflow-port={free_port()}",
            f"--mlflow-port={free_port()}",
        ],
        cwd=home,
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

    secret = (home / "jwt-secret").read_text()
    arguments = arguments_of(seen).values()
    runner.send_signal(signal.SIGINT)
    printed += runner.stdout.read()

    assert runner.wait(60) == 130
    logs = [path.read_text(errors="replace") for path in (home / "logs").rglob("*.log")]
    assert len(arguments) > 5 and len(logs) > 2
    assert [text for text in (*arguments, *logs, printed) if secret in text] == []
    assert len(seen) > 5
    assert [process for process in seen if process.is_running()] == []
    assert not (home / "stack.json").exists()
    return printed


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_the_servers_are_ended_though_nobody_reads_what_is_said(tmp_path, monkeypatch, interruption):
    ended = []

    def say(text):
        if "Ending" in text:
            raise SystemExit(1)  # what rich does where the reader has gone

    def start(stack):
        raise interruption

    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.setattr(run_module, "say", say)
    monkeypatch.setattr(Stack, "start", start)
    monkeypatch.setattr(Stack, "stop", lambda stack: ended.append(stack))
    try:
        with pytest.raises(SystemExit):
            run_module.run_stack(
                home=tmp_path,
                data=str(tmp_path),
                profile="quick",
                settings={},
                airflow_port=free_port(),
                mlflow_port=free_port(),
                reproduce_leak=False,
                once=True,
                estimate=False,
                show=lambda _: None,
            )
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)

    assert len(ended) == 1
