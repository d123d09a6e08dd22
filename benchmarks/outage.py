"""Airflow's API server away for ten minutes, while tasks are at work, end and start.

    python benchmarks/outage.py [--how silent|refused|killed] [--seconds 600]

Starts the embedded stack in a folder of its own with the DAGs below, and takes the API server away: silent (SIGSTOP),
it accepts connections and never answers; refused, nobody listens; killed, it is killed whenever it has answered for a
few seconds, and the stack starts it again. One task is at work before, through and after the outage, one ends its work
in the midst of it, and a DAG that runs every two minutes starts tasks within it. The tasks themselves write down when
they were at work: Airflow counts a task as running before its code is loaded. Each must succeed at its first try.
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from infra.embedded.airflow_api import AirflowApi
from infra.embedded.processes import end, in_sessions
from infra.embedded.services import Service
from infra.embedded.stack import REPOSITORY, Stack

DAGS = """
import time
from pathlib import Path
from airflow.sdk import dag, task
from cxr_wiring import DEFAULT_ARGS, cron

def mark(name):
    with Path(MARKS, name).open("a") as marks:
        marks.write(f"{time.time()}\\n")

@dag(dag_id="outage", schedule=None, is_paused_upon_creation=False, default_args=DEFAULT_ARGS)
def outage():
    @task
    def works(seconds, ti=None):
        mark(f"{ti.task_id}-begins")
        until = time.time() + seconds
        while time.time() < until:
            print(f"{until - time.time():.0f} s left")
            time.sleep(5)
        mark(f"{ti.task_id}-ends")
        return seconds
    works.override(task_id="through")(THROUGH)
    works.override(task_id="ends_within")(WITHIN)

@dag(dag_id="starts", schedule=cron("*/2 * * * *"), catchup=False, is_paused_upon_creation=False,
     default_args=DEFAULT_ARGS)
def starts():
    @task
    def says(run_id=None):
        return run_id
    @task
    def hears(word):
        assert word
    hears(says())

outage()
starts()
"""
ALIVE_SECONDS = 5.0
# After the outage, the waits between two attempts of a task have ended.
SETTLE_SECONDS = 90.0


def main(how: str, seconds: float) -> bool:
    """Run it, print what became of each task, and end with one JSON object; whether all is well."""
    with tempfile.TemporaryDirectory(prefix="outage-") as name:
        home = Path(name)
        dags, marks = home / "dags", home / "marks"
        dags.mkdir()
        marks.mkdir()
        code = DAGS.replace("MARKS", repr(str(marks)))
        code = code.replace("THROUGH", str(seconds + 60)).replace("WITHIN", str(seconds / 2))
        (dags / "outage.py").write_text(code, encoding="utf-8")
        environment = {
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "PYTHONPATH": f"{REPOSITORY / 'dags'}:{REPOSITORY}",
            "AIRFLOW__CORE__PARALLELISM": "12",
        }
        stack = Stack(home, free_port(), free_port(), environment)
        try:
            api = stack.start()
            if fault := api.wait_for_dags(["outage", "starts"]):
                raise RuntimeError(fault)
            run = api.trigger("outage", {})
            while len(list(marks.glob("*-begins"))) < 2:
                time.sleep(0.5)
            say(f"both tasks are at work: the API server is {how} for {seconds:.0f} s")
            away = time.time()
            with TAKEN_AWAY[how](stack, seconds):
                time.sleep(max(0.0, away + seconds - time.time()))
            back = time.time()
            say("the API server is back")
            wait_for_health(api)
            while api.run_state("outage", run) not in ("success", "failed"):
                time.sleep(2)
            time.sleep(SETTLE_SECONDS)
            work = {mark.name: [float(line) for line in mark.read_text().split()] for mark in marks.iterdir()}
            well = told(api, run, work, how, (away, back))
            for log in sorted(stack.logs.rglob("attempt=2.log")):
                first = log.with_name("attempt=1.log")
                say(f"  the first try in {first}:")
                print(first.read_text()[-3000:] if first.is_file() else "    left no log")
            return well
        finally:
            stack.stop()


def api_server(stack: Stack) -> Service:
    """Airflow's API server."""
    (server,) = [service for service in stack.services if service.name == "airflow-api-server"]
    return server


