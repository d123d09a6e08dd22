"""While cxr_training is paused, in a whole Airflow: what is published waits, and the newest of it trains."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cxr_tasks.data.phantoms import write_phantoms
from infra.embedded.airflow_api import ENDED, AirflowApi
from infra.embedded.stack import Stack
from tests.servers import free_port

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(900)]

COUNTS = {"COVID": 16, "Normal": 16, "Viral Pneumonia": 16}
# One shard, and one classifier: the test ends when a training begins.
SETTINGS = {
    "data": {"min_images_per_class": 10},
    "classifiers": {"names": ["cnn"], "epochs": 1, "image_size": 32},
    "gan": {"image_size": 32},
    "arms": {"baseline": "none", "compared": ["oversample"]},
}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowApi]:
    """Airflow's API, with its scheduler and its workers."""
    stack = Stack(tmp_path_factory.mktemp("stack"), free_port(), free_port(), {"CXR_MLFLOW": "off"})
    stack.check()
    try:
        api = stack.start()
        for pool in ("training", "gpu"):
            api.set_pool(pool, 1, "")
        assert api.wait_for_dags(["cxr_data", "cxr_training"]) is None
        yield api
    finally:
        stack.stop()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_phantoms(tmp_path / "source", COUNTS, image_size=64)
    return tmp_path / "source"


def wait_until(true: Callable[[], Any], what: str, seconds: float = 300) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.5)
    return found


def pause(api: AirflowApi, paused: bool) -> None:
    api.http.patch("/dags/cxr_training", json={"is_paused": paused}).raise_for_status()


def states(api: AirflowApi, dag: str, run: str) -> dict[str, str]:
    return {task["task_id"]: task["state"] for task in api.tasks(dag, run)}


def trainings(api: AirflowApi) -> list[dict[str, Any]]:
    """The runs of cxr_training, the oldest first."""
    return api.get("/dags/cxr_training/dagRuns", order_by="run_after")["dag_runs"]


def prepare(api: AirflowApi, source: Path) -> dict[str, str]:
    """Run cxr_data; returns the states of its tasks."""
    run = api.trigger("cxr_data", {"source": str(source), "profile": "quick", "settings": SETTINGS})
    wait_until(lambda: api.run_state("cxr_data", run) in ENDED, "the run of cxr_data")
    assert api.run_state("cxr_data", run) == "success", states(api, "cxr_data", run)
    return states(api, "cxr_data", run)


def test_what_was_published_meanwhile_waits_and_the_newest_of_it_trains(api: AirflowApi, source: Path) -> None:
    pause(api, True)

    queued = [prepare(api, source)["queue_training"]]
    shutil.move(source / "COVID/images/COVID-4.png", source / "Normal/images/moved.png")
    queued.append(prepare(api, source)["queue_training"])

    waiting = trainings(api)
    assert queued == ["success", "success"]
    assert [run["state"] for run in waiting] == ["queued", "queued"]
    assert len({run["conf"]["dataset"] for run in waiting}) == 2

    pause(api, False)
    old, new = (run["dag_run_id"] for run in waiting)
    wait_until(lambda: api.run_state("cxr_training", old) in ENDED, "the run on the older dataset")
    wait_until(lambda: states(api, "cxr_training", new)["configure"] == "success", "the run on the newer dataset")

    assert states(api, "cxr_training", old)["configure"] == "skipped"
    assert [run["dag_run_id"] for run in trainings(api)] == [old, new]
