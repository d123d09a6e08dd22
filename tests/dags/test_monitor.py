"""What an alarm asks for, and why a training says that it is made, with Airflow's answers given by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.airflow

RUN = """
import json, sys
from types import SimpleNamespace
sys.path.insert(0, DAGS)
import cxr_announced, cxr_monitor
from airflow.sdk.api.datamodels._generated import DagRunType
from airflow.sdk.exceptions import AirflowSkipException
from cxr_tasks import steps
from cxr_tasks.artifacts import Watched
from tests.steps import handles

run, dataset = handles.begin(), handles.prepared(seed=0)
dataset = steps.publish(run, *dataset)
watched = Watched(ref="watch/1", champion="cxr-overall version 1", images={}, words="they differ", alarm=True)
quiet = watched.model_copy(update={"alarm": False})
told = {}

def ask(name, paused, found, dag_run):
    event = SimpleNamespace(extra=None)
    form = {"profile": "quick", "settings": handles.SMALL}
    airflow = SimpleNamespace(get_dag=lambda _: SimpleNamespace(is_paused=paused))
    context = {"params": {**form, "dataset": ""}, "ti": airflow, "outlet_events": {cxr_monitor.DATASET: event}}
    cxr_announced.get_current_context = cxr_monitor.get_current_context = lambda: context
    ask_for_training = cxr_monitor.ask_for_training.function.__wrapped__
    try:
        reason = ask_for_training(run.model_copy(update={"dag_run": dag_run}), dataset, found)
        assert event.extra == {"dataset": dataset.version, "form": form, "reason": reason}
        told[name] = reason
    except AirflowSkipException as skipped:
        assert event.extra is None
        told[name] = str(skipped)

ask("quiet, paused", True, quiet, "a")
ask("paused", True, watched, "a")
ask("let go on", False, watched, "b")
ask("another try", False, watched, "b")
ask("a week later", False, watched, "c")

causes = {}
cxr_announced.close_left_open = lambda context: None
cxr_announced.steps = SimpleNamespace(begin_training=lambda *_, cause, only_if_owed: causes.update({name: cause}) or {})
for kind in DagRunType:
    name = kind.value
    context = {"run_id": f"{name}__1", "params": {}, "triggering_asset_events": {}}
    context["dag_run"] = SimpleNamespace(run_type=kind)
    cxr_announced.get_current_context = lambda: context
    cxr_announced.announced_training()
name, context["run_id"] = "owed", cxr_announced.OWED + "1"
cxr_announced.announced_training()
print(json.dumps({"asked": told, "causes": causes}))
"""


@pytest.fixture(scope="module")
def told(
    in_airflow: Callable[..., str], airflow_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What came of each time that the watch asked, and the cause of a training by the type of its run."""
    script = f"DAGS = {airflow_environment['AIRFLOW__CORE__DAGS_FOLDER']!r}\n{RUN}"
    store: Path = tmp_path_factory.mktemp("store")
    found: dict[str, Any] = json.loads(in_airflow(script, CXR_MLFLOW="off", CXR_STORE=str(store)))
    return found


def test_an_alarm_asks_for_a_training_once_a_dataset_and_says_why(told: dict[str, Any]) -> None:
    asked = told["asked"]

    assert asked["let go on"] == asked["another try"] == "cxr-overall version 1: they differ"
    assert asked["a week later"].startswith("Nothing says that the champion is to be trained anew, or that was said")


def test_an_alarm_that_no_training_hears_is_asked_again(told: dict[str, Any]) -> None:
    asked = told["asked"]

    assert asked["paused"] == "cxr_training is paused, and hears nothing. The next run of this DAG asks again."
    assert asked["quiet, paused"].startswith("Nothing says ")


@pytest.mark.parametrize(
    ("run_type", "cause"),
    [
        ("asset_triggered", "new data"),
        ("owed", "new data"),
        ("scheduled", "schedule"),
        ("backfill", "backfill"),
        ("manual", "by hand"),
    ],
)
def test_a_training_says_why_it_is_made(told: dict[str, Any], run_type: str, cause: str) -> None:
    assert told["causes"][run_type] == cause
