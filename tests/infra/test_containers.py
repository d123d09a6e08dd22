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

import boto3
import httpx
import pytest

from cxr_tasks.store import open_store
from infra import containers
from infra.containers import CannotGoOn, Containers, read_env, write_env
from infra.embedded.airflow_api import ENDED
from infra.s3 import objects
from tests.infra.compose import COMPOSE_TEXT, ROOT, VARIABLE, SignedInApi, example
from tests.infra.tls import AIRFLOW_NAME, MLFLOW_NAME, browser, make_certificate
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
    for name in ("airflow.dump", "mlflow.dump", "mlflow_auth.dump", "pointers.tar", "objects.tar", "logs.tar.gz"):
        (saved / name).touch()
    write_env(saved / "env", {"AIRFLOW_FERNET_KEY": "two"})
    assert "AIRFLOW_FERNET_KEY is not the one of the backup" in call(tmp_path, "restore", str(saved)).stderr


# --- Objects --------------------------------------------------------------------------------------------------


@pytest.fixture
def buckets(s3):
    """A client, the bucket that is saved, and an empty one to load into."""
    client, source = objects.s3_client(), s3.split("/")[2]
    client.create_bucket(Bucket=f"{source}-restored")
    return client, source, f"{source}-restored"


def put(client, bucket: str, **contents: bytes) -> None:
    for key, content in contents.items():
        client.put_object(Bucket=bucket, Key=key, Body=content)


def content_of(client, bucket: str) -> dict[str, bytes]:
    there = objects.keys(client, bucket)
    return {key: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in there}


def publish(client, bucket: str, ref: str, publication: str) -> None:
    """As the store does it: files, then the record."""
    for name in ("pixels", "made.json"):
        put(client, bucket, **{f"store/{ref}/{publication}/{name}": publication.encode()})
    told = {"objects": publication, "files": {"pixels": {}, "made.json": {}}}
    put(client, bucket, **{f"store/{ref}/artifact.json": json.dumps(told).encode()})


def saved_names(archive: io.BytesIO) -> list[str]:
    archive.seek(0)
    with tarfile.open(fileobj=archive) as opened:
        names = opened.getnames()
    archive.seek(0)
    return names


def test_objects_are_saved_and_loaded_whole(buckets):
    client, source, target = buckets
    publish(client, source, "scan/a", "1")
    given = {"mlflow/ä b": b"model", "store/pointers/anew/a.json": b"1", "store/pointers/dataset-versions/v.json": b"2"}
    put(client, source, **given, **{"store/gan/b/artifact.json": b"damaged", "store/gan/b/1/pixels": bytes(9_000_000)})
    before = content_of(client, source)
    put(client, source, **{"store/leases/held": b"held"})

    rest, state = io.BytesIO(), io.BytesIO()
    assert (objects.save_state(source, state), objects.save(source, rest)) == (1, 7)
    assert saved_names(state) == ["store/pointers/anew/a.json"]
    *_, one, other, version = saved_names(rest)
    assert {one, other} == {"store/scan/a/artifact.json", "store/gan/b/artifact.json"}
    assert version == "store/pointers/dataset-versions/v.json"
    assert (objects.load(target, rest), objects.load(target, state)) == (7, 1)
    assert content_of(client, target) == before


@pytest.mark.parametrize("listing", [1, 2, 3, 4])
def test_what_is_published_replaced_or_removed_meanwhile_is_saved_whole_or_not_at_all(buckets, monkeypatch, listing):
    client, source, target = buckets
    for ref in ("scan/kept", "scan/replaced", "scan/removed"):
        publish(client, source, ref, "1")
    put(client, source, **{"store/unfinished/gan/c/ckpt-1.index": b"1"})
    version = f"{objects.DATASET_VERSIONS}newest.json"
    put(client, source, **{version: b'{"ref": "scan/kept"}'})
    listed, really = iter(range(1, 10)), objects.keys

    def meanwhile(*given):
        if next(listed) == listing:
            publish(client, source, "scan/new", "1")
            publish(client, source, "scan/replaced", "2")
            put(client, source, **{version: b'{"ref": "scan/new"}', f"{objects.ALL_POINTERS}anew/a.json": b"newer"})
            for name in ("artifact.json", "1/pixels", "1/made.json"):
                client.delete_object(Bucket=source, Key=f"store/scan/removed/{name}")
            client.delete_object(Bucket=source, Key="store/unfinished/gan/c/ckpt-1.index")
        return really(*given)

    archive = io.BytesIO()
    with monkeypatch.context() as patched:
        patched.setattr(objects, "keys", meanwhile)
        objects.save(source, archive)
    saved_names(archive)
    objects.load(target, archive)

    there = content_of(client, target)
    records = {key: content for key, content in there.items() if objects.RECORDS.fullmatch(key)}
    assert all(objects.named_by(key, content) <= there.keys() for key, content in records.items())
    assert {"store/scan/kept/artifact.json", "store/scan/replaced/artifact.json"} <= records.keys()
    assert ("store/scan/new/artifact.json" in records) is (listing <= 2)
    assert "store/scan/removed/artifact.json" not in records
    # What a version names is there, and no pointer is newer than the databases.
    assert f"store/{json.loads(there[version])['ref']}/artifact.json" in records
    assert [key for key in there if key.startswith(objects.ALL_POINTERS)] == [version]


