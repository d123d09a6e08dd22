"""The pod that Airflow's KubernetesExecutor makes for a task that goes to the GPU."""

import json

import pytest

from tests.infra.compose import SERVICES, example, resolve
from tests.infra.manifests import CLOSED, ENVIRONMENT, FOLDER, POD, VALUES, env_of

pytestmark = pytest.mark.airflow

BUILD = """
import json, sys
from uuid import uuid4
from airflow.executors.executor_loader import ExecutorLoader
from airflow.executors.workloads import BundleInfo, ExecuteTask, TaskInstanceDTO
from airflow.providers.cncf.kubernetes.executors.kubernetes_executor import KubernetesExecutor
from airflow.providers.cncf.kubernetes.executors.kubernetes_executor_types import KubernetesJob
from airflow.providers.cncf.kubernetes.executors.kubernetes_executor_utils import AirflowKubernetesScheduler
from airflow.providers.cncf.kubernetes.kube_config import KubeConfig
from kubernetes.client import ApiClient

names = {str(name.alias): name.module_path for name in ExecutorLoader.get_executor_names()}
# Nothing here speaks to a cluster: the part of the executor that builds pods is given what it reads.
builds = AirflowKubernetesScheduler.__new__(AirflowKubernetesScheduler)
builds.kube_config, builds.namespace, builds.scheduler_job_id = KubeConfig(), "cxr", "1"
builds.supports_task_instance_uuid = False
task = TaskInstanceDTO(
    id=uuid4(), dag_version_id=uuid4(), dag_id="cxr_training", task_id="arms.train", run_id="run", try_number=1,
    map_index=3, pool_slots=1, queue="gpu", priority_weight=20)
workload = ExecuteTask(
    token="", ti=task, dag_rel_path="cxr_training.py", bundle_info=BundleInfo(name="dags-folder"), log_path=None)
job = KubernetesJob(key=task.key, command=[workload], kube_executor_config=None, pod_template_file=None)
pod = builds._build_pod_request(job)
print(json.dumps({"executors": names, "is gpu": ExecutorLoader.load_executor("gpu").__class__ is KubernetesExecutor,
                  "pod": ApiClient().sanitize_for_serialization(pod)}))
"""


def test_airflow_gives_a_task_for_the_gpu_a_pod_with_one(in_airflow):
    settings = VALUES["config"]["kubernetes_executor"]
    variables = {
        "AIRFLOW__CORE__EXECUTOR": VALUES["executor"],
        "AIRFLOW__KUBERNETES_EXECUTOR__POD_TEMPLATE_FILE": str(FOLDER / "pod_template.yaml"),
        **{f"AIRFLOW__KUBERNETES_EXECUTOR__{name.upper()}": value for name, value in settings.items()},
    }

    built = json.loads(in_airflow(BUILD, **variables))

    assert built["is gpu"] and list(built["executors"]) == ["None", "gpu"]
    assert built["executors"]["None"].endswith("RedisCeleryExecutor")
    spec = built["pod"]["spec"]
    (container,) = spec["containers"]
    assert container["image"] == f"{settings['worker_container_repository']}:{settings['worker_container_tag']}"
    assert container["image"] == resolve(SERVICES["worker-gpu"]["image"], example())
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    # The image has no entrypoint: what the executor asks for is the program itself.
    assert "command" not in container and container["args"][:2] == ["python", "-m"]
    assert container["envFrom"] and container["securityContext"] == CLOSED
    assert spec["tolerations"] == POD["spec"]["tolerations"] and spec["nodeSelector"] == POD["spec"]["nodeSelector"]
    shm = next(volume for volume in spec["volumes"] if volume["name"] == "shm")
    assert shm["emptyDir"] == {"medium": "Memory", "sizeLimit": "2Gi"}
    assert built["pod"]["metadata"]["annotations"]["map_index"] == "3"
    assert "airflow-worker" in built["pod"]["metadata"]["labels"]


READ = """
import os
from airflow.dag_processing.dagbag import BundleDagBag
bag = BundleDagBag(os.environ["DAGS"], bundle_path=os.environ["DAGS"], bundle_name="dags")
print(bag.import_errors or bag.dags["cxr_training"].get_task("gan.train_gan").executor)
"""


def test_the_pod_reads_the_dags_that_name_its_executor(in_airflow, airflow_environment):
    """A DAG that names an executor cannot be read where nobody says what that is."""
    folders = {name: airflow_environment[f"AIRFLOW__CORE__{name}_FOLDER"] for name in ("DAGS", "PLUGINS")}
    here = {"DAGS": folders["DAGS"], **{f"AIRFLOW__CORE__{name}_FOLDER": path for name, path in folders.items()}}
    variables = ENVIRONMENT | env_of(POD["spec"]["containers"][0]["env"]) | here

    assert in_airflow(READ, **variables) == "gpu"
    assert "UnknownExecutor" in in_airflow(READ, **variables | {"AIRFLOW__CORE__EXECUTOR": "LocalExecutor"})
