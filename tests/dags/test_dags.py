"""The DAG files as Airflow parses them: they load, fast, without ML libraries, and are wired as drawn."""

import json
import shutil
from pathlib import Path

import pytest

pytestmark = pytest.mark.airflow

REPOSITORY = Path(__file__).resolve().parents[2]
LINKS = ["MLflow run", "Report", "Data Docs", "Sample grid"]
GAN = ["gan.train_gan", "gan.judge", "gan.synthesize"]

LOAD = """
import json, sys
from airflow.dag_processing.dagbag import BundleDagBag
bag = BundleDagBag(DAGS, bundle_path=DAGS, bundle_name="dags")
heavy = [m for m in ("tensorflow", "keras", "mlflow", "great_expectations", "pandas", "sklearn", "boto3")
         if m in sys.modules]
tasks = {
    dag_id: {t.task_id: {"up": sorted(t.upstream_task_ids), "pool": t.pool, "queue": t.queue, "executor": t.executor,
                         "retries": t.retries, "policy": t.retry_policy is not None,
                         "doc": getattr(t, "python_callable", type(t)).__doc__,
                         "timeout": t.execution_timeout.total_seconds() if t.execution_timeout else None,
                         "links": [l.name for l in t.operator_extra_links]}
             for t in dag.tasks if not t.is_mapped}
    for dag_id, dag in bag.dags.items()
}
mapped = {
    dag_id: {t.task_id: {"up": sorted(t.upstream_task_ids), "pool": t.pool, "queue": t.queue, "executor": t.executor,
                         "retries": t.retries, "policy": t.retry_policy is not None,
                         "doc": t.partial_kwargs.get("python_callable", t.op_kwargs_expand_input).__doc__,
                         "timeout": t.execution_timeout.total_seconds() if t.execution_timeout else None,
                         "links": [l.name for l in t.operator_extra_links]}
             for t in dag.tasks if t.is_mapped}
    for dag_id, dag in bag.dags.items()
}
print(json.dumps({"errors": bag.import_errors, "heavy": heavy,
                  "tasks": {dag_id: tasks[dag_id] | mapped[dag_id] for dag_id in tasks},
                  "docs": {d: bool(g.doc_md and g.doc_md.strip()) for d, g in bag.dags.items()},
                  "weights": {d: {t.task_id: [t.priority_weight, str(t.weight_rule)] for t in g.tasks}
                              for d, g in bag.dags.items()},
                  "at once": {d: [g.max_active_runs, g.catchup] for d, g in bag.dags.items()},
                  "forms": {d: sorted(g.params.keys()) for d, g in bag.dags.items()}}))
"""


@pytest.fixture(scope="module")
def load(in_airflow, airflow_environment):
    script = f"DAGS = {airflow_environment['AIRFLOW__CORE__DAGS_FOLDER']!r}\n{LOAD}"
    return lambda **variables: json.loads(in_airflow(script, **variables))


@pytest.fixture(scope="module")
def loaded(load):
    return load()


def test_every_file_loads(loaded):
    assert loaded["errors"] == {}
    assert set(loaded["tasks"]) == {"cxr_cleanup", "cxr_data", "cxr_monitor", "cxr_rollback", "cxr_training"}


def test_runs_come_one_at_a_time_and_what_was_missed_is_not_caught_up(loaded):
    assert set(map(tuple, loaded["at once"].values())) == {(1, False)}


def test_parsing_imports_no_heavy_library(loaded):
    assert loaded["heavy"] == []


def test_the_training_dag_is_wired_as_drawn(loaded):
    up = {name: task["up"] for name, task in loaded["tasks"]["cxr_training"].items()}

    assert up["gan.train_gan"] == ["configure"]
    assert up["gan.import_synthetic"] == ["configure"]
    assert up["gan.judge"] == ["configure", "gan.import_synthetic", "gan.train_gan"]
    assert up["gan.synthesize"] == ["configure", "gan.import_synthetic", "gan.judge", "gan.train_gan"]
    assert up["features.of_dataset"] == ["configure", "features.backbones"]
    assert "gan.synthesize" in up["features.of_synthetic"]
    assert up["arms.train"] == ["arms.real", "configure", "features.of_dataset"]
    awaited = {"features.of_dataset", "features.of_synthetic", "gan.synthesize"}
    assert awaited <= set(up["arms.train_with_synthetic"])
    assert awaited <= set(up["arms.reproduce_leak"])
    assert {"arms.train", "arms.train_with_synthetic", "verdict.pairs"} <= set(up["verdict.compare"])
    assert "arms.reproduce_leak" not in up["verdict.compare"] + up["verdict.challenge"]
    assert "verdict.compare" in up["verdict.explain"] and "verdict.compare" in up["verdict.challenge"]
    assert up["read_external"] == ["configure", "external_sets"]
    assert {"read_external", "arms.train"} <= set(up["verdict.evaluate_external"])
    assert "verdict.evaluate_external" in up["verdict.challenge"]
    assert {"verdict.challenge", "verdict.draft_report"} <= set(up["verdict.approve"])
    for after_gate in ("promote", "keep_champion"):
        assert {"verdict.challenge", "verdict.approve"} <= set(up[f"verdict.{after_gate}"])
    reported = {
        "verdict.evaluate_external",
        "verdict.promote",
        "verdict.keep_champion",
        "verdict.explain",
        "arms.reproduce_leak",
        "gan.import_synthetic",
        *GAN,
    }
    assert reported <= set(up["verdict.write_report"])


