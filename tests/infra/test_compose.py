"""The stack of many services, checked against the code and the packages that it starts.

No container runs here: commands go through the real parsers, scripts run in a temporary folder, and names and
ports are compared with what reads them.
"""

import ast
import configparser
import json
import os
import re
import runpy
import shlex
import shutil
import socket
import stat
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import boto3
import pytest
from cryptography.fernet import Fernet
from moto import mock_aws

from infra.embedded.stack import OUTLASTING, Stack
from tests.infra.compose import (
    COMPOSE,
    COMPOSE_TEXT,
    ROOT,
    SERVICES,
    VARIABLE,
    command,
    environment,
    example,
    filled,
    resolve,
)

# The service `serving` has the image and nothing of Airflow.
AIRFLOW = [
    name for name, service in SERVICES.items() if service["image"].startswith("cxr-airflow") and name != "serving"
]
WORKERS = ["worker-cpu", "worker-gpu"]
ONE_SHOT = ["airflow-init", "s3-bucket", "s3-volume"]
READ_BY_COMPOSE = {"COMPOSE_PROJECT_NAME", "COMPOSE_PROFILES"}
WORKER_SCRIPT = "infra/airflow/worker.sh"

SECRET = re.compile(r"PASSWORD|SECRET|FERNET|ACCESS_KEY|AUTH$|JWT(?!_EXPIRATION)")
SCRIPTS = [
    ROOT / "mlflow/start.sh",
    ROOT / "infra/airflow/init.sh",
    ROOT / "infra/airflow/worker.sh",
    ROOT / "infra/redis/start.sh",
    ROOT / "infra/postgres/databases.sh",
    ROOT / "infra/s3/start.sh",
    ROOT / "infra/tls/start.sh",
]
DOCKERFILES = ("infra/images/airflow.Dockerfile", "mlflow/Dockerfile")


