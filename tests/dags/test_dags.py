"""The DAG files as Airflow parses them: they load, fast, without ML libraries, and are wired as drawn."""

import json

import pytest

pytestmark = pytest.mark.airflow

LOAD = """
import json, sys, time
from pathlib import Path
from airflow.dag_processing.dagbag import DagBag
from airflow.plugins_manager import get_operator_extra_links
DagBag("/dev/null")  # what Airflow imports for itself is not the DAG files' cost
links = get_operator_extra_links()
seconds = {}
for path in sorted(Path(DAGS).glob("*.py")):
    started = time.perf_counter()
    bag = DagBag(str(path))
    seconds[path.name] = time.perf_counter() - started
bag = DagBag(DAGS)
heavy = [m for m in ("tensorflow", "keras", "mlflow", "great_expectations", "pandas", "sklearn", "boto3")
         if m in sys.modules]
tasks = {
    dag_id: {t.task_id: {"up": sorted(t.upstream_task_ids), "pool": t.pool, "queue": t.queue, "executor": t.executor,
                         "retries": t.retries, "policy": t.retry_policy is not None,
                         "timeout": t.execution_timeout.total_seconds() if t.execution_timeout else None,
                         "links": [l.name for l in t.operator_extra_links]}
             for t in dag.tasks}
    for dag_id, dag in bag.dags.items()
}
print(json.dumps({"errors": bag.import_errors, "seconds": seconds, "heavy": heavy, "tasks": tasks,
                  "docs": {d: bool(g.doc_md and g.doc_md.strip()) for d, g in bag.dags.items()},
                  "forms": {d: sorted(g.params.keys()) for d, g in bag.dags.items()},
                  "links": [l.name for l in links]}))
"""


@pytest.fixture(scope="module")
def loaded(in_airflow, airflow_environment):
    return json.loads(in_airflow(f"DAGS = {airflow_environment['AIRFLOW__CORE__DAGS_FOLDER']!r}\n{LOAD}"))


def test_every_file_loads(loaded):
    assert loaded["errors"] == {}
    assert set(loaded["tasks"]) == {"cxr_data", "cxr_training"}


def test_each_file_parses_in_under_a_second(loaded):
    assert all(seconds < 1 for seconds in loaded["seconds"].values()), loaded["seconds"]


def test_parsing_imports_no_heavy_library(loaded):
    assert loaded["heavy"] == []


def test_the_training_dag_is_wired_as_drawn(loaded):
    up = {name: task["up"] for name, task in loaded["tasks"]["cxr_training"].items()}

    assert up["train_gan"] == ["configure"]
    assert up["judge"] == ["configure", "train_gan"]
    assert up["synthesize"] == ["configure", "judge", "train_gan"]
    assert up["features"] == ["backbones", "configure"]
    assert "synthesize" in up["synthetic_features"]
    assert up["train"] == ["arms", "configure", "features"]
    assert {"features", "synthetic_features", "synthesize"} <= set(up["train_with_synthetic"])
    assert {"features", "synthetic_features", "synthesize"} <= set(up["reproduce_leak"])
    assert {"train", "train_with_synthetic", "pairs"} <= set(up["compare"])
    assert "reproduce_leak" not in up["compare"] and "reproduce_leak" not in up["promote"]
    assert "compare" in up["explain"] and "compare" in up["promote"]
    assert {"promote", "explain", "reproduce_leak", "train_gan", "judge", "synthesize"} <= set(up["report"])


def test_gpu_work_goes_to_the_gpu(loaded):
    for name in ("train_gan", "judge", "synthesize"):
        task = loaded["tasks"]["cxr_training"][name]
        assert (task["executor"], task["queue"], task["pool"]) == ("gpu", "gpu", "gpu")


def test_every_task_has_retries_a_policy_and_a_timeout(loaded):
    for tasks in loaded["tasks"].values():
        for name, task in tasks.items():
            assert task["retries"] == 2 and task["policy"] and task["timeout"], name


def test_every_task_links_to_mlflow_and_the_links_are_registered(loaded):
    assert {"MLflow run", "Report"} <= set(loaded["links"])
    for tasks in loaded["tasks"].values():
        for name, task in tasks.items():
            assert "MLflow run" in task["links"], name


def test_the_forms_offer_what_people_change(loaded):
    fields = {"profile", "classifiers", "baseline", "arms", "seeds", "gan_epochs", "synthetic_per_class"}
    fields |= {"reproduce_leak", "settings", "force"}

    assert set(loaded["forms"]["cxr_training"]) == fields | {"dataset"}
    assert set(loaded["forms"]["cxr_data"]) == fields | {"source"}
    assert all(loaded["docs"].values())


def test_the_form_refuses_nonsense(in_airflow, airflow_environment):
    script = f"""
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.exceptions import ParamValidationError
bag = DagBag({airflow_environment["AIRFLOW__CORE__DAGS_FOLDER"]!r})
refused = []
for field, value in (("gan_epochs", 0), ("classifiers", ["alexnet"]), ("seeds", ["x"]), ("settings", 3)):
    param = bag.dags["cxr_training"].params.get_param(field)
    try:
        param.resolve(value)
    except ParamValidationError:
        refused.append(field)
print(refused)
"""
    assert in_airflow(script) == "['gan_epochs', 'classifiers', 'seeds', 'settings']"