def test_what_takes_seconds_goes_before_what_takes_hours_whichever_run_it_is_of(loaded):
    weights, pools = {}, {}
    for dag, tasks in loaded["weights"].items():
        assert {rule for _, rule in tasks.values()} == {"absolute"}
        weights |= {f"{dag}.{name}": weight for name, (weight, _) in tasks.items()}
        pools |= {f"{dag}.{name}": loaded["tasks"][dag][name]["pool"] for name in tasks}
    long = {name for name, pool in pools.items() if pool in ("training", "gpu")}
    quick = weights.keys() - long

    assert {"cxr_data.queue_training", "cxr_data.finish", "cxr_training.external_sets"} <= quick
    assert min(weights[name] for name in quick) > max(weights[name] for name in long)
    order = ("read_external", "gan.train_gan", "features.of_dataset", "arms.train", "verdict.explain")
    heavy = [weights[f"cxr_training.{name}"] for name in order]
    assert heavy == sorted(set(heavy), reverse=True)


def test_every_task_has_retries_a_policy_and_a_timeout(loaded):
    for tasks in loaded["tasks"].values():
        for name, task in tasks.items():
            # A person may take days, and the settings of the run say how many.
            limited = task["timeout"] is None if name == "verdict.approve" else bool(task["timeout"])
            assert task["retries"] == 7 and task["policy"] and limited, name


def test_every_step_links_to_mlflow_the_report_data_docs_and_samples(loaded):
    for tasks in loaded["tasks"].values():
        for name, task in tasks.items():
            # The question holds its links itself.
            assert name == "verdict.approve" or task["links"] == LINKS, name


def test_every_task_says_what_it_does(loaded):
    for tasks in loaded["tasks"].values():
        for name, task in tasks.items():
            assert task["doc"] and task["doc"].strip().endswith("."), name


def test_a_dag_folder_that_lies_elsewhere_needs_only_the_installed_package(in_airflow, tmp_path):
    folder = shutil.copytree(REPOSITORY / "dags", tmp_path / "synced" / "dags")
    script = f"""
import os, sys
from airflow.dag_processing.dagbag import BundleDagBag
here = {str(REPOSITORY)!r}
sys.path[:] = [INSTALLED, *(path for path in sys.path if os.path.realpath(path or ".") != here)]
bag = BundleDagBag({str(folder)!r}, bundle_path={str(folder)!r}, bundle_name="synced")
print(sorted(bag.dags) if not bag.import_errors else bag.import_errors)
"""
    installed = shutil.copytree(REPOSITORY / "cxr_tasks", tmp_path / "installed" / "cxr_tasks").parent

    found = in_airflow(f"INSTALLED = {str(installed)!r}\n{script}", cwd=str(tmp_path))

    assert found == "['cxr_cleanup', 'cxr_data', 'cxr_monitor', 'cxr_rollback', 'cxr_training']"


def test_the_forms_offer_what_people_change(loaded):
    fields = {
        "profile",
        "design",
        "classifiers",
        "baseline",
        "arms",
        "seeds",
        "gan_epochs",
        "synthetic_source",
        "synthetic_per_class",
    }
    fields |= {"approval", "reproduce_leak", "settings", "force"}

    assert set(loaded["forms"]["cxr_training"]) == fields | {"dataset"}
    assert set(loaded["forms"]["cxr_data"]) == fields | {"source"}
    assert set(loaded["forms"]["cxr_monitor"]) == {"dataset", "profile", "settings"}
    assert set(loaded["forms"]["cxr_rollback"]) == {"model", "version", "reason"}
    assert all(loaded["docs"].values())


def test_the_form_refuses_nonsense(in_airflow, airflow_environment):
    script = f"""
from airflow.dag_processing.dagbag import BundleDagBag
from airflow.sdk.exceptions import ParamValidationError
dags = {airflow_environment["AIRFLOW__CORE__DAGS_FOLDER"]!r}
bag = BundleDagBag(dags, bundle_path=dags, bundle_name="dags")
refused = []
wrong = {{"gan_epochs": 0, "classifiers": ["alexnet"], "seeds": ["x"], "settings": 3, "force": ["trian_arm"]}}
for field, value in wrong.items():
    param = bag.dags["cxr_training"].params.get_param(field)
    try:
        param.resolve(value)
    except ParamValidationError:
        refused.append(field)
print(refused)
"""
    assert in_airflow(script) == "['gan_epochs', 'classifiers', 'seeds', 'settings', 'force']"


