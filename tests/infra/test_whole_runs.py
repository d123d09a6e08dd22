"""Both DAGs as on several machines: Celery with a worker a queue, PostgreSQL, Redis, S3, and MLflow with passwords.

The servers are processes on loopback with the settings of docker-compose.yaml, and S3 is moto's.
"""

from __future__ import annotations

import re
import time
from collections import Counter

import boto3
import pytest
from mlflow import MlflowClient

from cxr_tasks.retention.inspection import faults
from cxr_tasks.store import open_store
from infra.embedded.airflow_api import ENDED
from tests.infra.celery_stack import at_work, shows_secrets, skip_unless_asked, until
from tests.infra.whole_stack import WholeStack
from tests.small_runs import ONE_PAIR, SETTINGS


@pytest.fixture(scope="module")
def stack(request, tmp_path_factory, s3_server):
    skip_unless_asked(request)
    with at_work(WholeStack(tmp_path_factory.mktemp("whole"), s3_server), ["cxr_data", "cxr_training"]) as whole:
        yield whole


def ended_well(api, dag: str, run: str, seconds: float = 1800) -> None:
    """Wait for the end of a run, which must be green."""
    until(lambda: api.run_state(dag, run) in ENDED, f"{dag} ends", seconds)
    broken = [task for task in api.tasks(dag, run) if task["state"] not in ("success", "skipped")]
    told = {task["task_id"]: (task["state"], api.error(dag, run, task)) for task in broken}
    assert api.run_state(dag, run) == "success", told


@pytest.mark.stack
@pytest.mark.timeout(3600)
def test_both_dags_are_green_and_nothing_is_done_twice(stack, phantoms, monkeypatch, tmp_path):
    stack, api = stack
    form = {"source": str(phantoms), "settings": SETTINGS}
    data = api.trigger("cxr_data", form)
    ended_well(api, "cxr_data", data)
    training = until(lambda: api.newest_run("cxr_training"), "the new dataset begins a training")["dag_run_id"]
    ended_well(api, "cxr_training", training)

    runs = {"cxr_data": data, "cxr_training": training}
    tasks = [task for dag, run in runs.items() for task in api.tasks(dag, run)]
    assert {task["try_number"] for task in tasks if task["state"] == "success"} == {1}
    hosts = {task["queue"]: {each["hostname"] for each in tasks if each["queue"] == task["queue"]} for task in tasks}
    hosts = {queue: names - {""} for queue, names in hosts.items()}
    print({queue: (sorted(names), sum(task["queue"] == queue for task in tasks)) for queue, names in hosts.items()})
    assert hosts == {"default": {"worker-cpu"}, "gpu": {"worker-gpu"}}
    assert stack.restarts == []

    for name, value in stack.variables_of_a_reader(tmp_path).items():
        monkeypatch.setenv(name, value)
    client = MlflowClient(stack.mlflow)
    known = [each.experiment_id for each in client.search_experiments()]
    logged = client.search_runs(known, max_results=1000)
    assert {run.info.status for run in logged} == {"FINISHED"}
    artifacts = Counter(run.data.tags.get("cxr.artifact", "") for run in logged)
    # The runs of both DAGs name the settings that they share.
    made = {ref: number for ref, number in artifacts.items() if ref and not ref.startswith("settings/")}
    assert made and set(made.values()) == {1}
    assert client.get_model_version_by_alias("cxr-overall", "champion").version == "1"

    pages = boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket="cxr")
    keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
    assert any(re.fullmatch(r"store/write_report/.*report\.html", key) for key in keys)
    assert any(key.startswith("mlflow/") for key in keys)

    assert shows_secrets(stack.arguments()) == shows_secrets(stack.said()) == []
    kept = {name: stack.dump(name) for name in ("airflow", "mlflow")}
    assert "COPY public.xcom" in kept["airflow"] and "COPY public.params" in kept["mlflow"]
    assert shows_secrets(kept) == []


# A GAN that is at work while data are read, with a checkpoint a second.
LONGER = {**ONE_PAIR, "gan": {**ONE_PAIR["gan"], "epochs": 100, "checkpoint_seconds": 1}}
GAN = "gan.train_gan"


@pytest.mark.stack
@pytest.mark.timeout(3600)
def test_both_dags_are_green_though_workers_and_servers_are_killed(stack, phantoms, monkeypatch, tmp_path):
    """On the stack that the test above leaves. Each is killed while tasks of both DAGs are at work."""
    stack, api = stack
    for name, value in stack.variables_of_a_reader(tmp_path).items():
        monkeypatch.setenv(name, value)
    training = api.trigger("cxr_training", {"settings": LONGER})
    runs = [("cxr_training", training)]

    def both_at_work():
        return all("running" in {task["state"] for task in api.tasks(dag, run)} for dag, run in (runs[0], runs[-1]))

    until(lambda: [task for task in api.tasks(*runs[0]) if (task["task_id"], task["state"]) == (GAN, "running")], GAN)
    for service in ("worker-gpu", "scheduler", "redis", "postgres"):
        # The same data, read anew.
        form = {"source": str(phantoms), "settings": SETTINGS, "force": ["ingest"]}
        runs.append(("cxr_data", api.trigger("cxr_data", form)))
        until(both_at_work, f"tasks of both DAGs are at work before {service} is killed", 600)
        if service in stack.kept_up:
            stack.kill(service)
        else:
            with stack.gone(service):
                pass
    killed = time.monotonic()
    for dag, run in runs:
        ended_well(api, dag, run)

    (gan,) = [task for task in api.tasks("cxr_training", training) if task["task_id"] == GAN]
    tries = Counter(task["try_number"] for run in runs for task in api.tasks(*run) if task["state"] == "success")
    print({"green after the last kill": round(time.monotonic() - killed), "tasks by tries": dict(tries)})
    assert gan["try_number"] > 1 and api.result("cxr_training", training, gan)["resumed_from"] > 0
    client = MlflowClient(stack.mlflow)
    known = [each.experiment_id for each in client.search_experiments()]
    logged = client.search_runs(known, max_results=1000)
    assert {run.info.status for run in logged} == {"FINISHED"}
    made = Counter((run.data.tags["cxr.dag_run"], run.data.tags.get("cxr.artifact", "")) for run in logged)
    assert {run for run, _ in made} >= {run for _, run in runs} and set(made.values()) == {1}
    lost, artifacts = faults(open_store())
    assert lost == [] and artifacts > 20
    assert not [found.path for found in open_store().bucket.objects("unfinished/")]
