"""One stack for all faults: starting it takes longer than most faults."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.infra.celery_stack import at_work, skip_unless_asked
from tests.infra.faults.faults import PIECES_DAGS, Faults, FaultyStack


@pytest.fixture(scope="session")
def started(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, s3_server: str
) -> Iterator[Faults]:
    """The stack, at work."""
    skip_unless_asked(request)
    with at_work(FaultyStack(tmp_path_factory.mktemp("faults"), s3_server), PIECES_DAGS) as (stack, api):
        faults = Faults(stack, api)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in stack.variables_of_a_reader(tmp_path_factory.mktemp("cache")).items():
                patch.setenv(name, value)
            faults.see_both_workers()
        yield faults


@pytest.fixture
def faults(started: Faults, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Faults]:
    """The stack, and the environment by which a test reads its store and its MLflow."""
    for name, value in started.stack.variables_of_a_reader(tmp_path / "cache").items():
        monkeypatch.setenv(name, value)
    started.told.clear()
    yield started
    for row in started.told:
        print(f"\n{json.dumps(row)}", flush=True)
