"""The command in this process, and as people call it."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cxr_tasks.cli import app

SCRIPT = Path(sys.executable).with_name("cxr")
LOGGERS = ("cxr_tasks", "cxr_tasks.steps", "cxr_tasks.pipeline")


@pytest.fixture
def cxr(tmp_path, monkeypatch):
    """Calls the command in this process, in an empty folder; what it does to the environment is undone."""
    before, levels = dict(os.environ), {name: logging.getLogger(name).level for name in LOGGERS}
    for name in ("CXR_STORE", "CXR_PROFILE", "CXR_HOME", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    yield lambda *arguments: runner.invoke(app, [str(argument) for argument in arguments])
    os.environ.clear()
    os.environ.update(before)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture
def script(tmp_path):
    """Calls the installed command in a process of its own, in an empty folder."""

    def call(*arguments, **variables):
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("CXR_", "MLFLOW_"))}
        return subprocess.run(
            [SCRIPT, *map(str, arguments)],
            cwd=tmp_path,
            env={**environment, **variables},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return call
