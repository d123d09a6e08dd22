"""What cxr_data queues of cxr_training, and what of it trains, with Airflow's answers to a task given by hand.

``test_paused.py`` does it once in a whole Airflow.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.airflow

# In order. A letter: cxr_data publishes these data. The rest happens to cxr_training, some of it while cxr_data is
# between the tasks publish and queue_training.
MOVES = ["A heard", "pause"]
MOVES += ["B first", "B again", "B otherwise", "A back", "go on", "A trained"]
MOVES += ["pause", "B long after", "A long after", "go on at last"]
MOVES += ["pause", "let go on meanwhile", "B unheard", "begin B"]
MOVES += ["pause meanwhile", "A maybe heard", "go on after all"]
MOVES += ["pause", "lose what is queued", "B lost", "B once more", "A after it", "unknown", "B to nobody"]
MOVES += ["away", "A to a server in trouble"]

RUN = """
import json, sys
from types import SimpleNamespace
sys.path.insert(0, DAGS)
import cxr_announced
from airflow.sdk.exceptions import (AirflowRuntimeError, AirflowSkipException, DagRunTriggerException, ErrorType)
from airflow.sdk.execution_time.comms import ErrorResponse
from cxr_tasks import steps
from tests.steps import handles

prepared = {"A": handles.prepared(seed=0), "B": handles.prepared(seed=1)}

def trouble(status):
    return AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": status}))

class Airflow:
    paused, status, lost, meanwhile = False, 0, False, None
    runs = {}  # of cxr_training: the form and the state by the id
    heard = {}

    def get_dag(self, name):
        if self.status:
            raise trouble(self.status)
        return SimpleNamespace(is_paused=self.paused)

    def get_dagrun_state(self, dag, run):
        if run not in self.runs:
            raise trouble(404)
        return self.runs[run][1]

    def xcom_push(self, key, value):
        self.heard[key] = value

    def xcom_pull(self, task_ids, key):
        assert task_ids == "publish"
        return self.heard[key]

airflow = Airflow()

def publish(move):
    run = handles.begin().model_copy(update={"dag_run": move})
    dataset = steps.publish(run, *prepared[move[0]])
    if dataset is None:
        return "nothing is owed"
    form = {"profile": "quick", "settings": handles.SMALL, "gan_epochs": 9 if "otherwise" in move else 8}
    event = SimpleNamespace(extra=None)
    context = {"params": {**form, "source": "x"}, "ti": airflow, "outlet_events": {cxr_announced.DATASET: event}}
    cxr_announced.get_current_context = lambda: context
    try:
        cxr_announced.announce(dataset)
        assert event.extra["form"] == form and event.extra["dataset"]["version"] == dataset.version
        if airflow.meanwhile is not None:
            airflow.paused, airflow.meanwhile = airflow.meanwhile, None
        cxr_announced.queue_unless_heard(run, dataset)
    except AirflowSkipException as error:
        if "event of the asset" in str(error):
            steps.begin_training("asset " + move, {}, [SimpleNamespace(timestamp=1, extra=event.extra)])
        return str(error)
    except DagRunTriggerException as queued:
        assert queued.dag_run_id not in airflow.runs and queued.dag_run_id.startswith(cxr_announced.OWED)
        assert not queued.reset_dag_run and queued.trigger_dag_id == "cxr_training"
        if not airflow.lost:
            airflow.runs[queued.dag_run_id] = [queued.conf, "queued"]
        airflow.lost = False
        return "queued"
    except AirflowRuntimeError as error:
        return str(error)

def begin():
    airflow.paused, trained = False, []
    for name, run in airflow.runs.items():
        if run[1] == "queued":
            begun = steps.begin_training(name, run[0], None, only_if_owed=True)
            trained += [[run[0]["dataset"][1], run[0]["gan_epochs"]]] if begun else []
            run[1] = "success"
    return trained

def be(**state):
    return lambda: airflow.__dict__.update(state)

moves = {"pause": be(paused=True), "let go on meanwhile": be(meanwhile=False), "pause meanwhile": be(meanwhile=True),
         "lose what is queued": be(lost=True), "unknown": be(status=404), "away": be(status=503)}
told = {}
for move in MOVES:
    if move in moves:
        moves[move]()
    else:
        told[move] = begin() if move.startswith(("go on", "begin")) else publish(move)
print(json.dumps(told))
"""

HEARD = "cxr_training is not paused: the event of the asset starts it."


@pytest.fixture(scope="module")
def told(
    in_airflow: Callable[..., str], airflow_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What came of each move: what is said of data, and which of the queued runs train, each with its epochs."""
    script = f"DAGS, MOVES = {airflow_environment['AIRFLOW__CORE__DAGS_FOLDER']!r}, {MOVES!r}\n{RUN}"
    store: Path = tmp_path_factory.mktemp("store")
    told: dict[str, Any] = json.loads(in_airflow(script, CXR_MLFLOW="off", CXR_STORE=str(store)))
    return told


def test_what_is_heard_is_not_queued(told: dict[str, Any]) -> None:
    assert told["A heard"] == HEARD


def test_what_waits_already_is_not_queued_again_unless_another_form_or_other_data_came_between(
    told: dict[str, Any],
) -> None:
    assert told["B first"] == told["B otherwise"] == told["A back"] == "queued"
    assert told["B again"].endswith("of cxr_training waits already, for the same.")


def test_of_all_that_waits_the_last_one_trains(told: dict[str, Any]) -> None:
    assert told["go on"] == [["0", 8]] and told["A trained"] == "nothing is owed"


def test_data_whose_queued_run_has_ended_long_ago_are_queued_again(told: dict[str, Any]) -> None:
    assert told["A long after"] == "queued" and told["go on at last"] == [["0", 8]]


def test_a_dag_that_is_paused_or_let_go_on_just_then_loses_nothing(told: dict[str, Any]) -> None:
    assert told["B unheard"] == told["A maybe heard"] == "queued"
    assert told["begin B"] == [["1", 8]] and told["go on after all"] == [["0", 8]]


def test_a_run_that_airflow_never_got_is_queued_again(told: dict[str, Any]) -> None:
    assert told["B lost"] == told["B once more"] == "queued"


def test_a_dag_that_airflow_does_not_know_is_said_and_a_server_in_trouble_is_asked_again(told: dict[str, Any]) -> None:
    assert told["B to nobody"] == "Airflow has no DAG cxr_training. The next run of cxr_data announces this again."
    assert "503" in told["A to a server in trouble"]
