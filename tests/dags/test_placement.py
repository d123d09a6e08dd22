"""Where the tasks of a run go: to the GPU or not, as the stack and its profile say. A real Airflow makes them."""

import json
from typing import get_args

import pytest

from cxr_tasks import steps
from cxr_tasks.config import GpuStep, resolve

pytestmark = pytest.mark.airflow

# The tasks of a DAG run, as Airflow's database has them. None is mapped yet, and each stands for all of its instances.
TASKS = """
import json, os
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db
from airflow.models.taskinstance import TaskInstance
from airflow.models.serialized_dag import SerializedDagModel
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
import pendulum
folder = os.environ["AIRFLOW__CORE__DAGS_FOLDER"]
bag = BundleDagBag(folder, bundle_path=folder, bundle_name="dags-folder")
if bag.import_errors:
    print(json.dumps({"errors": " ".join(bag.import_errors.values())}))
    raise SystemExit
DagBundlesManager().sync_bundles_to_db()
sync_bag_to_db(bag, "dags-folder", None)
with create_session() as session:
    run = os.environ["RUN"]
    made = SerializedDagModel.get("cxr_training", session=session).dag.create_dagrun(
        run_id=run, run_type=DagRunType.MANUAL, run_after=pendulum.now(), state=DagRunState.QUEUED, session=session,
        triggered_by=DagRunTriggeredByType.TEST)
    tasks = session.query(TaskInstance).filter_by(dag_id="cxr_training", run_id=run)
    print(json.dumps({task.task_id: [task.executor, task.queue, task.pool] for task in tasks}))
"""
GPU = ["gpu", "gpu", "gpu"]
ELSEWHERE = [None, "default", "training"]
STEP_OF = {
    "gan.train_gan": "train_gan",
    "gan.judge": "judge",
    "gan.synthesize": "synthesize",
    "features.of_dataset": "extract_features",
    "features.of_synthetic": "extract_features",
    "arms.train": "train_arm",
    "arms.train_with_synthetic": "train_arm",
    "arms.reproduce_leak": "reproduce_leak",
    "verdict.explain": "explain",
    "verdict.evaluate_external": "evaluate_external",
}


@pytest.fixture(scope="module")
def tasks(in_airflow):
    def of_a_run(run: str, **variables: str):
        # Airflow takes no other version of a DAG for half a minute.
        at_once = {"AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "0"}
        return json.loads(in_airflow(TASKS, RUN=run, **at_once, **variables))

    return of_a_run


def test_all_that_computes_with_networks_goes_to_the_gpu_of_a_stack_that_has_one(tasks):
    made = tasks("paper", CXR_PROFILE="paper", CXR_GPU_QUEUE="gpu")

    assert {name for name, place in made.items() if place == GPU} == set(STEP_OF)
    assert {tuple(place) for name, place in made.items() if name not in STEP_OF} == {
        (None, "default", "default_pool"),
        tuple(ELSEWHERE),
    }


def test_nothing_goes_to_the_gpu_of_a_stack_that_has_none_and_no_executor_is_named_for_it(tasks):
    made = tasks("without", CXR_PROFILE="paper", AIRFLOW__CORE__EXECUTOR="LocalExecutor")

    assert all(made[name] == ELSEWHERE for name in STEP_OF)


def test_the_profile_of_the_stack_says_which_steps_go_there(tasks, tmp_path):
    own = tmp_path / "own.yaml"
    whole = resolve("quick").model_copy(update={"gpu": resolve("quick").gpu.model_copy(update={"steps": ("explain",)})})
    own.write_text(whole.to_yaml().replace("profile: quick\n", "", 1))

    made = tasks("own", CXR_PROFILE=str(own), CXR_GPU_QUEUE="gpu")

    assert [name for name in STEP_OF if made[name] == GPU] == ["verdict.explain"]
    assert all(made[name] == ELSEWHERE for name in STEP_OF if name != "verdict.explain")


def test_a_profile_of_the_stack_that_is_not_there_is_named(tasks):
    told = tasks("wrong", CXR_PROFILE="papr", CXR_GPU_QUEUE="gpu")["errors"]

    assert "Profile 'papr' does not exist: choose one of paper, quick" in told


def test_every_step_that_may_ask_for_a_gpu_is_a_step_with_a_task():
    assert set(get_args(GpuStep)) == set(STEP_OF.values()) <= set(steps.__all__)
