"""How soon the page in Airflow answers when MLflow has 1,000 DAG runs, beside the same facts by MLflow's own client.

    python benchmarks/overview.py [DAG-RUNS]

An MLflow server of its own is filled with so many trainings, each with the runs of its steps, and as many versions of
each registered model. The page is asked over HTTP. Airflow's own part, who may see it and what runs, is not in it.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from cxr_tasks import tracking
from cxr_tasks.artifacts import ClaimRow, Report
from cxr_tasks.overview.gathering import Gathering
from cxr_tasks.overview.mlflow_api import MlflowApi
from cxr_tasks.overview.render import render_parts
from cxr_tasks.overview.trainings import ANSWER_FILE
from cxr_tasks.overview.under_way import AirflowFacts

VISITS = 20
STEPS, PARAMS, METRICS = 12, 120, 40
MODELS = ("cxr-overall", "cxr-vgg16", "cxr-resnet50", "cxr-cnn")
# Every tenth version was champion.
CHAMPIONS = 10


def main(dag_runs: int) -> None:
    """Measure, print a table, and end with one JSON object."""
    with tempfile.TemporaryDirectory() as scratch, mlflow_server(Path(scratch)) as address:
        os.environ["MLFLOW_TRACKING_URI"] = address
        training = one_training()
        began = time.perf_counter()
        multiply(Path(scratch) / "mlflow.db", training, dag_runs)
        print(f"{dag_runs:,} DAG runs of {STEPS + 1} MLflow runs, made in {time.perf_counter() - began:.0f} s")
        print(f"{'ms':<34}{'median':>9}{'worst':>9}")
        figures: dict[str, dict[str, float]] = {}
        with page(address) as url:
            first, whole = zip(*(visit(url) for _ in range(VISITS)), strict=True)
            report(figures, "page: first byte", first)
            report(figures, "page: all of it", whole)
        report(figures, "MLflow's client: the same facts", [timed(by_client) for _ in range(VISITS)])
        figures["import"] = {"mlflow": imported("mlflow"), "overview": imported("cxr_tasks.overview.gathering")}
        print(f"{'import of MLflow':<34}{figures['import']['mlflow']:>9.0f}")
        print(f"{'import of the page':<34}{figures['import']['overview']:>9.0f}")
    print(json.dumps({"benchmark": "overview", "cores": os.cpu_count(), "dag_runs": dag_runs, "milliseconds": figures}))


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """The address of a tracking server with a database of its own in ``folder``."""
    address = "http://127.0.0.1:5699"
    command = [str(Path(sys.executable).with_name("mlflow")), "server", "--host", "127.0.0.1", "--port", "5699"]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=os.environ | quiet, stdout=log, stderr=log, start_new_session=True
        )
    try:
        until_answers(f"{address}/health")
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def until_answers(url: str) -> None:
    """Wait for a server."""
    for _ in range(600):
        try:
            if httpx.get(url, timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.5)
    sys.exit(f"{url} did not answer")


def one_training() -> str:
    """Log one training with the runs of its steps, and register its models; returns the id of its DAG run."""
    server, dag_run = tracking.client(), "first"
    experiment = tracking.experiment_id("cxr_training")
    tracking.experiment_id("cxr_data")
    identity = {tracking.TAG_DAG_RUN: dag_run}
    tags = {tracking.TAG_CAUSE: "new data", "cxr.answer": "It helps.", "cxr.dataset": "00ab"}
    parent = tracking.find_or_create(experiment, dag_run, {**identity, tracking.TAG_WORK: "dag run"}, tags)
    claims = tuple(a_claim(name) for name in ("VGG16", "ResNet50", "CNN"))
    found = Report(answer="It helps.", warnings=(), claims=claims, pairs=(), champions=(), address="")
    tracking.log_text(found.model_dump_json(), ANSWER_FILE, parent)
    runs = [parent]
    for step in ["train_gan"] + [f"train_arm {number}" for number in range(STEPS - 1)]:
        below = {"mlflow.parentRunId": parent, "cxr.step": step.split()[0]}
        runs.append(tracking.find_or_create(experiment, step, {**identity, tracking.TAG_WORK: step}, below))
    for run in runs:
        tracking.log_params({f"section.setting_{number}": "some value" for number in range(PARAMS)}, run)
        tracking.log_metrics({f"metric_{number}": 0.5 for number in range(METRICS)}, run_id=run)
        server.set_terminated(run, "FINISHED")
    told = {"cxr.champion_since": "2026-01-01T00:00:00+00:00", "cxr.test_macro_f1": "94.1 (90.0 to 97.2)"}
    told |= {"cxr.decision": "It beats the champion.", "cxr.validation_macro_f1": "0.94"}
    for name in MODELS:
        server.create_registered_model(name)
        server.create_model_version(name, "s3://nowhere/model", tags=told)
        server.set_registered_model_alias(name, "champion", "1")
    return dag_run


def a_claim(name: str) -> ClaimRow:
    """What a training says of one classifier."""
    beyond = dict.fromkeys(("beyond_control", "beyond_control_low", "beyond_control_high"))
    told: dict[str, Any] = {"classifier": name, "seeds": 1, "baseline_arm": "classical", "arm": "both", "claims": 3}
    told |= {"difference": 0.02, "low": 0.01, "high": 0.03, "p_value": 0.01, "detectable": None, "control": ""}
    return ClaimRow.model_validate(told | beyond | {"verdict": "helps"})


def multiply(path: Path, dag_run: str, times: int) -> None:
    """Repeat a training in MLflow's own tables: through its API that would take an hour."""
    database = sqlite3.connect(path, timeout=60)

    def rows(table: str, where: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        columns = [each[1] for each in database.execute(f"pragma table_info({table})")]
        return columns, database.execute(f"select {','.join(columns)} from {table} where {where}").fetchall()  # noqa: S608

    def add(table: str, columns: list[str], changed: list[list[Any]]) -> None:
        marks = ",".join("?" * len(columns))
        database.executemany(f"insert into {table} ({','.join(columns)}) values ({marks})", changed)  # noqa: S608

    of_training = f"run_uuid in (select run_uuid from tags where key = 'cxr.dag_run' and value = '{dag_run}')"  # noqa: S608
    tables = {name: rows(name, of_training) for name in ("runs", "tags", "params", "metrics", "latest_metrics")}
    versions = {name: rows(name, "version = 1") for name in ("model_versions", "model_version_tags")}
    ids = [row[tables["runs"][0].index("run_uuid")] for row in tables["runs"][1]]
    for number in range(1, times):
        anew = {old: uuid.uuid4().hex for old in ids} | {dag_run: f"run {number}"}
        for table, (columns, found) in tables.items():
            begun = columns.index("start_time") if table == "runs" else -1
            copied = [[anew.get(value, value) for value in row] for row in found]
            for row in copied if begun >= 0 else ():
                row[begun] -= 3_600_000 * number
            add(table, columns, copied)
        for table, (columns, found) in versions.items():
            at, key = columns.index("version"), columns.index("key") if "key" in columns else 0
            kept = [row for row in found if row[key] != "cxr.champion_since" or not number % CHAMPIONS]
            add(table, columns, [[*row[:at], number + 1, *row[at + 1 :]] for row in kept])
    database.commit()
    database.close()


@contextmanager
def page(address: str) -> Iterator[str]:
    """The address of the page by itself."""
    asks, app = Gathering(MlflowApi(address)), FastAPI()
    app.get("/")(lambda: StreamingResponse(render_parts(asks.visit(AirflowFacts())), media_type="text/html"))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=5698, log_level="warning"))
    threading.Thread(target=server.run, daemon=True).start()
    until_answers("http://127.0.0.1:5698/")
    yield "http://127.0.0.1:5698/"
    server.should_exit = True


