"""A task that waits in a queue for hours, behind others of few slots, is handed out again and never failed for it."""

import json

import pytest

from infra.embedded.stack import OUTLASTING

pytestmark = [pytest.mark.airflow]

DAG = """
from airflow.sdk import dag, task

@dag(schedule=None)
def waits():
    @task
    def waits():
        pass
    waits()

waits()
"""
# Airflow's scheduler looks after a task that has waited for too long already, again and again.
SCRIPT = """
import json
from datetime import timedelta
from airflow.dag_processing.dagbag import BundleDagBag
from airflow.executors.base_executor import BaseExecutor
from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.taskinstance import TaskInstance
from airflow.sdk.timezone import utcnow
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState

class Executor(BaseExecutor):
    def revoke_task(self, *, ti):
        pass

run = BundleDagBag(FOLDER, bundle_path=FOLDER, bundle_name="dags-folder").dags["waits"].test()
job, states = Job(), []
runner = SchedulerJobRunner(job, executors=[Executor()])
with create_session() as session:
    session.add(job)
    session.flush()
    for _ in range(TIMES):
        (task,) = session.query(TaskInstance).filter_by(dag_id="waits", run_id=run.run_id)
        task.state, task.queued_by_job_id = TaskInstanceState.QUEUED, job.id
        task.queued_dttm = utcnow() - timedelta(hours=1)
        session.commit()
        runner._handle_tasks_stuck_in_queued(session=session)
        session.expire_all()
        (task,) = session.query(TaskInstance).filter_by(dag_id="waits", run_id=run.run_id)
        states.append(task.state)
print(json.dumps(states))
"""


@pytest.fixture
def handed_out(in_airflow, tmp_path):
    """What becomes of a task each time that it has waited for too long."""
    (tmp_path / "waits.py").write_text(DAG, encoding="utf-8")

    def states(times, variables):
        script = SCRIPT.replace("FOLDER", repr(str(tmp_path))).replace("TIMES", str(times))
        return json.loads(in_airflow(script, 500, AIRFLOW__CORE__DAGS_FOLDER=str(tmp_path), **variables))

    return states


def test_a_task_is_handed_out_again_as_often_as_it_must_be(handed_out):
    assert handed_out(40, OUTLASTING) == ["scheduled"] * 40


def test_by_itself_airflow_fails_it_at_the_third_time(handed_out):
    assert handed_out(3, {}) == ["scheduled", "scheduled", "failed"]
