"""The Airflow of docker-compose.yaml as processes on loopback: its variables and commands, real PostgreSQL and Redis.

For machines without a container engine. It needs Debian's packages ``postgresql`` and ``redis-server``, and root:
PostgreSQL runs as the user ``postgres``, and each worker has a host name of its own, as a container has.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
import pytest

from infra.embedded.processes import end, in_sessions
from infra.embedded.services import Service, Watch
from tests.infra.compose import ROOT, SignedInApi, command, environment, filled
from tests.servers import arguments_of, free_port

# What nobody is to see, by its variable in .env.
SECRETS = {name: value for name, value in filled().items() if re.search("PASSWORD|SECRET|_KEY", name)}
AIRFLOW = ("api-server", "scheduler", "dag-processor")
WORKERS = ("worker-cpu", "worker-gpu")
# A test has no minute to wait for a look.
SOON = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "12",
}
# A machine that others keep busy takes minutes for what it does in seconds.
PATIENT_SECONDS = 180.0
POSTGRES_PROGRAMS = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/nonexistent"))


def missing() -> str:
    """What this machine lacks for the stack; empty where it lacks nothing."""
    if os.geteuid() != 0:
        return "PostgreSQL and host names of workers need root"
    lacks = [name for name in ("redis-server", "unshare", "runuser", "psql") if shutil.which(name) is None]
    if not (POSTGRES_PROGRAMS / "initdb").is_file():
        lacks.append("postgresql")
    return f"not installed: {', '.join(lacks)}" if lacks else ""


def until(is_so: Callable[[], Any], what: str, seconds: float = PATIENT_SECONDS) -> Any:
    """Wait until ``is_so`` returns something, which is returned. ``what``: that, in words."""
    deadline = time.monotonic() + seconds
    while not (found := is_so()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.3)
    return found


class CeleryStack:
    """Starts and ends it.

    Attributes:
        folder: Where everything lives.
        services: The servers by their names in docker-compose.yaml.
        mlflow: The address of MLflow, where it is started.
        kept_up: The names of those that are started again when they have ended.
        variables: Of every Airflow process.
    """

    def __init__(self, folder: Path, dags: Path, **variables: str) -> None:
        """Nothing is started yet.

        Args:
            folder: Where everything lives.
            dags: The folder of the DAGs.
            **variables: In the place of what docker-compose.yaml says.
        """
        self.folder, self.services = folder, dict[str, Service]()
        # Its user must reach it, which pytest's folders do not allow.
        self.postgres_data = Path(tempfile.mkdtemp(prefix="postgres-"))
        self.watch: Watch | None = None
        self.kept_up = (*AIRFLOW, *WORKERS)
        self.restarts: list[str] = []
        self.postgres_port, self.redis_port, self.api_port = free_port(), free_port(), free_port()
        self.mlflow_port = free_port()
        self.mlflow = f"http://127.0.0.1:{self.mlflow_port}"
        places = {
            "@postgres:5432": f"@127.0.0.1:{self.postgres_port}",
            "@redis:6379": f"@127.0.0.1:{self.redis_port}",
            "http://api-server:8080": f"http://127.0.0.1:{self.api_port}",
            "http://mlflow:5000": self.mlflow,
        }
        compose = environment("airflow-init")
        for there, here in places.items():
            compose = {name: value.replace(there, here) for name, value in compose.items()}
        self.variables = {
            **compose,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "PYTHONPATH": f"{dags}{os.pathsep}{ROOT}",
            "AIRFLOW_HOME": str(folder / "airflow"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(folder / "logs"),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT": str(free_port()),
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "CXR_CACHE": str(folder / "cache"),
            **variables,
        }

    def start(self) -> SignedInApi:
        """Start everything; returns a client of Airflow's API."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.start_postgres()
        self.start_redis()
        self._once("databases", ["bash", str(ROOT / "infra/postgres/databases.sh")], self._postgres_variables())
        self.start_others()
        self._once("init", ["sh", str(ROOT / "infra/airflow/init.sh")], self.variables)
        for name in AIRFLOW:
            served = [part.replace("8080", str(self.api_port)) for part in command(name)]
            self._serve(name, served)
        self.until_api_answers()
        for name in WORKERS:
            self._start_worker(name)
        # docker-compose.yaml restarts what has ended.
        kept_up = [self.services[name] for name in self.kept_up]
        self.watch = Watch(kept_up, lambda service: self.restarts.append(service.name))
        return SignedInApi(f"http://127.0.0.1:{self.api_port}", environment("airflow-init"))

    def start_others(self) -> None:
        """Start what Airflow's tasks need besides, once the databases are there: nothing here."""

    def stop(self) -> None:
        """End every process."""
        if self.watch:
            self.watch.stop()
        end(in_sessions({service.process.pid for service in self.services.values()}), polite_seconds=3)
        end(in_sessions({service.process.pid for service in self.services.values()}), polite_seconds=0)
        shutil.rmtree(self.postgres_data)

    def kill(self, name: str) -> None:
        """End a server and what it began, without asking, as a machine does that loses power."""
        end(self.processes(name), polite_seconds=0)

    def processes(self, name: str) -> set[psutil.Process]:
        """A server and what it began."""
        return in_sessions({self.services[name].process.pid})

    @contextmanager
    def suspended(self, name: str) -> Iterator[None]:
        """Keep a server, and what it began, from doing anything: it accepts connections and never answers."""
        processes = self.processes(name)
        try:
            for process in processes:
                # Some end meanwhile by themselves, or are killed in the block.
                with suppress(psutil.NoSuchProcess):
                    process.suspend()
            yield
        finally:
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    @contextmanager
    def gone(self, name: str) -> Iterator[None]:
        """Kill a server that nothing starts again by itself; it is started when the block ends."""
        start = getattr(self, f"start_{name}")
        self.kill(name)
        try:
            yield
        finally:
            start()

    def arguments(self) -> dict[str, str]:
        """The arguments of every process, as everybody on the machine can read them, by server and number."""
        by_server = {name: arguments_of(self.processes(name)) for name in self.services}
        return {f"{name} {number}": text for name, told in by_server.items() for number, text in told.items()}

    def said(self) -> dict[str, str]:
        """What the servers and their tasks have written to logs, by file."""
        logs = [path for path in self.folder.rglob("*.log") if path.is_file()]
        return {str(path): path.read_text(encoding="utf-8", errors="replace") for path in logs}

    def dump(self, database: str) -> str:
        """All that a database of PostgreSQL holds, as text."""
        program = [str(POSTGRES_PROGRAMS / "pg_dump"), "--username", "postgres", database]
        done = subprocess.run(program, env=self._postgres_variables(), capture_output=True, check=True)
        return done.stdout.decode(errors="replace")

    def start_postgres(self) -> None:
        """Start PostgreSQL; its data are made where there are none."""
        data, as_postgres = self.postgres_data, ["runuser", "-u", "postgres", "--"]
        if not any(data.iterdir()):
            shutil.chown(data, "postgres", "postgres")
            # As its image does it: who comes by TCP needs a password.
            made = [*as_postgres, str(POSTGRES_PROGRAMS / "initdb"), "-D", str(data), "-A", "scram-sha-256"]
            with tempfile.NamedTemporaryFile("w") as password:
                password.write(environment("postgres")["POSTGRES_PASSWORD"])
                password.flush()
                shutil.chown(password.name, "postgres")
                self._once("initdb", [*made, "-U", "postgres", "--pwfile", password.name], dict(os.environ))
        # Its own data are not worth a disk's patience here.
        options = ["-c", f"port={self.postgres_port}", "-c", "unix_socket_directories=", "-c", "fsync=off"]
        options += [*command("postgres")[1:], "-c", "listen_addresses=127.0.0.1"]
        served = [*as_postgres, str(POSTGRES_PROGRAMS / "postgres"), "-D", str(data), *options]
        self._serve("postgres", served, dict(os.environ))
        asked = [str(POSTGRES_PROGRAMS / "pg_isready"), "-h", "127.0.0.1", "-p", str(self.postgres_port), "-q"]
        until(lambda: subprocess.run(asked, check=False).returncode == 0, "PostgreSQL answers")

    def start_redis(self) -> None:
        """Start Redis; it keeps what it holds, as in docker-compose.yaml."""
        folder = self.folder / "redis"
        folder.mkdir(exist_ok=True)
        served = ["sh", str(ROOT / "infra/redis/start.sh"), "--port", str(self.redis_port), "--bind", "127.0.0.1"]
        settings = {"REDIS_SETTINGS": str(folder / "redis.conf")}
        self._serve("redis", [*served, "--dir", str(folder)], {**os.environ, **environment("redis"), **settings})
        until(lambda: self._ask_redis("ping") == "PONG", "Redis answers")

    def serve_mlflow(self, artifacts: str, further_hosts: str = "", **variables: str) -> None:
        """Start MLflow with its two databases, which must be there.

        Args:
            artifacts: Where it keeps files.
            further_hosts: Names that it answers to, besides those of docker-compose.yaml.
            **variables: In the place of what docker-compose.yaml says.
        """
        given = environment("mlflow")
        given = {key: each.replace("@postgres:5432", f"@127.0.0.1:{self.postgres_port}") for key, each in given.items()}
        given |= {"HOME": str(self.folder), "PATH": self.variables["PATH"], **variables}
        given |= {"MLFLOW_AUTH_CONFIG_PATH": str(self.folder / "mlflow-basic-auth.ini")}
        places = {
            "--host=0.0.0.0": "--host=127.0.0.1",
            "--port=5000": f"--port={self.mlflow_port}",
            "--workers=2": "--workers=1",
        }
        arguments = [places.get(each, each) for each in command("mlflow")]
        arguments = [each.replace("s3://cxr/mlflow", artifacts) for each in arguments]
        arguments = [f"{each}{further_hosts}" if each.startswith("--allowed-hosts") else each for each in arguments]
        self._serve("mlflow", ["sh", str(ROOT / "mlflow/start.sh"), *arguments], given)
        until(lambda: answers(f"{self.mlflow}/health"), "MLflow answers")

    def waiting_in(self, queue: str) -> int:
        """How many tasks no worker has taken yet."""
        return int(self._ask_redis("llen", queue))

    def unfinished(self) -> int:
        """How many tasks workers have taken and not ended: a result that is not yet noted counts."""
        return int(self._ask_redis("hlen", "unacked"))

    def forget(self, queue: str) -> None:
        """Take the tasks of a queue out of Redis, as if nobody had sent them."""
        self._ask_redis("del", queue)

    def until_api_answers(self) -> None:
        """Wait for the API server."""
        until(lambda: answers(f"http://127.0.0.1:{self.api_port}/api/v2/monitor/health"), "the API server answers")

    def _start_worker(self, name: str) -> None:
        """Start a worker under the host name that it always has, which is its name."""
        started = [part.replace("/opt/cxr", str(ROOT)) for part in command(name)]
        named = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', name, *started]
        port = {"AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port())}
        self._serve(name, named, {**self.variables, **port, "HOSTNAME": name})

    def _ask_redis(self, *words: str) -> str:
        asked, password = ["redis-cli", "-p", str(self.redis_port), *words], environment("redis")["REDISCLI_AUTH"]
        answered = subprocess.run(asked, env={**os.environ, "REDISCLI_AUTH": password}, capture_output=True, text=True)
        return answered.stdout.strip()

    def _serve(self, name: str, served: list[str], variables: dict[str, str] | None = None) -> None:
        log = self.folder / f"{name}.log"
        self.services[name] = Service(name, served, log, Path("/"), variables or self.variables)

    def _once(self, name: str, program: list[str], variables: dict[str, str]) -> None:
        done = subprocess.run(program, env=variables, cwd="/", capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{name}: {done.stdout[-2000:]}{done.stderr[-4000:]}"

    def _postgres_variables(self) -> dict[str, str]:
        given = environment("postgres")
        place = {"PGHOST": "127.0.0.1", "PGPORT": str(self.postgres_port), "PGPASSWORD": given["POSTGRES_PASSWORD"]}
        return {**os.environ, **given, **place}


StackKind = TypeVar("StackKind", bound=CeleryStack)


@contextmanager
def at_work(stack: StackKind, dags: Sequence[str]) -> Iterator[tuple[StackKind, SignedInApi]]:
    """Start a stack, wait for its DAGs, and end it however the block ends. Yields it with a client of Airflow's API."""
    try:
        api = stack.start()
        fault = api.wait_for_dags(list(dags))
        assert fault is None, fault
        yield stack, api
    finally:
        stack.stop()


def skip_unless_asked(request: pytest.FixtureRequest) -> None:
    """Skip what `make test-stack` alone runs, and what cannot run here."""
    if request.config.getoption("markexpr") != "stack":
        pytest.skip("it takes minutes: make test-stack")
    if lacks := missing():
        pytest.skip(lacks)


def answers(url: str) -> bool:
    """Whether a server is there."""
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def shows_secrets(texts: dict[str, str]) -> list[tuple[str, str]]:
    """Which secret shows where."""
    return [(name, place) for place, text in texts.items() for name, secret in SECRETS.items() if secret in text]
