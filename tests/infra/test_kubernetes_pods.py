"""A run whose tasks go to Celery and to pods: Airflow with the values of its chart, and a stand-in for the cluster.

Its servers, PostgreSQL, Redis and the Celery worker are real. A pod is a process with the variables that the template
gives it, less the addresses of servers, which are those of this machine.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from infra.embedded.airflow_api import ENDED
from tests.infra.celery_stack import CeleryStack, at_work, skip_unless_asked, until
from tests.infra.compose import ROOT
from tests.infra.kubernetes_api import Cluster, served
from tests.infra.manifests import ENVIRONMENT, FOLDER, POD, VALUES, env_of

pytestmark = [pytest.mark.stack, pytest.mark.airflow]

DAG = """
import os
from pathlib import Path
from airflow.sdk import dag, get_current_context
from cxr_wiring import DEFAULT_ARGS, heavy, step

@dag(dag_id="work", schedule=None, default_args=DEFAULT_ARGS)
def work():
    def train_arm(number):
        ti = get_current_context()["ti"]
        Path(MARKS, f"train_arm {ti.map_index} try {ti.try_number}").write_text(os.environ["POD"])
        if number == 1 and ti.try_number == 1:
            # The supervisor first, as where a node dies.
            os.kill(os.getppid(), 9)
            os._exit(9)
    def configure():
        Path(MARKS, "configure").write_text(os.environ.get("POD", "no pod"))
    heavy(train_arm, "arms").expand(number=[0, 1])
    step(configure)()

work()
"""


class PodStack(CeleryStack):
    """The Celery stack, whose executor ``gpu`` makes pods."""

    def __init__(self, folder: Path, dags: Path, address: str) -> None:
        """Nothing is started yet. ``address``: of the cluster."""
        account = {
            "clusters": [{"name": "here", "cluster": {"server": address}}],
            "users": [{"name": "me", "user": {}}],
        }
        contexts = [{"name": "here", "context": {"cluster": "here", "user": "me"}}]
        config = {"apiVersion": "v1", "kind": "Config", "current-context": "here", "contexts": contexts, **account}
        (folder / "kubeconfig").write_text(yaml.safe_dump(config), encoding="utf-8")
        settings = {
            "namespace": "cxr",
            "in_cluster": "False",
            "config_file": str(folder / "kubeconfig"),
            "pod_template_file": str(FOLDER / "pod_template.yaml"),
            **VALUES["config"]["kubernetes_executor"],
        }
        super().__init__(
            folder / "stack",
            dags,
            PYTHONPATH=f"{ROOT / 'dags'}:{ROOT}",
            AIRFLOW__CORE__EXECUTOR=VALUES["executor"],
            **{f"AIRFLOW__KUBERNETES_EXECUTOR__{name.upper()}": value for name, value in settings.items()},
        )

    def in_a_pod(self) -> dict[str, str]:
        """The variables of a pod, with the places of this machine."""
        given = {**ENVIRONMENT, **env_of(POD["spec"]["containers"][0]["env"])}
        here = {name: value for name, value in self.variables.items() if name in given or "__" not in name}
        return {**given, **here, "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self.folder / "logs")}


def test_tasks_for_the_gpu_get_pods_and_one_that_dies_gets_another(request, tmp_path):
    skip_unless_asked(request)
    marks, dags = tmp_path / "marks", tmp_path / "dags"
    for folder in (marks, dags):
        folder.mkdir()
    (dags / "work.py").write_text(DAG.replace("MARKS", repr(str(marks))), encoding="utf-8")
    cluster = Cluster({}, tmp_path)
    with served(cluster) as address:
        stack = PodStack(tmp_path, dags, address)
        cluster.variables = stack.in_a_pod()
        with at_work(stack, ["work"]) as (_, api):
            run = api.trigger("work", {})
            # The limit of the heartbeat is 900 s.
            until(lambda: api.run_state("work", run) in ENDED, "the run ends", 400)
            state = api.run_state("work", run)
            tasks = {(task["task_id"], task["map_index"]): task for task in api.tasks("work", run)}

    assert state == "success", {name: task["state"] for name, task in tasks.items()}
    where = {mark.name: mark.read_text() for mark in marks.iterdir()}
    assert where.pop("configure") == "no pod" and tasks["configure", -1]["hostname"] == "worker-cpu"
    assert sorted(where) == ["train_arm 0 try 1", "train_arm 1 try 1", "train_arm 1 try 2"]
    assert set(where.values()) == {pod["metadata"]["name"] for pod in cluster.seen} and len(cluster.seen) == 3
    assert all(
        pod["spec"]["containers"][0]["resources"] == POD["spec"]["containers"][0]["resources"] for pod in cluster.seen
    )
