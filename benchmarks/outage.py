"""Airflow's API server away for ten minutes, while tasks run, end and start.

    python benchmarks/outage.py [--seconds 600]

Starts the embedded stack in a folder of its own with the DAGs below, and stops the API server (SIGSTOP): it accepts
connections and never answers. One task runs for a minute longer than the outage, one ends in the midst of it, and a
DAG that runs every two minutes starts tasks while nobody answers. Each must succeed, and the long ones at their first
try.
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from infra.embedded.airflow_api import AirflowApi
from infra.embedded.processes import in_sessions
from infra.embedded.stack import REPOSITORY, Stack

DAGS = """
import time
from airflow.sdk import dag, task
from cxr_wiring import DEFAULT_ARGS, cron

@dag(dag_id="outage", schedule=None, is_paused_upon_creation=False, default_args=DEFAULT_ARGS)
def outage():
    @task
    def works(seconds):
        until = time.time() + seconds
        while time.time() < until:
            print(f"{until - time.time():.0f} s left")
            time.sleep(10)
        return seconds
    works.override(task_id="longer")(LONGER)
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


def main(seconds: float) -> bool:
    """Run it, print what became of each task, and end with one JSON object; whether all is well."""
    with tempfile.TemporaryDirectory(prefix="outage-") as name:
        home = Path(name)
        dags = home / "dags"
        dags.mkdir()
        code = DAGS.replace("LONGER", str(seconds + 60)).replace("WITHIN", str(seconds / 2))
        (dags / "outage.py").write_text(code, encoding="utf-8")
        environment = {
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "PYTHONPATH": f"{REPOSITORY / 'dags'}:{REPOSITORY}",
            "AIRFLOW__CORE__PARALLELISM": "8",
        }
        stack = Stack(home, free_port(), free_port(), environment)
        try:
            api = stack.start()
            if fault := api.wait_for_dags(["outage", "starts"]):
                raise RuntimeError(fault)
            run = api.trigger("outage", {})
            while {task["state"] for task in api.tasks("outage", run)} != {"running"}:
                time.sleep(1)
            # A task counts as running before its code is loaded.
            time.sleep(20)
            say(f"both tasks run: the API server is silent for {seconds:.0f} s")
            take_away(stack, seconds)
            say("the API server is back")
            while api.run_state("outage", run) not in ("success", "failed"):
                time.sleep(2)
            time.sleep(60)
            return told(api, run, seconds)
        finally:
            stack.stop()


def take_away(stack: Stack, seconds: float) -> None:
    """Keep the API server from answering for so long."""
    (server,) = [service.process for service in stack.services if service.name == "airflow-api-server"]
    servers = in_sessions({server.pid})
    for process in servers:
        process.send_signal(signal.SIGSTOP)
    time.sleep(seconds)
    for process in servers:
        process.send_signal(signal.SIGCONT)


def told(api: AirflowApi, run: str, seconds: float) -> bool:
    """Print what became of each task."""
    found: list[dict[str, Any]] = []
    runs = [("outage", run)]
    runs += [("starts", each["dag_run_id"]) for each in api.get("/dags/starts/dagRuns", limit=100)["dag_runs"]]
    for dag, each in runs:
        for task in api.tasks(dag, each):
            keys = ("task_id", "state", "try_number", "start_date", "end_date")
            found.append({"dag": dag, "run": each, **{key: task[key] for key in keys}})
            say(f"  {dag:8} {each[-32:]:32} {task['task_id']:12} {task['state']:10} try {task['try_number']}")
    well = all(task["state"] == "success" for task in found)
    well &= all(task["try_number"] == 1 for task in found if task["dag"] == "outage")
    print(json.dumps({"seconds": seconds, "well": well, "tasks": found}))
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
    parser.add_argument("--seconds", type=float, default=600)
    given = parser.parse_args()
    # Started in the background, the stack is ended all the same.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(0 if main(given.seconds) else 1)