@pytest.mark.slow
@pytest.mark.parametrize("further", [1, 2])
def test_of_a_training_that_goes_on_meanwhile_the_checkpoints_count_that_were_saved(buckets, monkeypatch, further):
    import tensorflow as tf

    from cxr_tasks.checkpoints import CheckpointFolder, checkpoint_numbers

    _, source, target = buckets
    steps = tf.Variable(0)
    saved_store, restored_store = (open_store(f"s3://{bucket}/store") for bucket in (source, target))
    folder = saved_store.load_checkpoint("gan/c")
    training, really = CheckpointFolder([steps], folder, 2), objects.keys

    def go_on(number):
        for _ in range(number):
            steps.assign_add(1)
            training.save(int(steps.numpy()), {}, {})
            saved_store.save_checkpoint("gan/c")

    def then_goes_on(*given):
        listed = really(*given)
        go_on(further)
        return listed

    go_on(3)
    archive = io.BytesIO()
    with monkeypatch.context() as patched:
        patched.setattr(objects, "keys", then_goes_on)
        objects.save(source, archive)
    saved_names(archive)
    objects.load(target, archive)
    shutil.rmtree(folder)

    there = restored_store.load_checkpoint("gan/c")
    found = CheckpointFolder([steps], there, 2).restore()
    assert all((there / f"ckpt-{number}.index").is_file() for number in checkpoint_numbers(there))
    # Two are there at a time. Where two more were made since they were listed, none of the listed ones is left.
    assert (found is not None and steps.numpy() == found.number > 3) is (further == 1)


# --- The real thing -------------------------------------------------------------------------------------------

FORM = {"profile": "quick", "settings": ONE_PAIR}
# A training that is at work while everything is saved, and writes a checkpoint a second.
LONG = {
    "profile": "quick",
    "settings": {**ONE_PAIR, "gan": {**ONE_PAIR["gan"], "epochs": 150, "checkpoint_seconds": 1}},
}
GAN = "gan.train_gan"
RUN_SECONDS = 3600


class ContainersApi(SignedInApi):
    """A client of the API, past TLS, and what it tells of runs."""

    def __init__(self, env: dict[str, str]) -> None:
        super().__init__(f"http://localhost:{env['AIRFLOW_PORT']}", env)

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

    def task(self, dag: str, run: str, name: str) -> dict[str, Any]:
        """One task of a run, which is not mapped."""
        return next(task for task in self.tasks(dag, run) if task["task_id"] == name)

    def history(self) -> dict[str, str]:
        """Every run of the project, and its state."""
        runs = [run for dag in self.dags() for run in self.get(f"/dags/{dag}/dagRuns")["dag_runs"]]
        return {f"{run['dag_id']} {run['dag_run_id']}": run["state"] for run in runs}


