"""``make up`` and what goes with it: its .env, its sentences, the copies of objects, and once the real thing.

``make test-containers`` starts the whole stack in containers, runs both DAGs, destroys everything and restores it. That
takes a quarter of an hour, and longer where images are built first. Without a registry of images,
``stand_in_images.sh`` makes what the images are built on.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra import containers
from infra.containers import CannotGoOn, Containers, read_env, write_env
from infra.embedded.airflow_api import ENDED
from infra.s3 import objects
from tests.infra.compose import COMPOSE_TEXT, ROOT, VARIABLE, SignedInApi, example
from tests.servers import free_port
from tests.small_runs import ONE_PAIR

# --- .env -----------------------------------------------------------------------------------------------------


def test_first_env_fills_all_that_compose_asks_for_with_secrets_of_its_own(tmp_path):
    (tmp_path / "X rays").mkdir()
    written = [tmp_path / "one", tmp_path / "two"]
    for path in written:
        containers.first_env(path, str(tmp_path / "X rays"), "quick")

    one, two = map(read_env, written)
    required = {use["name"] for use in VARIABLE.finditer(COMPOSE_TEXT) if use["operator"] == "?"}
    assert set(one) == set(example()) and all(one[name] for name in required)
    assert one["CXR_DATA"] == str(tmp_path / "X rays") and one["CXR_PROFILE"] == "quick"
    assert {name for name in one if one[name] == two[name]} == set(one) - set(containers.DRAWN)
    assert all(len(one[name]) >= 20 and re.fullmatch(r"[\w=-]+", one[name]) for name in containers.DRAWN)
    assert stat.S_IMODE(written[0].stat().st_mode) == 0o600


@pytest.mark.parametrize(("runtimes", "gpu"), [('{"nvidia":{},"runc":{}}', "gpu"), ('{"runc":{}}', "")])
def test_first_env_asks_for_the_gpu_where_docker_knows_one(tmp_path, monkeypatch, runtimes, gpu):
    program = tmp_path / "docker"
    program.write_text(f"#!/bin/sh\necho '{runtimes}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    containers.first_env(tmp_path / "env", str(tmp_path), "quick")

    written = read_env(tmp_path / "env")
    assert (written["COMPOSE_PROFILES"], written["CXR_GPU_QUEUE"], written["WORKER_QUEUES"]) == (gpu, gpu, "default")


def test_env_is_written_without_docker(tmp_path):
    line = [sys.executable, str(ROOT / "infra/containers.py"), "--env-file", str(tmp_path / "env"), "env"]
    done = subprocess.run(line, env={"PATH": "", "DATA": str(tmp_path)}, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    written = read_env(tmp_path / "env")
    assert all(written[name] for name in containers.DRAWN) and written["COMPOSE_PROFILES"] == ""


def test_env_is_never_written_over(tmp_path):
    path = tmp_path / "env"
    path.write_text("mine")
    with pytest.raises(CannotGoOn, match="is there already"):
        write_env(path, {})
    assert path.read_text() == "mine"


def test_env_cannot_hold_a_line_of_its_own_making(tmp_path):
    with pytest.raises(CannotGoOn, match="CXR_DATA holds a quote or a line break"):
        write_env(tmp_path / "env", {"CXR_DATA": "/data\nS3_BUCKET=other"})
    assert not (tmp_path / "env").exists()


# --- Sentences ------------------------------------------------------------------------------------------------


def call(folder: Path, *arguments: str, **programs: str) -> subprocess.CompletedProcess[str]:
    """The script with no programs on its PATH but these, each a line of shell."""
    for name, line in programs.items():
        path = folder / name.replace("_", "-")
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)
    line = [sys.executable, str(ROOT / "infra/containers.py"), "--env-file", str(folder / "env"), *arguments]
    return subprocess.run(line, env={"PATH": str(folder)}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("programs", "sentence"),
    [
        ({}, "Docker is not installed: install Docker Engine with its Compose plugin."),
        ({"docker": "echo no socket >&2; exit 1"}, "The Docker engine does not answer (no socket): start it"),
        ({"docker": 'test "$1" = version'}, "Compose is not installed: install Docker's Compose plugin"),
    ],
    ids=["no docker", "no engine", "no compose"],
)
def test_up_says_what_is_missing_and_writes_nothing(tmp_path, programs, sentence):
    done = call(tmp_path, "up", **programs)
    assert done.returncode == 1 and done.stderr.startswith(sentence), done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "env").exists()


@pytest.mark.parametrize("verb", [["down"], ["logs"], ["backup"], ["restore", "nowhere"]])
def test_other_verbs_need_an_env(tmp_path, verb):
    done = call(tmp_path, *verb, docker="true")
    assert done.returncode == 1 and "is missing: `make up` writes it" in done.stderr


def test_a_folder_of_data_that_is_gone_is_named(tmp_path):
    write_env(tmp_path / "env", {"CXR_DATA": str(tmp_path / "misspelt")})
    done = call(tmp_path, "up", docker="true")
    assert done.returncode == 1 and "misspelt', which is no folder: correct the line." in done.stderr


def test_a_worker_for_the_gpu_without_a_queue_is_named(tmp_path):
    write_env(tmp_path / "env", {"CXR_DATA": str(tmp_path), "COMPOSE_PROFILES": "gpu"})
    done = call(tmp_path, "up", docker="true")
    assert done.returncode == 1 and done.stderr.endswith("no task would go there: add the line CXR_GPU_QUEUE=gpu.\n")


def test_a_restore_wants_a_whole_backup_with_the_keys_of_this_stack(tmp_path):
    write_env(tmp_path / "env", {"AIRFLOW_FERNET_KEY": "one"})
    saved = tmp_path / "saved"
    saved.mkdir()
    assert "is no backup: airflow.dump is missing." in call(tmp_path, "restore", str(saved), docker="true").stderr
    for name in ("airflow.dump", "mlflow.dump", "mlflow_auth.dump", "objects.tar", "logs.tar.gz"):
        (saved / name).touch()
    write_env(saved / "env", {"AIRFLOW_FERNET_KEY": "two"})
    assert "AIRFLOW_FERNET_KEY is not the one of the backup" in call(tmp_path, "restore", str(saved)).stderr


# --- Objects --------------------------------------------------------------------------------------------------


def test_objects_are_saved_and_loaded_and_what_tells_of_files_comes_first(s3):
    source, target = (s3.split("/")[2] + suffix for suffix in ("", "-restored"))
    client = objects.s3_client()
    client.create_bucket(Bucket=target)
    given = {"store/a/artifact.json": b"{}", "store/a/1/pixels": bytes(9_000_000), "mlflow/ä b": b"model"}
    for key, content in {**given, "store/leases/held": b"held"}.items():
        client.put_object(Bucket=source, Key=key, Body=content)

    archive = io.BytesIO()
    assert objects.save(source, archive) == 3
    archive.seek(0)
    with tarfile.open(fileobj=archive) as opened:
        assert opened.getnames()[0] == "store/a/artifact.json"
    archive.seek(0)
    assert objects.load(target, archive) == 3

    there = objects.keys(client, target)
    assert {key: client.get_object(Bucket=target, Key=key)["Body"].read() for key in there} == given


# --- The real thing -------------------------------------------------------------------------------------------

FORM = {"profile": "quick", "settings": ONE_PAIR}
RUN_SECONDS = 1200


class ContainersApi(SignedInApi):
    """A client of the API, and what it tells of runs."""

    def wait_for(self, dag: str, run: str) -> dict[str, str]:
        """The states of a run's tasks, when it has ended."""
        deadline = time.monotonic() + RUN_SECONDS
        while (state := self.run_state(dag, run)) not in ENDED:
            assert time.monotonic() < deadline, f"{dag} takes long: {self._states(dag, run)}"
            time.sleep(2)
        assert state == "success", self._states(dag, run)
        return self._states(dag, run)

    def _states(self, dag: str, run: str) -> dict[str, str]:
        return {f"{task['task_id']}/{task['map_index']}": task["state"] for task in self.tasks(dag, run)}

    def history(self) -> dict[str, str]:
        """Every run of the project, and its state."""
        runs = [run for dag in self.dags() for run in self.get(f"/dags/{dag}/dagRuns")["dag_runs"]]
        return {f"{run['dag_id']} {run['dag_run_id']}": run["state"] for run in runs}


