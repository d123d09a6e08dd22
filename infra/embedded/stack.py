"""Starts, keeps up and ends Airflow and MLflow on loopback.

Every process started here is gone when the stack is stopped.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil

from cxr_tasks.cores import tasks_at_once, threads_of_task
from infra.embedded.airflow_api import AirflowApi
from infra.embedded.processes import end, in_sessions
from infra.embedded.services import Service, StackError, Watch

REPOSITORY = Path(__file__).resolve().parents[2]
NEEDED_GIB = 3.0
START_SECONDS = 240.0
# A driver that nobody keeps loaded takes seconds to answer.
DRIVER_SECONDS = 20.0
# Airflow's own servers. `airflow standalone` starts the same four, and does not notice when one of them ends.
AIRFLOW = ("scheduler", "dag-processor", "api-server", "triggerer")

# What a stack that is up says of itself, in its folder.
STATE_FILE = "stack.json"

# How tasks of Airflow outlast servers that are away. docker-compose.yaml has the same values: a test compares them.
OUTLASTING = {
    # A task's token is renewed in the last fifth of its life only, by an answered heartbeat. A token that outlives the
    # longest task (the GAN: 7 days) needs no renewal, however long the API server is away or a laptop sleeps.
    "AIRFLOW__EXECUTION_API__JWT_EXPIRATION_TIME": "691200",
    # What a task tells the API server, and asks of it, is tried again every 5 to 10 seconds, for 30 to 45 minutes:
    # that it starts, what other tasks returned, what it returns.
    "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "361",
    "AIRFLOW__WORKERS__EXECUTION_API_RETRY_WAIT_MIN": "5",
    "AIRFLOW__WORKERS__EXECUTION_API_RETRY_WAIT_MAX": "10",
    # A server that is busy answers late.
    "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "30",
    # A heartbeat that failed was tried for half an hour, or was refused at once. A refusal ends no training either.
    "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "120",
    # The scheduler cannot tell a killed worker from an API server that is away: either way there is no heartbeat. An
    # outage of less than this costs no try. After it the task is tried again, and the try that hangs ends itself.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "900",
    # A task sends heartbeats every 5 seconds. On a laptop that wakes up, the first one is to come before this look.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "60",
    # A task that was handed out and lost, by a broker or a database that restarted, holds its slot until it is handed
    # out again: after 15 minutes in the queue, or when a restarted scheduler sees that its predecessor is dead. That is
    # 30 s after its last heartbeat; its tasks then go on. A task that starts while the API server is away counts as
    # queued, too: handed out again, the first one of the two fails.
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "900",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "60",
    # Airflow fails a task that was handed out three times in vain. But where workers have fewer slots than there are
    # tasks, a task may wait for hours behind others, and nothing is wrong.
    "AIRFLOW__SCHEDULER__NUM_STUCK_IN_QUEUED_RETRIES": "10000",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "15",
}


class Stack:
    """Airflow (SQLite, tasks as processes of this machine) and MLflow (SQLite, local artifacts).

    Attributes:
        home: Where databases, logs and artifacts live.
        ports: The two ports, by the variable that names them to ``make``.
        airflow_url: Airflow's address.
        mlflow_url: MLflow's address.
        state: The file that says that the stack is up.
        logs: The folder of the logs.
        environment: Of every process.
        services: The servers.
        watch: Keeps the servers up; ``None`` before they all have answered.
        on_restart: Is given the name of a server that has ended and was started again.
    """

    def __init__(self, home: Path, airflow_port: int, mlflow_port: int, environment: dict[str, str]) -> None:
        """Nothing is started yet.

        Args:
            home: Where databases, logs and artifacts live.
            airflow_port: Port on loopback.
            mlflow_port: Port on loopback.
            environment: Further variables for the tasks, such as ``CXR_PROFILE``.
        """
        self.home = home
        self.ports = {"AIRFLOW_PORT": airflow_port, "MLFLOW_PORT": mlflow_port}
        self.airflow_url = f"http://127.0.0.1:{airflow_port}"
        self.mlflow_url = f"http://127.0.0.1:{mlflow_port}"
        self.state = home / STATE_FILE
        self.logs = home / "logs"
        self.environment = {**os.environ, **self._variables(airflow_port), **environment}
        self.services: list[Service] = []
        self.watch: Watch | None = None
        self.on_restart: Callable[[str], None] = lambda name: None

    def check(self) -> None:
        """Look for what would make the start fail.

        Raises:
            StackError: The DAGs are not there, another stack is up, a port is taken, or the disk is nearly full.
        """
        if not (REPOSITORY / "dags").is_dir():
            raise StackError(
                f"There are no DAGs in {REPOSITORY}, beside the package: run this in a checkout of the project, "
                "after make setup."
            )
        self.home.mkdir(parents=True, exist_ok=True)
        self._end_leftovers()
        for variable, port in self.ports.items():
            if not is_free(port):
                option = f"--{variable.lower().replace('_', '-')}"
                raise StackError(
                    f"Port {port} on 127.0.0.1 is taken: end the program that uses it, or choose another with "
                    f"make run {variable}={port + 1} (cxr run {option} {port + 1})."
                )
        free = shutil.disk_usage(self.home).free / 2**30
        if free < NEEDED_GIB:
            raise StackError(
                f"Only {free:.1f} GiB are free on the disk of {self.home}, and a run needs {NEEDED_GIB:.0f}: make room."
            )

    def start(self) -> AirflowApi:
        """Start the servers and wait until they answer; returns a client of Airflow's API."""
        self.logs.mkdir(parents=True, exist_ok=True)
        artifacts = self.home / "mlflow" / "artifacts"
        artifacts.mkdir(parents=True, exist_ok=True)
        mlflow = ["mlflow", "server", "--host", "127.0.0.1", "--port", str(self.ports["MLFLOW_PORT"])]
        mlflow += ["--backend-store-uri", f"sqlite:///{self.home / 'mlflow' / 'mlflow.db'}"]
        mlflow += ["--artifacts-destination", str(artifacts), "--workers", "1"]
        self._serve("mlflow", mlflow)
        self._prepare_database()
        for name in AIRFLOW:
            self._serve(f"airflow-{name}", ["airflow", name])
        self._wait("mlflow", f"{self.mlflow_url}/health")
        self._wait("airflow-api-server", f"{self.airflow_url}/api/v2/monitor/health")
        self.watch = Watch(self.services, self._restarted)
        return AirflowApi(self.airflow_url)

    def stop(self) -> None:
        """End every process of the stack, politely first."""
        seen = self.watch.stop() if self.watch else set()
        sessions = {service.process.pid for service in self.services}
        end(seen | in_sessions(sessions))
        # A server that was asked to end may have begun another process meanwhile.
        end(in_sessions(sessions))
        self.state.unlink(missing_ok=True)

    def check_alive(self) -> None:
        """Raise :class:`StackError` if one of the servers cannot be kept up."""
        if self.watch and self.watch.fault:
            raise self.watch.fault
        for service in self.services if self.watch is None else ():
            # A server that does not even come up is not started again and again.
            if service.has_ended():
                raise StackError(f"{service.name} ended unexpectedly. Its last words are in {service.log}.")

    def _variables(self, airflow_port: int) -> dict[str, str]:
        airflow = f"http://127.0.0.1:{airflow_port}"
        threads = str(threads_of_task())
        bin_folder = str(Path(sys.executable).parent)
        return {
            "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
            "AIRFLOW_HOME": str(self.home / "airflow"),
            # Airflow writes the whole path into its own settings, where a folder that was moved or copied keeps it.
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home / 'airflow' / 'airflow.db'}",
            "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(REPOSITORY / "plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
            # A DAG is read in a second, and in far more where other programs keep all cores busy.
            "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "180",
            "AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": "240",
            # Reading all DAGs takes a core for seconds. A file that was changed is read again at once all the same.
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
            "AIRFLOW__CORE__EXECUTOR": "gpu:infra.embedded.executor.ProcessExecutor",
            "AIRFLOW__CORE__PARALLELISM": str(tasks_at_once()),
            "TF_NUM_INTRAOP_THREADS": threads,
            "TF_NUM_INTEROP_THREADS": threads,
            "OMP_NUM_THREADS": threads,
            # It waits in the executor, for the end of a task.
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.05",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "true",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{airflow}/execution/",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(airflow_port),
            "AIRFLOW__API__BASE_URL": airflow,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API_AUTH__JWT_SECRET": self._secret(),
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self.home / "logs" / "tasks"),
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "false",
            **OUTLASTING,
            "MLFLOW_TRACKING_URI": self.mlflow_url,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "GX_ANALYTICS_ENABLED": "false",
            "CXR_STORE": str(self.home / "store"),
            "CXR_GPU_QUEUE": os.environ.get("CXR_GPU_QUEUE", "gpu" if has_gpu() else ""),
            "TF_CPP_MIN_LOG_LEVEL": "2",
            # The GAN and a classifier may share a GPU; by default the first would take all of its memory.
            "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        }

    def _secret(self) -> str:
        """Signs the tokens that tasks talk to Airflow with; kept, so that a restarted stack knows its tasks."""
        path = self.home / "jwt-secret"
        if not path.is_file():
            self.home.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            path.write_text(secrets.token_urlsafe(32))
        return path.read_text()

    def _serve(self, name: str, command: list[str]) -> None:
        self.services.append(Service(name, command, self.logs / f"{name}.log", self.home, self.environment))
        self._write_state()

    def _restarted(self, service: Service) -> None:
        self._write_state()
        self.on_restart(service.name)

    def _write_state(self) -> None:
        state = {
            "runner": os.getpid(),
            "started": psutil.Process().create_time(),
            "sessions": {service.name: service.process.pid for service in self.services},
            "airflow": self.airflow_url,
            "mlflow": self.mlflow_url,
        }
        aside = self.state.with_suffix(".tmp")
        aside.write_text(json.dumps(state))
        os.replace(aside, self.state)

    def _prepare_database(self) -> None:
        log = self.logs / "airflow-database.log"
        with log.open("ab") as out:
            done = subprocess.run(
                ["airflow", "db", "migrate"],
                cwd=self.home,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        if done.returncode != 0:
            raise StackError(f"Airflow's database cannot be prepared. The last words on it are in {log}.")

    def _wait(self, name: str, url: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            self.check_alive()
            try:
                if httpx.get(url, timeout=5).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.5)
        raise StackError(
            f"{name} did not answer at {url} within {START_SECONDS:.0f} s: look at {self.logs / f'{name}.log'}."
        )

    def _end_leftovers(self) -> None:
        """End what an earlier stack left behind because its runner was killed."""
        if not self.state.is_file():
            return
        left = json.loads(self.state.read_text())
        if left["runner"] != os.getpid() and is_runner_alive(left):
            raise StackError(
                f"The stack in {self.home} is up already, run by process {left['runner']}: end it with Ctrl-C there, "
                "or use another folder with make run CXR_HOME=… (cxr run --home …)."
            )
        # Process numbers are used again, but nothing older than the stack can belong to it.
        end({p for p in in_sessions(left["sessions"].values()) if p.create_time() >= left["started"]})
        self.state.unlink(missing_ok=True)


def has_gpu() -> bool:
    """Whether NVIDIA's driver lists a GPU of this machine."""
    if (program := shutil.which("nvidia-smi")) is None:
        return False
    try:
        listed = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=DRIVER_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and listed.stdout.startswith("GPU ")


def is_free(port: int) -> bool:
    """Whether a server could listen at ``port`` on loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def is_runner_alive(state: dict[str, Any]) -> bool:
    """Whether the process that keeps a stack up is there; ``state`` is what the stack said of itself."""
    try:
        # Process numbers are used again.
        return abs(psutil.Process(state["runner"]).create_time() - state["started"]) < 1
    except psutil.NoSuchProcess:
        return False