def python(code: str, env: dict[str, str], cwd: Path, *arguments: str) -> str:
    """Run ``code`` in a fresh interpreter and return the last line it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={"PATH": os.environ["PATH"], "HOME": str(cwd), "PYTHONPATH": str(ROOT), **env},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.strip().rpartition("\n")[2]


def run_script(path: Path, env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", str(path), *arguments], env=env, capture_output=True, text=True, check=False)


def stand_in(folder: Path, name: str) -> str:
    """A program that only notes its arguments; returns a PATH on which it comes first."""
    program = folder / name
    program.write_text(f'#!/bin/sh\nfor part in "$@"; do printf "%s\\n" "$part"; done > "{folder}/{name}.arguments"\n')
    program.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def trees(*folders: str) -> list[ast.Module]:
    # Services start no command of `cxr`.
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    paths = [path for path in found if not path.is_relative_to(ROOT / "cxr_tasks/cli")]
    return [ast.parse(path.read_text(encoding="utf-8")) for path in paths]


def text(node: ast.AST | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def names_read(*folders: str) -> set[str]:
    """Environment variables that Python files read by a literal name."""
    found: set[str | None] = set()
    for node in (node for tree in trees(*folders) for node in ast.walk(tree)):
        match node:
            case ast.Subscript(value=ast.Attribute(attr="environ") | ast.Name(id="environ"), slice=name):
                found.add(text(name))
            case ast.Call(
                func=ast.Attribute(value=ast.Attribute(attr="environ") | ast.Name(id="environ")), args=[name, *_]
            ):
                found.add(text(name))
            case ast.Call(func=ast.Attribute(attr="getenv") | ast.Name(id="getenv"), args=[name, *_]):
                found.add(text(name))
            case ast.Compare(left=name, comparators=[ast.Attribute(attr="environ") | ast.Name(id="environ")]):
                found.add(text(name))
    return {name for name in found if name}


def values_given(key: str) -> set[str]:
    """Literal values that DAG files and plugins give to the task argument ``key``, as keyword or in a dict."""
    found: set[str | None] = set()
    for node in (node for tree in trees("dags", "plugins") for node in ast.walk(tree)):
        if isinstance(node, ast.keyword) and node.arg == key:
            found.add(text(node.value))
        if isinstance(node, ast.Dict):
            found |= {text(v) for k, v in zip(node.keys, node.values, strict=True) if text(k) == key}
    return {value for value in found if value}


def listening() -> dict[str, int]:
    """The port on which each service answers, from its own command where that says so."""
    s3 = re.search(r"-s3\.port=(\d+)", (ROOT / "infra/s3/start.sh").read_text())
    mlflow = next(part for part in command("mlflow") if part.startswith("--port="))
    api, served = command("api-server"), command("serving")
    assert s3
    return {
        "postgres": 5432,
        "redis": 6379,
        "seaweedfs": int(s3[1]),
        "mlflow": int(mlflow.split("=")[1]),
        "api-server": int(api[api.index("--port") + 1]),
        "serving": int(served[served.index("--port") + 1]),
    }


# --- The environment against the code that reads it -----------------------------------------------------------


def test_what_the_code_reads_is_set_for_every_airflow_service():
    read = {name for name in names_read("cxr_tasks", "dags", "plugins") if name.startswith(("CXR_", "MLFLOW_", "AWS_"))}
    assert "CXR_STORE" in read
    for service in AIRFLOW:
        assert read <= set(SERVICES[service]["environment"]), service


def test_what_is_set_is_read_somewhere():
    if not list((ROOT / "dags").glob("*.py")):
        pytest.skip("there is no DAG file yet, and DAG files read some of it")
    read = names_read("cxr_tasks", "dags", "plugins")
    for service in SERVICES:
        given = {name for name in SERVICES[service]["environment"] if name.startswith("CXR_")}
        assert given <= read, service


def test_airflow_services_share_one_environment():
    extra = {"AIRFLOW_ADMIN_USERNAME", "AIRFLOW_ADMIN_PASSWORD", "AIRFLOW_ADMIN_EMAIL"}
    common = SERVICES["scheduler"]["environment"]
    for service in AIRFLOW:
        given = SERVICES[service]["environment"]
        assert {name: value for name, value in given.items() if name not in extra} == common, service


def test_profile_default_exists():
    assert (ROOT / f"cxr_tasks/profiles/{example()['CXR_PROFILE']}.yaml").is_file()


def test_env_example_names_exactly_what_compose_asks_for():
    uses = list(VARIABLE.finditer(COMPOSE_TEXT))
    assert set(example()) == {use["name"] for use in uses} | READ_BY_COMPOSE
    for use in uses:
        given = example()[use["name"]]
        if use["operator"] == "?":
            assert given == "", f"{use['name']} must be filled in by the user"
            assert re.match(rf"Set {use['name']} .*infra/env\.example", use["rest"])
        else:
            assert given == use["rest"], f"{use['name']} has another default in env.example"


def test_every_secret_is_required_and_none_is_written_down():
    for service, described in SERVICES.items():
        for name, value in described["environment"].items():
            if SECRET.search(name):
                assert VARIABLE.fullmatch(str(value)), f"{service}: {name} is written down"
            if inside := re.search(r"://[^:/]*:(.+)@", str(value)):
                assert VARIABLE.fullmatch(inside[1]), f"{service}: {name} holds a password"
    required = {use["name"] for use in VARIABLE.finditer(COMPOSE_TEXT) if use["operator"] == "?"}
    assert {name for name in example() if SECRET.search(name)} == required - {"CXR_DATA"}


def test_command_for_the_fernet_key_makes_one():
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    line = next(line for line in (ROOT / "infra/env.example").read_text().splitlines() if "base64" in line)
    made = subprocess.run(["sh", "-c", line.lstrip("# ")], capture_output=True, text=True, check=True)
    Fernet(made.stdout.strip())


# --- Airflow --------------------------------------------------------------------------------------------------

ASK_AIRFLOW = """
import json, shlex, sys
from unittest import mock
asked = json.loads(sys.argv[1])
from airflow.configuration import conf
from airflow.providers_manager import ProvidersManager
ProvidersManager().initialize_providers_configuration()
options = {s: sorted(d["options"]) for s, d in conf.configuration_description.items()}

from airflow.executors.executor_loader import ExecutorLoader
executors = [[name.alias, name.module_path] for name in ExecutorLoader.get_executor_names()]
auth_manager = conf.getimport("core", "auth_manager").__name__
from airflow.providers.celery.executors.celery_executor import app
visibility = app.conf.broker_transport_options["visibility_timeout"]

from airflow.cli.cli_parser import get_parser
refused = []
for line in asked["commands"]:
    try:
        get_parser().parse_args(line[1:])
    except SystemExit as error:
        refused.append([line, str(error)])

from airflow.api.client.local_client import Client
from airflow.cli.commands import pool_command
client = mock.create_autospec(Client, instance=True)
with mock.patch.object(pool_command, "get_current_api_client", return_value=client):
    pools, failed = pool_command.pool_import_helper(asked["pools"])