class Tracking:
    """What MLflow holds, asked as the administrator."""

    def __init__(self, env: dict[str, str]) -> None:
        account = (env["MLFLOW_ADMIN_USERNAME"], env["MLFLOW_ADMIN_PASSWORD"])
        self.http = httpx.Client(base_url=env["MLFLOW_URL"], auth=account, timeout=60)

    def ask(self, path: str, **body: Any) -> Any:
        """A call of the API."""
        kind = "POST" if body else "GET"
        return self.http.request(kind, f"/api/2.0/mlflow/{path}", json=body or None).raise_for_status().json()

    def runs(self) -> dict[str, str]:
        """Every run, with its state."""
        known = [each["experiment_id"] for each in self.ask("experiments/search", max_results=100)["experiments"]]
        found = self.ask("runs/search", experiment_ids=known, max_results=1000)["runs"]
        return {run["info"]["run_id"]: run["info"]["status"] for run in found}

    def models(self) -> dict[str, list[str]]:
        """The registered models, and the aliases of each."""
        found = self.ask("registered-models/search").get("registered_models", [])
        return {model["name"]: sorted(a["alias"] for a in model.get("aliases", [])) for model in found}


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def stack(request, phantoms, tmp_path_factory) -> Iterator[Containers]:
    """The stack of a fresh .env, up, under a name of its own; nothing of it stays but its images."""
    if request.config.getoption("markexpr") != "containers":
        pytest.skip("it takes a quarter of an hour: make test-containers")
    try:
        containers.compose_program()
    except CannotGoOn as error:
        pytest.skip(str(error))
    subprocess.run(["sh", str(ROOT / "tests/infra/stand_in_images.sh")], check=True)
    folder = tmp_path_factory.mktemp("stack")
    shutil.copytree(phantoms, folder / "data")
    # The containers' user must be able to read it.
    subprocess.run(["chmod", "-R", "a+rX", str(folder / "data")], check=True)
    ports = {name: free_port() for name in ("AIRFLOW_PORT", "MLFLOW_PORT", "S3_PORT")}
    containers.first_env(folder / "first", str(folder / "data"), "quick")
    values = read_env(folder / "first") | {name: str(port) for name, port in ports.items()}
    values |= {
        "COMPOSE_PROJECT_NAME": f"cxr-test-{os.getpid()}",
        "CXR_VERSION": "test",
        "AIRFLOW_URL": f"http://localhost:{ports['AIRFLOW_PORT']}",
        "MLFLOW_URL": f"http://localhost:{ports['MLFLOW_PORT']}",
    }
    write_env(folder / "env", values)
    stack = Containers(folder / "env")
    try:
        stack.up()
        yield stack
    finally:
        stack.compose("down", "--volumes", "--remove-orphans")


