"""Both DAGs as on several machines: Celery with a worker a queue, PostgreSQL, Redis, S3, and MLflow with passwords.

The servers are processes on loopback with the settings of docker-compose.yaml, and S3 is moto's.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from pathlib import Path

import boto3
import pytest
from mlflow import MlflowClient

from tests.infra.celery_stack import CeleryStack, missing, shows_secrets
from tests.infra.compose import ROOT, environment
from tests.small_runs import SETTINGS

ENDED = ("success", "failed")


class WholeStack(CeleryStack):
    """The stack with MLflow and S3."""

    def __init__(self, folder: Path, s3: str) -> None:
        """Nothing is started yet. ``s3``: the address of the server."""
        self.s3 = s3
        given = {"CXR_DATA_SCHEDULE": "", "CXR_TRAINING_SCHEDULE": "", "CXR_PROFILE": "quick", "CXR_GPU_QUEUE": "gpu"}
        super().__init__(folder, ROOT / "dags", AWS_ENDPOINT_URL_S3=s3, **given)

    def start_others(self) -> None:
        """Start MLflow, and make the bucket."""
        made = ["python", str(ROOT / "infra/s3/create_bucket.py"), "cxr"]
        self._once("bucket", made, self.variables)
        self.start_mlflow("s3://cxr/mlflow", MLFLOW_S3_ENDPOINT_URL=self.s3, AWS_ENDPOINT_URL_S3=self.s3)


@pytest.fixture(scope="module")
def stack(request, tmp_path_factory, s3_server):
    if request.config.getoption("markexpr") != "stack":
        pytest.skip("it takes minutes: make test-stack")
    if lacks := missing():
        pytest.skip(lacks)
    whole = WholeStack(tmp_path_factory.mktemp("whole"), s3_server)
    try:
        whole.api = whole.start()
        assert whole.api.wait_for_dags(["cxr_data", "cxr_training"]) is None
        yield whole
    finally:
        whole.stop()


def ended_well(api, dag: str, run: str, seconds: float = 1800) -> None:
    """Wait for the end of a run, which must be green."""
    deadline = time.monotonic() + seconds
    while (state := api.run_state(dag, run)) not in ENDED:
        assert time.monotonic() < deadline, f"{dag} takes long"
        time.sleep(2)
    broken = [task for task in api.tasks(dag, run) if task["state"] not in ("success", "skipped")]
    assert state == "success", {task["task_id"]: (task["state"], api.error(dag, run, task)) for task in broken}


def begun(api) -> str:
    """The training that new data began."""
    for _ in range(120):
        if run := api.newest_run("cxr_training"):
            return run["dag_run_id"]
        time.sleep(1)
    raise AssertionError("the new dataset began no training")


@pytest.mark.stack
@pytest.mark.timeout(3600)
def test_both_dags_are_green_and_nothing_is_done_twice(stack, phantoms, monkeypatch):
    form = {"source": str(phantoms), "settings": SETTINGS}
    data = stack.api.trigger("cxr_data", form)
    ended_well(stack.api, "cxr_data", data)
    training = begun(stack.api)
    ended_well(stack.api, "cxr_training", training)

    runs = {"cxr_data": data, "cxr_training": training}
    tasks = [task for dag, run in runs.items() for task in stack.api.tasks(dag, run)]
    assert {task["try_number"] for task in tasks if task["state"] == "success"} == {1}
    hosts = {task["queue"]: {each["hostname"] for each in tasks if each["queue"] == task["queue"]} for task in tasks}
    hosts = {queue: names - {""} for queue, names in hosts.items()}
    print({queue: (sorted(names), sum(task["queue"] == queue for task in tasks)) for queue, names in hosts.items()})
    assert hosts == {"default": {"worker-cpu"}, "gpu": {"worker-gpu"}}
    assert stack.restarts == []

    account = environment("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", account["MLFLOW_AUTH_ADMIN_USERNAME"])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", account["MLFLOW_AUTH_ADMIN_PASSWORD"])
    client = MlflowClient(stack.mlflow)
    known = [each.experiment_id for each in client.search_experiments()]
    logged = client.search_runs(known, max_results=1000)
    assert {run.info.status for run in logged} == {"FINISHED"}
    artifacts = Counter(run.data.tags.get("cxr.artifact", "") for run in logged)
    # The runs of both DAGs name the settings that they share.
    made = {ref: number for ref, number in artifacts.items() if ref and not ref.startswith("settings/")}
    assert made and set(made.values()) == {1}
    assert client.get_model_version_by_alias("cxr-overall", "champion").version == "1"

    s3 = boto3.client(
        "s3", endpoint_url=stack.s3, aws_access_key_id="any", aws_secret_access_key="any", region_name="us-east-1"
    )
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket="cxr")
    keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
    assert any(re.fullmatch(r"store/write_report/.*report\.html", key) for key in keys)
    assert any(key.startswith("mlflow/") for key in keys)

    assert shows_secrets(stack.arguments()) == shows_secrets(stack.said()) == []
    kept = {name: stack.dump(name) for name in ("airflow", "mlflow")}
    assert "COPY public.xcom" in kept["airflow"] and "COPY public.params" in kept["mlflow"]
    assert shows_secrets(kept) == []
