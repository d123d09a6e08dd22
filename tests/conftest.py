"""What many tests need: settings, phantoms, a store, and real MLflow and S3 servers."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from cxr_tasks import tracking
from cxr_tasks.artifacts import RunContext
from cxr_tasks.config import Settings, resolve
from cxr_tasks.data.phantoms import write_phantoms
from cxr_tasks.store import FolderStore

# How fast a busy machine is says nothing about the code.
hypothesis.settings.register_profile(
    "any-machine", deadline=None, max_examples=50, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any-machine")

PHANTOMS = {"COVID": 40, "Normal": 60, "Viral Pneumonia": 36, "Lung_Opacity": 5}


@pytest.fixture
def settings() -> Settings:
    return resolve("quick")


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom data set of the counts above; tests must not write to it."""
    folder = tmp_path_factory.mktemp("phantoms") / "data"
    write_phantoms(folder, PHANTOMS, image_size=64)
    return folder


@pytest.fixture(scope="session")
def xrays(phantoms: Path) -> list[Path]:
    """Files of phantoms, of all classes in turn."""
    return sorted(phantoms.glob("*/images/*.png"), key=lambda path: (int(path.stem.rpartition("-")[2]), path.stem))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderStore:
    """An empty store, which is also the one that ``CXR_STORE`` names."""
    monkeypatch.setenv("CXR_STORE", str(tmp_path / "store"))
    return FolderStore(tmp_path / "store")


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a tracking server on its own database."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    command = [Path(sys.executable).with_name("mlflow"), "server", "--host", "127.0.0.1", "--workers", "1"]
    command += ["--port", address.rpartition(":")[2], "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", folder / "artifacts"]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    # Tests listen to webhooks on this machine.
    quiet |= {"MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http", "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true"}
    quiet |= {"MLFLOW_WEBHOOK_CACHE_TTL": "0"}
    with (folder / "server.log").open("wb") as log:
        # A session of its own: the server starts workers, which must end with it.
        server = subprocess.Popen(
            command, cwd=folder, env=os.environ | quiet, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait_for(f"{address}/health", server, folder / "server.log")
        yield address
    finally:
        _end(server)


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.3)
    pytest.fail(f"The MLflow server did not answer at {url}:\n{log.read_text()[-3000:]}")


def _end(server: subprocess.Popen[bytes]) -> None:
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, how)
            server.wait(timeout=10)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


@pytest.fixture
def mlflow_uri(mlflow_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A running tracking server, which is also the one that ``MLFLOW_TRACKING_URI`` names."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    return mlflow_server


@pytest.fixture
def new_run(mlflow_uri: str) -> Callable[..., RunContext]:
    """Begins DAG runs in an experiment of the test's own, and returns what their steps share."""
    experiment = tracking.experiment_id(f"experiment-{uuid.uuid4().hex}")

    def begin(force: Sequence[str] = (), settings: str = "") -> RunContext:
        dag_run = f"manual__{uuid.uuid4().hex}"
        identity = {tracking.TAG_DAG_RUN: dag_run, tracking.TAG_WORK: "dag run"}
        parent = tracking.find_or_create(experiment, dag_run, identity, {})
        return RunContext(
            dag_run=dag_run,
            settings=settings,
            force=tuple(force),
            experiment_id=experiment,
            mlflow_run_id=parent,
            url=tracking.run_url(experiment, parent),
        )

    return begin


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an S3 server in this process. Like S3's, its conditional writes are one move."""
    from moto.s3.responses import S3Response
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(port=0, verbose=False)
    put, one_at_a_time = S3Response.put_object, threading.Lock()

    def put_object(*given: Any) -> Any:
        with one_at_a_time:
            return put(*given)

    S3Response.put_object = put_object
    server.start()
    yield f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    server.stop()
    S3Response.put_object = put


@pytest.fixture
def s3(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """``s3://…`` of an empty bucket, with an empty local cache; the environment leads to its server."""
    import boto3

    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))
    bucket = f"bucket-{uuid.uuid4().hex}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return f"s3://{bucket}/cxr"