@contextmanager
def silent(stack: Stack, seconds: float) -> Iterator[None]:
    """Keep the API server from answering."""
    servers = in_sessions({api_server(stack).process.pid})
    for process in servers:
        process.send_signal(signal.SIGSTOP)
    yield
    for process in servers:
        process.send_signal(signal.SIGCONT)


@contextmanager
def refused(stack: Stack, seconds: float) -> Iterator[None]:
    """Let nobody listen. The stack would start the API server again at once, and is kept from doing so."""
    assert stack.watch
    stack.watch.stop()
    server = api_server(stack)
    end(in_sessions({server.process.pid}), polite_seconds=0)
    yield
    server.start_again()


@contextmanager
def killed(stack: Stack, seconds: float) -> Iterator[None]:
    """Kill the API server again and again; the stack starts it."""
    until, api = time.time() + seconds, AirflowApi(stack.airflow_url)
    while time.time() < until:
        end(in_sessions({api_server(stack).process.pid}), polite_seconds=0)
        wait_for_health(api)
        time.sleep(ALIVE_SECONDS)
    yield


TAKEN_AWAY = {"silent": silent, "refused": refused, "killed": killed}


def wait_for_health(api: AirflowApi, seconds: float = 300.0) -> None:
    """Wait until the API server answers, and say how long that took."""
    begun = time.time()
    while True:
        try:
            api.get("/monitor/health")
        except Exception:
            if time.time() - begun > seconds:
                raise
            time.sleep(0.5)
        else:
            say(f"the API server answers after {time.time() - begun:.1f} s")
            return


def told(api: AirflowApi, run: str, work: dict[str, list[float]], how: str, outage: tuple[float, float]) -> bool:
    """Print what became of each task.

    Args:
        api: Airflow's API.
        run: The run of the DAG ``outage``.
        work: Seconds since 1970 at which tasks began and ended their work, at each try.
        how: The kind of the outage.
        outage: When the outage began and ended.
    """
    away, back = outage
    found: list[dict[str, Any]] = []
    runs = [("outage", run)]
    runs += [("starts", each["dag_run_id"]) for each in api.get("/dags/starts/dagRuns", limit=100)["dag_runs"]]
    for dag, each in runs:
        for task in api.tasks(dag, each):
            keys = ("task_id", "state", "try_number", "queued_when", "start_date", "end_date")
            found.append({"dag": dag, "run": each, **{key: task[key] for key in keys}})
            say(f"  {dag:8} {each[-32:]:32} {task['task_id']:12} {task['state'] or '':10} try {task['try_number']}")
    handed_out = [datetime.fromisoformat(task["queued_when"]).timestamp() for task in found if task["queued_when"]]
    shown = {
        "one at work before, through and after": work["through-begins"][0] < away and back < work["through-ends"][0],
        "one ended its work within": away < work["ends_within-ends"][0] < back,
        "tasks handed out within": sum(away < moment < back for moment in handed_out),
        "each worked once": all(len(moments) == 1 for moments in work.values()),
        "all succeeded": all(task["state"] == "success" for task in found),
        "at their first try": all(task["try_number"] == 1 for task in found),
    }
    for what, whether in shown.items():
        say(f"  {what}: {whether}")
    well = all(shown.values())
    print(json.dumps({"how": how, "seconds": round(back - away), "well": well, **shown, "work": work, "tasks": found}))
    return well


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def say(text: str) -> None:
    """One line with the time of day."""
    print(time.strftime("%H:%M:%S"), text, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--how", choices=sorted(TAKEN_AWAY), default="silent")
    parser.add_argument("--seconds", type=float, default=600)
    given = parser.parse_args()
    # Started in the background, the stack is ended all the same.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(0 if main(given.how, given.seconds) else 1)