def visit(url: str) -> tuple[float, float]:
    """Milliseconds until the first byte of the page, and until the last."""
    began = time.perf_counter()
    with httpx.stream("GET", url, timeout=60) as answer:
        chunks = answer.iter_raw()
        next(chunks)
        first = time.perf_counter() - began
        rest = b"".join(chunks).decode()
    assert "MLflow gives no answer" not in rest and "90.0 to 97.2" in rest and ">helps<" in rest
    return 1000 * first, 1000 * (time.perf_counter() - began)


def by_client() -> None:
    """What the page shows, by MLflow's own client: models with their versions, and the runs of trainings."""
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("cxr_training")
    runs = client.search_runs([experiment.experiment_id], "tags.`cxr.work` = 'dag run'", max_results=15)
    parent = runs[0].info.run_id
    client.search_runs([experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'")
    for model in client.search_registered_models():
        client.search_model_versions(f"name = '{model.name}'", max_results=50)
        client.get_model_version_by_alias(model.name, "champion")


def timed(call: Callable[[], None]) -> float:
    """Milliseconds that ``call`` takes."""
    began = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - began)


def imported(module: str) -> float:
    """Milliseconds that a new process takes to import ``module``, less those of an empty one."""

    def run(code: str) -> float:
        return min(timed(lambda: subprocess.run([sys.executable, "-c", code], check=True)) for _ in range(3))

    return round(run(f"import {module}") - run("pass"), 1)


def report(figures: dict[str, dict[str, float]], name: str, taken: Any) -> None:
    """Print one row and keep it."""
    figures[name] = {"median": round(statistics.median(taken), 1), "worst": round(max(taken), 1)}
    print(f"{name:<34}{figures[name]['median']:>9.0f}{figures[name]['worst']:>9.0f}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 2 or not all(each.isdigit() for each in sys.argv[1:]):
        sys.exit(__doc__)
    main(int(sys.argv[1]) if sys.argv[1:] else 1000)