class Tracking:
    """What MLflow holds, asked as the administrator."""

    def __init__(self, env: dict[str, str]) -> None:
        account = (env["MLFLOW_ADMIN_USERNAME"], env["MLFLOW_ADMIN_PASSWORD"])
        self.http = httpx.Client(base_url=f"http://localhost:{env['MLFLOW_PORT']}", auth=account, timeout=60)

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
    (folder / "certificates").mkdir()
    make_certificate(folder / "certificates")
    subprocess.run(["chmod", "-R", "a+rX", str(folder / "certificates")], check=True)
    ports = {name: free_port() for name in ("AIRFLOW_PORT", "MLFLOW_PORT", "S3_PORT", "TLS_PORT", "HTTP_PORT")}
    containers.first_env(folder / "first", str(folder / "data"), "quick")
    values = read_env(folder / "first") | {name: str(port) for name, port in ports.items()}
    values |= {
        "COMPOSE_PROJECT_NAME": f"cxr-test-{os.getpid()}",
        "CXR_VERSION": "test",
        "COMPOSE_PROFILES": "tls",
        "AIRFLOW_URL": f"https://{AIRFLOW_NAME}:{ports['TLS_PORT']}",
        "MLFLOW_URL": f"https://{MLFLOW_NAME}:{ports['TLS_PORT']}",
        "MLFLOW_ALLOWED_HOSTS": f"{MLFLOW_NAME}:*,localhost:*",
        "FORWARDED_ALLOW_IPS": "*",
        "TLS_FOLDER": str(folder / "certificates"),
        "TLS_BIND_ADDRESS": "127.0.0.1",
    }
    write_env(folder / "env", values)
    stack = Containers(folder / "env")
    try:
        stack.up()
        yield stack
    finally:
        stack.compose("down", "--volumes", "--remove-orphans")


@pytest.mark.containers
@pytest.mark.timeout(10800)
def test_people_reach_airflow_and_mlflow_by_tls(stack):
    env = stack.env
    airflow, mlflow = env["AIRFLOW_URL"], env["MLFLOW_URL"]
    for name, url in ((AIRFLOW_NAME, airflow), (MLFLOW_NAME, mlflow)):
        asked = httpx.get(f"http://127.0.0.1:{env['HTTP_PORT']}/a?b=c", headers={"Host": name})
        assert (asked.status_code, asked.headers["location"]) == (308, f"{url}/a?b=c")
    with browser(Path(env["TLS_FOLDER"]).parent) as client:
        with pytest.raises(httpx.ConnectError):
            client.get(f"https://localhost:{env['TLS_PORT']}/")
        page = client.get(f"{airflow}/auth/login/")
        assert page.status_code == 200 and page.headers["strict-transport-security"]
        login = {part: env[f"AIRFLOW_ADMIN_{part.upper()}"] for part in ("username", "password")}
        token = client.post(f"{airflow}/auth/token", json=login).json()["access_token"]
        asked = client.get(f"{airflow}/api/v2/dags", headers={"Authorization": f"Bearer {token}"})
        assert asked.status_code == 200 and asked.json()["total_entries"]
        assert_page(client, f"{airflow}/", headers={"Authorization": f"Bearer {token}"})
        account = (env["MLFLOW_ADMIN_USERNAME"], env["MLFLOW_ADMIN_PASSWORD"])
        assert client.get(f"{mlflow}/").status_code == 401
        assert_page(client, f"{mlflow}/", auth=account)
        for origin, status in ((mlflow, 200), ("https://evil.example", 403)):
            search = f"{mlflow}/ajax-api/2.0/mlflow/runs/search"
            asked = client.post(search, json={"experiment_ids": ["0"]}, auth=account, headers={"Origin": origin})
            assert asked.status_code == status


def assert_page(client: httpx.Client, url: str, **options: Any) -> None:
    """A page is there, and so are its scripts."""
    page = client.get(url, **options)
    assert page.status_code == 200, page.text[:500]
    base = re.search(r'<base href="([^"]*)"', page.text)
    scripts = re.findall(r'<script[^>]* src="([^"]+)"', page.text)
    assert scripts
    for script in scripts:
        address = httpx.URL(url).join(base[1] if base else "").join(script)
        assert str(address).startswith("https://") and client.get(address, **options).status_code == 200, address