@pytest.mark.containers
@pytest.mark.timeout(5400)
def test_a_stack_that_was_up_ran_and_was_destroyed_is_restored(stack, tmp_path):
    assert set(stack.states().values()) == {"healthy", "done"}
    assert no_secret_is_in_the_list_of_processes(stack)
    api, tracking = ContainersApi(stack.env["AIRFLOW_URL"], stack.env), Tracking(stack.env)
    assert api.wait_for_dags(["cxr_data", "cxr_training"]) is None

    api.wait_for("cxr_data", api.trigger("cxr_data", FORM))
    training = begun(api)
    states = api.wait_for("cxr_training", training)
    assert "success" in {state for name, state in states.items() if "report" in name}
    before = api.history(), tracking.runs(), tracking.models()
    assert all(before) and len(before[0]) == 2
    print(docker("stats", "--no-stream", "--format", "{{.Name}}: {{.MemUsage}}"))

    stack.backup(tmp_path / "saved")
    assert stat.S_IMODE((tmp_path / "saved").stat().st_mode) == 0o700
    stack.compose("down", "--volumes")
    assert not stack._volumes()
    stack.restore(tmp_path / "saved")

    api, tracking = ContainersApi(stack.env["AIRFLOW_URL"], stack.env), Tracking(stack.env)
    assert (api.history(), tracking.runs(), tracking.models()) == before
    configured = next(task for task in api.tasks("cxr_training", training) if task["task_id"] == "configure")
    log = f"/dags/cxr_training/dagRuns/{training}/taskInstances/configure/logs/{configured['try_number']}"
    assert "configure" in json.dumps(api.get(log))
    # The store is there: the same images are no new dataset.
    states = api.wait_for("cxr_data", api.trigger("cxr_data", FORM))
    assert states["publish/-1"] == "skipped"
    with pytest.raises(CannotGoOn, match="a restore fills new ones only"):
        stack.restore(tmp_path / "saved")


def begun(api: ContainersApi) -> str:
    """The training that new data began."""
    for _ in range(120):
        if run := api.newest_run("cxr_training"):
            return run["dag_run_id"]
        time.sleep(1)
    raise AssertionError("the new dataset began no training")


def no_secret_is_in_the_list_of_processes(stack: Containers) -> bool:
    """Whether no process of any container names a password or key among its arguments."""
    label = f"label=com.docker.compose.project={stack.project}"
    shown = [docker("top", each, "-eo", "pid,args") for each in docker("ps", "--quiet", "--filter", label).split()]
    assert len(shown) > 8 and all("PID" in each for each in shown)
    return not any(stack.env[name] in each for name in containers.DRAWN for each in shown)
