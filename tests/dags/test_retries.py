"""What is tried again, how often and after how long, as a worker and Airflow's scheduler decide it."""

import json

import pytest

pytestmark = pytest.mark.airflow

DECIDE = """
import json, sys
from types import SimpleNamespace
sys.path.insert(0, DAGS)
import pendulum
from airflow.sdk.definitions.retry_policy import RetryAction
from airflow.models.taskinstance import TaskInstance
from cxr_wiring import DEFAULT_ARGS, RetryWhatPasses
from cxr_tasks.errors import DataError, SettingsError, WeightsError
from cxr_tasks.store.lease import LeaseHeld

def wrapped():
    try:
        try:
            raise ConnectionError("away")
        except ConnectionError as error:
            raise RuntimeError("wrapped") from error
    except RuntimeError as error:
        return error

def delays(error, max_tries, first=1):
    found = []
    for number in range(first, 100):
        decision = RetryWhatPasses().evaluate(error, number, max_tries)
        if decision.action == RetryAction.FAIL or number > max_tries:
            return found
        if decision.action == RetryAction.DEFAULT:
            found.append(by_airflow(number))
        else:
            found.append(decision.retry_delay.total_seconds())

def by_airflow(number):
    ended = pendulum.datetime(2026, 1, 1)
    task = SimpleNamespace(**{name: DEFAULT_ARGS[name] for name in DELAYS})
    ti = SimpleNamespace(dag_id="cxr_training", task_id="train", logical_date=None, try_number=number, end_date=ended,
                         task=task, retry_delay_override=None)
    return (TaskInstance.next_retry_datetime(ti) - ended).total_seconds()

DELAYS = ("retry_delay", "retry_exponential_backoff", "max_retry_delay")
tries = DEFAULT_ARGS["retries"]
errors = {"data": DataError("x"), "settings": SettingsError("x"), "weights": WeightsError("x"),
          "away": ConnectionError("x"), "slow": TimeoutError("x"), "held": LeaseHeld("x"), "wrapped": wrapped(),
          "bug": TypeError("x"), "memory": MemoryError("x")}
told = {name: delays(error, tries) for name, error in errors.items()}
told["cleared"] = delays(TypeError("x"), 5 + tries, first=6)
print(json.dumps(told))
"""
USERS, WORLDS, OTHERS = (
    ("data", "settings", "weights"),
    ("away", "slow", "held", "wrapped"),
    ("bug", "memory", "cleared"),
)


@pytest.fixture(scope="module")
def delays(in_airflow, airflow_environment):
    return json.loads(in_airflow(DECIDE.replace("DAGS", repr(airflow_environment["AIRFLOW__CORE__DAGS_FOLDER"]))))


@pytest.mark.parametrize("error", USERS)
def test_what_a_person_must_mend_fails_at_once(delays, error):
    assert delays[error] == []


@pytest.mark.parametrize("error", WORLDS)
def test_what_passes_is_waited_for_in_ever_longer_steps_for_half_an_hour(delays, error):
    waits = delays[error]
    assert len(waits) >= 5 and sum(waits) >= 1800
    assert waits == sorted(waits) and waits[0] <= 60 and max(waits) <= 600


@pytest.mark.parametrize("error", OTHERS)
def test_the_rest_is_tried_twice_more_soon_also_after_a_task_was_cleared(delays, error):
    assert delays[error] == [20.0, 20.0]