@pytest.mark.containers
@pytest.mark.timeout(10800)
def test_a_stack_that_was_up_ran_and_was_destroyed_is_restored(stack, tmp_path):
    assert set(stack.states().values()) == {"healthy", "done"}
    assert no_secret_is_in_the_list_of_processes(stack)
    api, tracking = ContainersApi(stack.env), Tracking(stack.env)
    assert api.wait_for_dags(["cxr_data", "cxr_training"]) is None

    api.wait_for("cxr_data", api.trigger("cxr_data", FORM))
    training = begun(api)
    states = api.wait_for("cxr_training", training)
    assert "success" in {state for name, state in states.items() if "report" in name}
    print(docker("stats", "--no-stream", "--format", "{{.Name}}: {{.MemUsage}}"))

    long = api.trigger("cxr_training", LONG)
    while not checkpoints(stack):
        assert api.task("cxr_training", long, GAN)["state"] != "failed"
        time.sleep(2)
    before = api.history(), tracking.runs(), tracking.models()
    assert all(before) and len(before[0]) == 3
    stack.backup(tmp_path / "saved")
    assert stat.S_IMODE((tmp_path / "saved").stat().st_mode) == 0o700
    assert api.task("cxr_training", long, GAN)["state"] == "running", "make the training longer"
    api.wait_for("cxr_training", long)
    assert {task["try_number"] for task in api.tasks("cxr_training", long) if task["state"] == "success"} == {1}
    stack.compose("down", "--volumes")
    assert not stack._volumes()
    stack.restore(tmp_path / "saved")

    api, tracking = ContainersApi(stack.env), Tracking(stack.env)
    assert api.history() == before[0] and tracking.models() == before[2]
    ended = {run for run, status in before[1].items() if status == "FINISHED"}
    assert ended <= {run for run, status in tracking.runs().items() if status == "FINISHED"}
    told = named_artifacts(stack)
    assert told["lost"] == [] and min(told["named"], told["artifacts"], told["places"], told["files"]) > 5, told
    configured = api.task("cxr_training", training, "configure")
    log = f"/dags/cxr_training/dagRuns/{training}/taskInstances/configure/logs/{configured['try_number']}"
    assert "configure" in json.dumps(api.get(log))
    # What was at work goes on, and not from its beginning.
    api.wait_for("cxr_training", long)
    assert api.result("cxr_training", long, api.task("cxr_training", long, GAN))["resumed_from"] > 0
    assert named_artifacts(stack)["lost"] == []
    # The store is there: the same images are no new dataset.
    states = api.wait_for("cxr_data", api.trigger("cxr_data", FORM))
    assert states["publish/-1"] == "skipped"
    with pytest.raises(CannotGoOn, match="a restore fills new ones only"):
        stack.restore(tmp_path / "saved")


# What the versions before had.
OLDER_AIRFLOW = ["airflow", "db", "downgrade", "--to-version", "3.2.0", "--yes"]
OLDER_MLFLOW = """
import os
from alembic import command
from mlflow.store.db.utils import _get_alembic_config
command.downgrade(_get_alembic_config(os.environ["MLFLOW_BACKEND_STORE_URI"]), "-3")
"""


@pytest.mark.containers
@pytest.mark.timeout(10800)
def test_databases_of_older_versions_are_brought_up_to_date(stack):
    """Of the stack that the test above leaves."""
    api, tracking = ContainersApi(stack.env), Tracking(stack.env)
    before = api.history(), tracking.runs(), tracking.models()
    assert all(before)
    stack.compose("stop", "worker-cpu", "scheduler", "dag-processor", "triggerer", "api-server", "mlflow")
    once = ["run", "--rm", "--no-deps", "-T", "--entrypoint"]
    stack.compose(*once, OLDER_AIRFLOW[0], "scheduler", *OLDER_AIRFLOW[1:])
    stack.compose(*once, "python", "mlflow", "-c", OLDER_MLFLOW)
    stack.compose("down")

    stack.up()

    api, tracking = ContainersApi(stack.env), Tracking(stack.env)
    assert (api.history(), tracking.runs(), tracking.models()) == before
    assert named_artifacts(stack)["lost"] == []
    api.wait_for("cxr_training", api.trigger("cxr_training", FORM))


def checkpoints(stack: Containers) -> list[str]:
    """The objects of trainings that have not ended."""
    given = {"aws_access_key_id": stack.env["S3_ACCESS_KEY"], "aws_secret_access_key": stack.env["S3_SECRET_KEY"]}
    s3 = boto3.client("s3", endpoint_url=f"http://localhost:{stack.env['S3_PORT']}", region_name="us-east-1", **given)
    return [key for key in objects.keys(s3, stack.env["S3_BUCKET"], objects.CHECKPOINTS) if key.endswith(".index")]


def named_artifacts(stack: Containers) -> dict[str, Any]:
    """What a worker can read of all that Airflow, MLflow and the store name, see named_artifacts.py."""
    with (ROOT / "tests/infra/named_artifacts.py").open("rb") as script:
        told = stack.compose("exec", "-T", "worker-cpu", "python", "-", stdin=script, stdout=subprocess.PIPE).stdout
    print(told.decode())
    return json.loads(told.splitlines()[-1])


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