def test_a_link_leads_to_a_page_and_runs_no_script(in_airflow):
    script = """
import sys
sys.path.insert(0, DAGS)
import cxr_wiring
from airflow.sdk.execution_time.xcom import XCom
from types import SimpleNamespace
told = []
for url in ("https://mlflow/#/x", "javascript:alert(1)", "data:text/html,x", " javascript:alert(1)", ""):
    XCom.get_value = classmethod(lambda cls, **_: {"url": url, "address": url, "data_docs": url})
    task = SimpleNamespace(task_id="gan.judge", op_kwargs={"run": {"url": url, "mlflow_run_id": url, "settings": "s"}})
    told += [link.get_link(task, ti_key=url) for link in cxr_wiring.StepOperator.operator_extra_links]
print([told[:4], "".join(told[4:])])
"""
    expected = str([[*["https://mlflow/#/x"] * 3, ""], ""])
    assert in_airflow(f"DAGS = {str(REPOSITORY / 'dags')!r}\n{script}") == expected


def test_links_work_while_a_task_runs_and_after_it_failed(in_airflow):
    script = """
import json, sys
sys.path.insert(0, DAGS)
import cxr_pages, cxr_wiring
from cxr_tasks import steps
from airflow.sdk.execution_time.xcom import XCom
from types import SimpleNamespace
# A failed task has returned nothing.
XCom.get_value = classmethod(lambda cls, **_: None)

def links(task_id):
    run = {"url": "https://mlflow/#/parent", "mlflow_run_id": "0a", "settings": "s"}
    task = SimpleNamespace(task_id=task_id, op_args=[run], op_kwargs={})
    return [link.get_link(task, ti_key=None) for link in cxr_wiring.StepOperator.operator_extra_links]

pushed = {}
ti = SimpleNamespace(xcom_push=pushed.__setitem__)
run = {"url": "https://mlflow/#/parent", "mlflow_run_id": "0a", "settings": "s"}
task = SimpleNamespace(task_id="gan.train_gan", op_kwargs={"run": run})
cxr_pages.get_current_context = lambda: {"ti": ti, "task": task}
cxr_pages.show_links()
began = links("arms.train")
steps.page_of_run = lambda: "https://mlflow/#/own"
steps.page_of_docs = lambda: "https://mlflow/#/docs"
print(json.dumps([pushed, began, links("arms.train"), links("validate"), links("gan.judge")]))
"""
    base = "http://airflow:8080/hospital"
    printed = in_airflow(f"DAGS = {str(REPOSITORY / 'dags')!r}\n{script}", AIRFLOW__API__BASE_URL=base)
    pushed, began, failed, validate, judge = json.loads(printed)
    samples = f"{base}/plugin/chest-x-rays/cxr/?run=0a#samples"

    assert pushed == {"_link_MlflowRunLink": "https://mlflow/#/parent", "_link_SampleGridLink": samples}
    assert began == ["https://mlflow/#/parent", "", "", ""]
    assert failed == ["https://mlflow/#/own", "", "", ""]
    assert validate == ["https://mlflow/#/own", "", "https://mlflow/#/docs", ""]
    assert judge == ["https://mlflow/#/own", "", "", samples]


def test_what_people_and_steps_hand_over_is_no_template(in_airflow, tmp_path):
    """What a form or a step gives is rendered by nobody: a template could read connections and variables."""
    (tmp_path / "handed_over.py").write_text(
        """
import json
import os

from airflow.sdk import dag
from cxr_wiring import step

def give(text: str) -> list[str]:
    return [text, text]

def take(text: str, all: list[str]) -> None:
    with open(os.environ["TOLD"], "a") as file:
        file.write(json.dumps([text, *all]) + "\\n")

@dag(params={"source": ""}, schedule=None)
def handed_over():
    given = step(give)("{{ params.source }}")
    step(take, map_index_template="{{ task.op_kwargs.text }}").partial(all=given).expand(text=given)

handed_over()
"""
    )
    script = """
import os, sys
sys.path.insert(0, DAGS)
from airflow.dag_processing.dagbag import BundleDagBag
bag = BundleDagBag(FOLDER, bundle_path=FOLDER, bundle_name="dags")
run = bag.dags["handed_over"].test(run_conf={"source": TEXT})
print(run.state, sorted(open(os.environ["TOLD"]).read().splitlines()))
"""
    text, given = "{{ 7 * 191 }}{{ params }}", {"DAGS": str(REPOSITORY / "dags"), "FOLDER": str(tmp_path)}
    named = "\n".join(f"{name} = {value!r}" for name, value in {**given, "TEXT": text}.items())
    told = in_airflow(f"{named}\n{script}", TOLD=str(tmp_path / "told"), AIRFLOW__CORE__DAGS_FOLDER=str(tmp_path))

    assert told == f"success {[json.dumps([text] * 3)] * 2}"