print(json.dumps({
    "options": options, "executors": executors, "auth_manager": auth_manager, "visibility": visibility,
    "refused": refused, "pools": len(pools), "failed": failed,
    "health_port": conf.getint("scheduler", "scheduler_health_check_server_port"),
}))
"""


def airflow_commands() -> list[list[str]]:
    """Every ``airflow …`` in the compose file and in the scripts that prepare the database and start a worker."""
    lines = [command(service) for service in AIRFLOW]
    (started,) = [line for line in (ROOT / WORKER_SCRIPT).read_text().splitlines() if line.startswith("exec airflow ")]
    given = [line[2:] for line in lines if line[:2] == ["sh", f"/opt/cxr/{WORKER_SCRIPT}"]]
    lines += [[*shlex.split(started)[1:-1], *arguments] for arguments in given]
    for service in AIRFLOW:
        test = SERVICES[service].get("healthcheck", {}).get("test", [])
        lines += [shlex.split(part) for part in test if part.startswith("airflow ")]
    script = (ROOT / "infra/airflow/init.sh").read_text().replace("\\\n", " ")
    lines += [shlex.split(line) for line in script.splitlines() if line.startswith("airflow ")]
    return [line for line in lines if line[:1] == ["airflow"]]


@pytest.fixture(scope="module")
def airflow(tmp_path_factory):
    """What the installed Airflow says when it is given the environment of the workers."""
    home = tmp_path_factory.mktemp("airflow")
    asked = {"commands": airflow_commands(), "pools": str(ROOT / "infra/airflow/pools.json")}
    env = environment("worker-gpu") | {"AIRFLOW_HOME": str(home)}
    for folder in ("dags", "plugins"):
        env[f"AIRFLOW__CORE__{folder.upper()}_FOLDER"] = str(home / folder)
    return json.loads(python(ASK_AIRFLOW, env, home, json.dumps(asked)))


def test_airflow_settings_exist(airflow):
    given = {name for service in AIRFLOW for name in SERVICES[service]["environment"] if name.startswith("AIRFLOW__")}
    assert given
    for name in given:
        section, option = name.removeprefix("AIRFLOW__").lower().split("__")
        # Airflow's scheduler reads this one, and its list of options does not have it.
        if option != "num_stuck_in_queued_retries":
            assert option in airflow["options"].get(section, []), name


def test_airflow_accepts_every_command(airflow):
    lines = [" ".join(line[1:3]) for line in airflow_commands()]
    assert {"api-server --port", "celery worker", "scheduler", "dag-processor", "triggerer"} <= set(lines)
    assert {"db migrate", "pools import"} <= set(lines)
    assert airflow["refused"] == []


def test_tasks_outlast_servers_alike_in_both_stacks(tmp_path):
    given = environment("worker-gpu")
    embedded = Stack(tmp_path, 1, 2, {}).environment

    assert {name: given.get(name) for name in OUTLASTING} == OUTLASTING
    assert {name: embedded[name] for name in OUTLASTING} == OUTLASTING


def test_what_holds_for_programs_anywhere_is_alike_in_both_stacks(tmp_path):
    given = {**environment("mlflow"), **environment("worker-gpu")}
    kind = re.compile(r"(AIRFLOW|MLFLOW|GX|TF)_.*(TIMEOUT|TELEMETRY|ANALYTICS|GROWTH|JOB_EXECUTION)")
    embedded = {name: value for name, value in Stack(tmp_path, 1, 2, {}).environment.items() if kind.match(name)}

    assert len(embedded) > 5 and {name: given.get(name) for name in embedded} == embedded


def test_a_token_outlives_the_longest_task_and_a_request_half_an_hour():
    given = {name.rpartition("__")[2]: float(value) for name, value in OUTLASTING.items()}

    # What is left of a token when a heartbeat does not renew it yet is a fifth of its life.
    assert given["JWT_EXPIRATION_TIME"] > 7 * 24 * 3600
    assert (given["EXECUTION_API_RETRIES"] - 1) * given["EXECUTION_API_RETRY_WAIT_MIN"] >= 1800
    assert given["TASK_INSTANCE_HEARTBEAT_TIMEOUT"] > 600
    assert given["MAX_FAILED_HEARTBEATS"] * 5 >= 600


def test_gpu_is_a_name_of_the_one_executor(airflow):
    assert [alias for alias, _ in airflow["executors"]] == ["gpu"]
    assert airflow["executors"][0][1].endswith("CeleryExecutor")
    assert airflow["auth_manager"] == "FabAuthManager"
    assert values_given("executor") <= {"gpu"}


def test_redis_waits_longer_than_the_longest_task(airflow):
    assert airflow["visibility"] > 7 * 24 * 3600


def test_pools_are_accepted_and_hold_what_dags_name(airflow):
    pools = json.loads((ROOT / "infra/airflow/pools.json").read_text())
    assert (airflow["pools"], airflow["failed"]) == (len(pools), [])
    assert pools["gpu"]["slots"] == 1
    assert pools["training"]["slots"] == 2
    assert values_given("pool") <= {*pools, "default_pool"}


def test_workers_serve_every_queue_that_dags_name():
    served = {queue for name in WORKERS for queue in command(name)[command(name).index("--queues") + 1].split(",")}
    assert served == {"default", environment("scheduler")["CXR_GPU_QUEUE"]}
    # What they name is what that variable says.
    assert values_given("queue") == set()
    assert SERVICES["worker-cpu"]["environment"]["AIRFLOW__OPERATORS__DEFAULT_QUEUE"] in served


def test_gpu_worker_asks_for_one_gpu_and_trains_one_at_a_time():
    worker = SERVICES["worker-gpu"]
    assert worker["profiles"] == ["gpu"]
    pools = json.loads((ROOT / "infra/airflow/pools.json").read_text())
    assert command("worker-gpu")[-2:] == ["--concurrency", str(pools["gpu"]["slots"])]
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}


# --- Serving --------------------------------------------------------------------------------------------------


def test_the_command_of_serving_is_one(tmp_path):
    arguments = command("serving")
    assert arguments[0] == "cxr"
    code = "import sys; from typer.main import get_command; from cxr_tasks.cli import app\n"
    code += "line = sys.argv[1:]; found = get_command(app).commands[line[0]].make_context(line[0], line[1:])\n"
    code += "print(found.params['host'], found.params['token'])"

    said = python(code, environment("serving"), tmp_path, *arguments[1:])

    assert said == f"0.0.0.0 {environment('serving')['SERVING_TOKEN']}"
    assert SERVICES["serving"]["profiles"] == ["serving"]


# --- MLflow ---------------------------------------------------------------------------------------------------

ASK_MLFLOW = """
import json, sys
asked = json.loads(sys.argv[1])
from mlflow import environment_variables
from mlflow.cli import cli
from mlflow.server.auth.config import read_auth_config
from mlflow.server.security_utils import is_allowed_host_header
name, *arguments = asked["arguments"]
context = cli.commands[name].make_context(name, arguments)
hosts = context.params["allowed_hosts"].split(",")
known = set(dir(environment_variables)) | {p.envvar for p in cli.commands[name].params if isinstance(p.envvar, str)}
print(json.dumps({
    "params": {k: v for k, v in context.params.items() if isinstance(v, (str, int, bool, type(None)))},
    "auth": read_auth_config()._asdict(),
    "unknown": sorted(set(asked["names"]) - known),
    "admitted": {host: is_allowed_host_header(hosts, host) for host in asked["hosts"]},
}))
"""


def start_mlflow(folder: Path, changes: dict[str, str]) -> tuple[subprocess.CompletedProcess[str], dict[str, str]]:
    stand_in(folder, "python")
    env = environment("mlflow") | {
        "PATH": stand_in(folder, "mlflow"),
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        **changes,
    }
    return run_script(ROOT / "mlflow/start.sh", env, *command("mlflow")), env


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory):
    """What the installed MLflow says to the arguments and the file that its entrypoint makes."""
    folder = tmp_path_factory.mktemp("mlflow-server")
    done, env = start_mlflow(folder, {})
    assert done.returncode == 0, done.stderr
    asked = {
        "arguments": (folder / "mlflow.arguments").read_text().splitlines(),
        "names": [n for s in ("mlflow", *WORKERS) for n in SERVICES[s]["environment"] if n.startswith("MLFLOW_")],
        "hosts": ["mlflow:5000", "localhost:5000", "127.0.0.1:5000", "elsewhere.example:5000"],
    }
    return json.loads(python(ASK_MLFLOW, env, folder, json.dumps(asked)))


def test_mlflow_accepts_its_arguments(mlflow_server):
    params = mlflow_server["params"]
    assert params["app_name"] == "basic-auth"
    assert params["serve_artifacts"] is True
    assert params["artifacts_destination"] == "s3://cxr/mlflow"
    assert params["backend_store_uri"] == environment("mlflow")["MLFLOW_BACKEND_STORE_URI"]


def test_mlflow_knows_its_users_database_and_administrator(mlflow_server):
    auth, env = mlflow_server["auth"], environment("mlflow")
    assert auth["database_uri"] == env["MLFLOW_AUTH_DATABASE_URI"]
    assert auth["database_uri"].endswith("/mlflow_auth")
    assert auth["admin_username"] == environment("worker-cpu")["MLFLOW_TRACKING_USERNAME"]
    assert auth["admin_password"] == environment("worker-cpu")["MLFLOW_TRACKING_PASSWORD"]


def test_mlflow_answers_to_its_own_names_only(mlflow_server):
    assert mlflow_server["admitted"] == {
        "mlflow:5000": True,
        "localhost:5000": True,
        "127.0.0.1:5000": True,
        "elsewhere.example:5000": False,
    }


def test_mlflow_variables_exist(mlflow_server):
    ours = re.findall(r"MLFLOW_\w+", (ROOT / "mlflow/start.sh").read_text())
    # The client reads this one without listing it among its variables.
    assert set(mlflow_server["unknown"]) - set(ours) <= {"MLFLOW_TRACKING_URI"}


def test_auth_file_is_private_and_keeps_percent_signs(tmp_path):
    uri = "postgresql+psycopg2://mlflow:a%40b@postgres:5432/mlflow_auth"
    done, _ = start_mlflow(tmp_path, {"MLFLOW_AUTH_DATABASE_URI": uri})
    assert done.returncode == 0, done.stderr
    path = tmp_path / "auth.ini"
    written = configparser.ConfigParser()
    written.read(path)
    assert written["mlflow"]["database_uri"] == uri
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert filled()["MLFLOW_ADMIN_PASSWORD"] not in path.read_text()


def test_an_older_database_is_brought_to_the_installed_version(tmp_path):
    """Within Python, where nobody reads the password of the database among the arguments of a process."""
    done, env = start_mlflow(tmp_path, {"MLFLOW_BACKEND_STORE_URI": f"sqlite:///{tmp_path}/mlflow.db"})
    assert done.returncode == 0, done.stderr
    asked, script = (tmp_path / "python.arguments").read_text().split("\n", 1)
    assert asked == "-c" and env["MLFLOW_BACKEND_STORE_URI"] not in script
    told = {name: env[name] for name in ("MLFLOW_BACKEND_STORE_URI", "HOME") if name in env}
    older = (
        "import os; from alembic import command; from mlflow.store.db import utils; "
        "at = utils._get_alembic_config(os.environ['MLFLOW_BACKEND_STORE_URI'])\n"
    )

    python(script, told, tmp_path)
    python(f"{older}command.downgrade(at, '-2')", told, tmp_path)
    python(script, told, tmp_path)

    current = "from sqlalchemy import create_engine; engine = create_engine(os.environ['MLFLOW_BACKEND_STORE_URI'])\n"
    python(f"{older}{current}utils._verify_schema(engine)", told, tmp_path)


@pytest.mark.parametrize("name", ["MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_AUTH_DATABASE_URI", "MLFLOW_BACKEND_STORE_URI"])
def test_entrypoint_names_what_is_missing(tmp_path, name):
    done, _ = start_mlflow(tmp_path, {name: ""})
    assert done.returncode != 0
    assert f"Set {name}" in done.stderr
    assert not (tmp_path / "mlflow.arguments").exists()


def test_mlflow_folder_hides_no_package(tmp_path):
    assert not list((ROOT / "mlflow").rglob("__init__.py"))
    code = "import importlib.util; print(importlib.util.find_spec('mlflow').origin)"
    found = Path(python(code, {"PYTHONPATH": ""}, ROOT))
    assert "site-packages" in found.parts
    assert Path(python(code, {}, tmp_path)) == found


# --- Ports and addresses --------------------------------------------------------------------------------------


def test_addresses_between_services_name_a_service_and_its_port():
    seen = set()
    for service in SERVICES:
        for name, value in environment(service).items():
            match = re.match(
                r"(?:http|redis|db\+postgresql\+psycopg2|postgresql\+psycopg2)://(?:[^/@]*@)?([^/:]+):(\d+)", value
            )
            if match and match[1] != "localhost":
                assert listening().get(match[1]) == int(match[2]), f"{service}: {name}"
                seen.add(match[1])
    assert seen == set(listening()) - {"serving"}


def test_databases_in_addresses_are_made():
    made = re.findall(r"CREATE DATABASE (\w+) OWNER (\w+)", (ROOT / "infra/postgres/databases.sh").read_text())
    used = set()
    for service in ("scheduler", "mlflow"):
        for value in environment(service).values():
            if match := re.search(r"://(\w+):[^@]*@postgres:\d+/(\w+)$", value):
                used.add((match[2], match[1]))
    assert used == set(made)


def test_health_checks_ask_the_port_that_is_served(airflow):
    tls = re.search(r"HTTP_LISTEN:-(\d+)", (ROOT / "infra/tls/start.sh").read_text())
    ports = listening() | {"scheduler": airflow["health_port"], "tls": int(tls[1])}
    assert environment("scheduler")["AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK"] == "true"
    asked = {}
    for service, described in SERVICES.items():
        for port in re.findall(
            r"http://127\.0\.0\.1:(\d+)", " ".join(described.get("healthcheck", {}).get("test", []))
        ):
            asked[service] = int(port)
    assert set(asked) == {"api-server", "mlflow", "scheduler", "seaweedfs", "serving", "tls"}
    assert asked == {service: ports[service] for service in asked}


def test_published_ports_are_on_loopback_and_agree_with_the_links():
    published = {}
    for service, described in SERVICES.items():
        # TLS is for other machines.
        for port in described.get("ports", []) if service != "tls" else []:
            assert VARIABLE.match(port)["name"] == "BIND_ADDRESS"
            address, outside, inside = resolve(port, {}).split(":")
            assert address == "127.0.0.1"
            assert int(inside) == listening()[service]
            published[service] = int(outside)
    assert set(published) == {"api-server", "mlflow", "seaweedfs", "serving"}
    env = SERVICES["api-server"]["environment"]
    assert resolve(env["AIRFLOW__API__BASE_URL"], {}) == f"http://localhost:{published['api-server']}"
    assert resolve(env["CXR_MLFLOW_UI"], {}) == f"http://localhost:{published['mlflow']}"


# --- Services -------------------------------------------------------------------------------------------------


def test_services_restart_rotate_logs_and_report_their_health():
    for name, service in SERVICES.items():
        assert service["restart"] == ("no" if name in ONE_SHOT else "unless-stopped"), name
        assert {"max-size", "max-file"} <= set(service["logging"]["options"]), name
        assert ("healthcheck" in service) == (name not in ONE_SHOT), name


def test_services_wait_for_what_they_need():
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            expected = "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
            assert how["condition"] == expected, f"{name} on {other}"
    for name in AIRFLOW:
        assert name == "airflow-init" or "airflow-init" in SERVICES[name]["depends_on"]


def test_volumes_are_declared_and_used_and_folders_exist():
    used = set()
    for service in SERVICES.values():
        for mount in service.get("volumes", []):
            source = mount["source"] if isinstance(mount, dict) else mount.split(":")[0]
            if source.startswith("./"):
                assert (ROOT / source).exists(), source
            elif not source.startswith(("${CXR_DATA", "${TLS_FOLDER")):
                used.add(source)
    assert used == set(COMPOSE["volumes"])


def test_workers_see_the_data_but_cannot_change_it():
    for name in WORKERS:
        (data,) = [mount for mount in SERVICES[name]["volumes"] if isinstance(mount, dict)]
        assert data["read_only"] is True
        assert data["target"] == environment(name)["CXR_SOURCE"]
        assert f"cxr-cache:{environment(name)['CXR_CACHE']}" in SERVICES[name]["volumes"]


def test_images_are_pinned():
    for name, service in SERVICES.items():
        assert re.search(r":\d+\.\d+", resolve(service["image"], {})), name
    for path in DOCKERFILES:
        for image in re.findall(r"^FROM (\S+:\S+)", (ROOT / path).read_text(), re.MULTILINE):
            assert re.search(r":\d+\.\d+\.\d+", image), path


COMPOSES = {"plugin": ["docker", "compose"], "program": ["docker-compose"]}


@pytest.mark.parametrize("name", COMPOSES)
def test_compose_accepts_the_file(tmp_path, name):
    program = COMPOSES[name]
    if not shutil.which(program[0]) or subprocess.run([*program, "version"], capture_output=True).returncode:
        pytest.skip(f"{' '.join(program)} is not installed")
    file = tmp_path / "env"
    file.write_text("".join(f"{name}={value}\n" for name, value in filled().items()))
    line = [*program, "--file", str(ROOT / "docker-compose.yaml"), "--profile", "gpu"]
    clean = {name: value for name, value in os.environ.items() if name not in example()}

    def check() -> subprocess.CompletedProcess[str]:
        whole = [*line, "--env-file", str(file), "config", "--quiet"]
        return subprocess.run(whole, env=clean, capture_output=True, text=True, check=False)

    done = check()
    assert done.returncode == 0, done.stderr
    file.write_text("")
    done = check()
    assert done.returncode != 0
    assert "infra/env.example" in done.stderr


# --- Images and lock files ------------------------------------------------------------------------------------


def pins(path: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9][\w.-]*)==([^\s;]+)", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE))


def copied(path: str) -> list[str]:
    """What a Dockerfile copies from the build context."""
    lines = (ROOT / path).read_text().replace("\\\n", " ").splitlines()
    return [part for line in lines if line.startswith("COPY") for part in line.split()[1:-1] if part[0] != "-"]


@pytest.mark.parametrize("path", DOCKERFILES)
def test_dockerfiles_copy_what_exists_and_install_by_hash(path):
    lines = (ROOT / path).read_text().replace("\\\n", " ").splitlines()
    for source in copied(path):
        assert (ROOT / source).exists(), source
    installs = [line for line in lines if "pip install" in line]
    # What is not locked is the project itself, from what was copied.
    own = [line for line in installs if "--no-deps" in line]
    locked = [line for line in installs if line not in own]
    assert locked
    for line in own:
        assert {"--no-index", "--no-deps", "--no-build-isolation", "/opt/cxr"} <= set(line.split())
        assert {"pyproject.toml", "cxr_tasks", "infra"} <= set(copied(path))
    for line in locked:
        assert "--require-hashes" in line
        assert re.search(r"-r /tmp/([\w.-]+)", line)[1] in copied(path)
    users = [line.split()[1] for line in lines if line.startswith("USER")]
    assert users[-1] not in {"root", "0"}


@pytest.mark.slow
def test_what_the_image_copies_installs_with_all_that_the_project_reads(tmp_path):
    line = next(
        line for line in (ROOT / DOCKERFILES[0]).read_text().splitlines() if "/opt/cxr" in line and "pip" in line
    )
    source, target = tmp_path / "opt/cxr", tmp_path / "site-packages"
    for each in copied(DOCKERFILES[0]):
        if (ROOT / each).is_dir():
            shutil.copytree(ROOT / each, source / each, ignore=shutil.ignore_patterns("__pycache__"))
        elif each in ("pyproject.toml", "LICENSE"):
            shutil.copy(ROOT / each, source)
    words = line.removeprefix("RUN pip ").rstrip(" \\").replace("/opt/cxr", str(source)).split()
    subprocess.run([sys.executable, "-m", "pip", *words, "--target", str(target)], check=True, capture_output=True)

    def data(root: Path) -> set[Path]:
        """Everything but code."""
        files = (path for path in root.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc"))
        return {path.relative_to(root) for path in files}

    assert data(target / "cxr_tasks") == data(ROOT / "cxr_tasks")
    packaged = {path.relative_to(target) for path in target.rglob("*.py") if path.parts[-2] != "bin"}
    assert packaged == {
        path.relative_to(ROOT)
        for name in ("cxr_tasks", "infra")
        for path in (ROOT / name).rglob("*.py")
        # Scripts are started by their paths.
        if name == "cxr_tasks" or "s3" not in path.parts
    }
    assert (target / "infra/airflow/pools.json").is_file()
    assert not (target / "mlflow").exists() and not (target / "dags").exists()


def test_the_builder_gets_what_dockerfiles_copy_and_nothing_else():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()

    assert "*" in ignored
    assert {f"!{source}" for path in DOCKERFILES for source in copied(path)} == {
        line for line in ignored if line.startswith("!")
    }


def test_each_image_of_our_own_is_built_by_one_service():
    built = [service["image"] for service in SERVICES.values() if "build" in service]
    assert len(set(built)) == len(built)
    assert {service["image"] for service in SERVICES.values() if service["image"].startswith("cxr-")} == set(built)


def test_no_service_runs_as_root_or_writes_to_its_image():
    own_user = {name for name, service in SERVICES.items() if service["image"].startswith("cxr-")}
    for name, service in SERVICES.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert name in own_user or re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"]) or name == "s3-volume", name
    # It gives the volume to the server's user, and ends.
    assert SERVICES["s3-volume"]["network_mode"] == "none"
    assert SERVICES["s3-volume"]["cap_add"] == ["CHOWN", "DAC_OVERRIDE"]


def test_every_service_that_stays_has_a_limit_of_memory():
    for name, service in SERVICES.items():
        assert name in ONE_SHOT or re.fullmatch(r"\d+[mg]", resolve(service["mem_limit"], {})), name


def test_health_checks_of_airflow_call_a_script_that_is_there():
    asked = {name: SERVICES[name]["healthcheck"]["test"] for name in (*WORKERS, "dag-processor", "triggerer")}
    for name, test in asked.items():
        assert test[:2] == ["CMD", "python"], name
        assert (ROOT / test[2].removeprefix("/opt/cxr/")).is_file(), name
    assert {test[3] for test in asked.values()} == {"worker", "DagProcessorJob", "TriggererJob"}


def test_every_health_check_waits_for_a_server_that_is_late_on_a_busy_host():
    inner = re.compile(r"(?:timeout=|--max-time\W+|--timeout )(\d+)")
    for name, service in SERVICES.items():
        if check := service.get("healthcheck"):
            assert check["timeout"] == "30s", name
            limits = inner.findall(" ".join(check["test"]))
            assert all(20 <= int(limit) < 30 for limit in limits), name
            assert limits or not re.search("urlopen|curl|pg_isready", " ".join(check["test"])), name


def test_redis_reads_its_password_from_a_private_file(tmp_path):
    settings = tmp_path / "redis.conf"
    env = environment("redis") | {"PATH": stand_in(tmp_path, "redis-server"), "REDIS_SETTINGS": str(settings)}
    done = run_script(ROOT / "infra/redis/start.sh", env)
    assert done.returncode == 0, done.stderr
    assert settings.read_text().splitlines() == ["appendonly yes", f"requirepass {env['REDISCLI_AUTH']}"]
    assert stat.S_IMODE(settings.stat().st_mode) == 0o600
    assert (tmp_path / "redis-server.arguments").read_text().splitlines() == [str(settings)]


def test_builds_name_existing_files_and_what_these_know():
    for name, service in SERVICES.items():
        if build := service.get("build"):
            dockerfile = ROOT / build["context"] / build.get("dockerfile", "Dockerfile")
            assert dockerfile.is_file(), name
            for argument, value in build.get("args", {}).items():
                assert re.search(rf"^ARG {argument}=", dockerfile.read_text(), re.MULTILINE)
                assert f'"${argument}" = {value}' in dockerfile.read_text()


@pytest.mark.parametrize("path", ["requirements.lock", "requirements-gpu.lock"])
def test_lock_files_hold_hashes_and_no_address(path):
    content = (ROOT / path).read_text(encoding="utf-8")
    assert "://" not in content
    for block in re.split(r"^(?=[a-z0-9])", content, flags=re.MULTILINE)[1:]:
        assert "--hash=sha256:" in block, block.splitlines()[0]


def test_gpu_lock_holds_the_cuda_libraries_of_tensorflow_and_nothing_else():
    asked = {
        re.match(r"[\w-]+", line)[0]
        for line in metadata.requires("tensorflow") or []
        if re.search(r"extra\s*==\s*['\"]and-cuda['\"]", line)
    }
    locked = set(pins("requirements-gpu.lock"))
    assert asked <= locked
    assert all(name.startswith("nvidia-") for name in locked)
    assert not locked & set(pins("requirements.lock"))


def test_every_image_installs_the_one_lock():
    for path in DOCKERFILES:
        assert "-r /tmp/requirements.lock" in (ROOT / path).read_text()
    assert {"mlflow", "boto3", "psycopg2-binary", "celery"} <= set(pins("requirements.lock"))


# --- Scripts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_scripts_are_well_formed(path):
    shell = "bash" if "bash" in path.read_text().splitlines()[0] else "sh"
    done = subprocess.run([shell, "-n", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_script_is_left_out():
    assert set(SCRIPTS) == {*(ROOT / "mlflow").glob("*.sh"), *(ROOT / "infra").glob("*/*.sh")}


def test_object_store_lets_in_who_has_the_keys(tmp_path):
    identities = tmp_path / "identities.json"
    env = environment("seaweedfs") | {"PATH": stand_in(tmp_path, "weed"), "S3_IDENTITIES": str(identities)}
    done = run_script(ROOT / "infra/s3/start.sh", env)
    assert done.returncode == 0, done.stderr
    (identity,) = json.loads(identities.read_text())["identities"]
    assert identity["credentials"] == [
        {
            "accessKey": environment("worker-cpu")["AWS_ACCESS_KEY_ID"],
            "secretKey": environment("worker-cpu")["AWS_SECRET_ACCESS_KEY"],
        }
    ]
    arguments = (tmp_path / "weed.arguments").read_text().splitlines()
    assert f"-s3.config={identities}" in arguments
    assert "-ip.bind=127.0.0.1" in arguments, "only the S3 door asks for keys"


def test_object_store_refuses_keys_that_would_break_its_file(tmp_path):
    env = environment("seaweedfs") | {"PATH": stand_in(tmp_path, "weed"), "S3_SECRET_KEY": 'a"b'}
    done = run_script(ROOT / "infra/s3/start.sh", env | {"S3_IDENTITIES": str(tmp_path / "identities.json")})
    assert done.returncode != 0
    assert not (tmp_path / "weed.arguments").exists()


def test_bucket_is_made_once(monkeypatch, capsys):
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, environment("s3-bucket")[name])
    script = SERVICES["s3-bucket"]["entrypoint"][1].lstrip("/")
    main = runpy.run_path(str(ROOT / script))["main"]
    (bucket,) = command("s3-bucket")
    with mock_aws():
        main(bucket)
        main(bucket)
        assert [made["Name"] for made in boto3.client("s3").list_buckets()["Buckets"]] == [bucket]
    assert "created" in capsys.readouterr().out
    assert environment("worker-cpu")["CXR_STORE"].startswith(f"s3://{bucket}/")


@pytest.mark.slow
def test_databases_are_made_and_kept_apart(tmp_path):
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    account = "postgres" if os.geteuid() == 0 else None
    if not programs or not shutil.which("psql"):
        pytest.skip("PostgreSQL is not installed")
    bin_folder = programs[-1].parent
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    # Beside tmp_path, whose parents the account of the server may not enter.
    home = Path(subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip())
    if account:
        shutil.chown(home, account)
    data = home / "data"

    def server(*line: str) -> None:
        subprocess.run([str(bin_folder / line[0]), *line[1:]], user=account, cwd=home, check=True, capture_output=True)

    try:
        server("initdb", "-D", str(data), "-U", "postgres", "--auth-local=trust", "--auth-host=scram-sha-256")
        options = f"-p {port} -k {home} -c listen_addresses=127.0.0.1"
        server("pg_ctl", "-D", str(data), "-o", options, "-l", str(home / "log"), "-w", "start")
        try:
            env = {"PATH": os.environ["PATH"], "PGHOST": str(home), "PGPORT": port} | environment("postgres")
            subprocess.run(
                ["bash", str(ROOT / "infra/postgres/databases.sh")], env=env, check=True, capture_output=True
            )

            def enter(user: str, password: str, database: str) -> bool:
                line = [
                    "psql",
                    "-h",
                    "127.0.0.1",
                    "-p",
                    port,
                    "-U",
                    user,
                    "-d",
                    database,
                    "-c",
                    "CREATE TABLE t (i int)",
                ]
                login = {"PATH": os.environ["PATH"], "PGPASSWORD": password}
                return subprocess.run(line, env=login, capture_output=True, check=False).returncode == 0

            airflow_password, mlflow_password = filled()["AIRFLOW_DB_PASSWORD"], filled()["MLFLOW_DB_PASSWORD"]
            assert enter("airflow", airflow_password, "airflow")
            assert enter("mlflow", mlflow_password, "mlflow")
            assert enter("mlflow", mlflow_password, "mlflow_auth")
            assert not enter("airflow", airflow_password, "mlflow")
            assert not enter("mlflow", mlflow_password, "airflow")
            assert not enter("airflow", "another", "airflow")
        finally:
            server("pg_ctl", "-D", str(data), "-m", "immediate", "stop")
    finally:
        shutil.rmtree(home, ignore_errors=True)
