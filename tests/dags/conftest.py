"""A real Airflow: its own home and database, made once. Each use is a process of its own, as Airflow's are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def airflow_environment(tmp_path_factory):
    home = tmp_path_factory.mktemp("airflow")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(REPOSITORY / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "AIRFLOW__CORE__EXECUTOR": "gpu:LocalExecutor",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    subprocess.run(["airflow", "db", "migrate"], env=environment, check=True, capture_output=True, timeout=300)
    return environment


@pytest.fixture(scope="session")
def in_airflow(airflow_environment):
    """Run Python text in a process that has Airflow's environment; returns what it printed last."""

    def run(script: str, timeout: float = 120, cwd: str | None = None, **variables: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**airflow_environment, **variables},
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=cwd,
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout.strip().splitlines()[-1]

    return run
