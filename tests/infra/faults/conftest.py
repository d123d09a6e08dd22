"""One stack for all faults: starting it takes longer than most faults."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.infra.celery_stack import missing
from tests.infra.faults.faults import Faults, FaultyStack, environment_of_tests


@pytest.fixture(scope="session")
def started(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, s3_server: str
) -> Iterator[Faults]:
    """The stack, at work."""
    if request.config.getoption("markexpr") != "stack":
        pytest.skip("it takes minutes: make test-stack")
    if lacks := missing():
        pytest.skip(lacks)
    stack = FaultyStack(tmp_path_factory.mktemp("faults"), s3_server)
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment_of_tests(stack, tmp_path_factory.mktemp("cache")).items():
                patch.setenv(name, value)
            faults = Faults(stack)
        yield faults
    finally:
        stack.stop()


@pytest.fixture
def faults(started: Faults, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Faults]:
    """The stack, and the environment by which a test reads its store and its MLflow."""
    for name, value in environment_of_tests(started.stack, tmp_path / "cache").items():
        monkeypatch.setenv(name, value)
    started.told.clear()
    yield started
    for row in started.told:
        print(f"\n{json.dumps(row)}", flush=True)
