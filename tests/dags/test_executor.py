"""The executor of the embedded stack, in a process that leads its session as Airflow's scheduler does."""

import json
import os
from types import SimpleNamespace

import pytest

pytestmark = [pytest.mark.airflow]

# The tasks are stood in for by what they do to the executor: they take time, begin processes, end well, badly, or not.
STAND_IN = """
import subprocess, sys, time
from airflow.executors.base_executor import BaseExecutor

def run(workload, **given):
    if workload.display_name == "good":
        found = {"tensorflow", "keras", "mlflow", "cxr_tasks.steps.train_arm"} & set(sys.modules)
        open(workload.file, "w").write(" ".join(sorted(found)))
    if workload.display_name == "task":
        # As the supervisor does: the task is a process below, in a group of its own.
        task = subprocess.Popen(["sleep", "600"], process_group=0)
        open(workload.file, "w").write(str(task.pid))
        task.wait()
    elif workload.display_name == "short":
        time.sleep(0.3)
    elif workload.display_name == "bad":
        raise RuntimeError("no")

BaseExecutor.run_workload = staticmethod(run)
"""
SCRIPT = """
import json, os, time
from types import SimpleNamespace
import psutil
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.utils.state import TaskInstanceState
from infra.embedded import executor as of_stack

os.setsid() if os.getsid(0) != os.getpid() else None
# In the processes of tasks, which are forked from another one.
of_stack.PRELOADED.append("stand_in")

def workload(name):
    key = TaskInstanceKey("dag", name, "run", 1, -1)
    return SimpleNamespace(key=key, display_name=name, file=os.environ["SCRATCH"] + name, running_state=None,
                           success_state=TaskInstanceState.SUCCESS, failure_state=TaskInstanceState.FAILED)

def until(condition):
    deadline = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
        executor.sync()

executor = of_stack.ProcessExecutor(parallelism=3)
executor.start()
before = len(psutil.Process().children(recursive=True))
told = {}
for name in ("good", "bad", "task"):
    given = workload(name)
    executor.queued_tasks[given.key] = given
executor.order_queued_tasks_by_priority = lambda: list(executor.queued_tasks.items())
executor.trigger_tasks(3)
told["running at first"] = len(executor.running)
until(lambda: len(executor.running) == 1)
until(lambda: os.path.exists(os.environ["SCRATCH"] + "task") and open(os.environ["SCRATCH"] + "task").read())
task = psutil.Process(int(open(os.environ["SCRATCH"] + "task").read()))
told["alive beside others that ended"] = task.is_running()
task.parent().kill()
until(lambda: not executor.running)
told["alive after its watcher was killed"] = psutil.pid_exists(task.pid)
told["states"] = {key.task_id: str(state) for key, (state, _) in executor.get_event_buffer().items()}
told["processes"] = len(psutil.Process().children(recursive=True)) - before
told["imported before the task begins"] = open(os.environ["SCRATCH"] + "good").read().split()
executor.end()
# The scheduler would wait for longer than this test may take, but for the end of the task.
of_stack.IDLE_SECONDS = of_stack.BESIDE_TASKS_SECONDS = 600
given = workload("short")
executor.queued_tasks[given.key] = given
executor.heartbeat()
while executor.running:
    executor.heartbeat()
executor.get_event_buffer()
# What follows from the end of a task may take the scheduler several rounds. They do not wait.
executor.heartbeat()
told["rounds left after an end"] = executor._rounds
print(json.dumps(told))
"""


def test_the_end_of_every_process_is_told_and_nothing_is_left(in_airflow, airflow_environment, tmp_path):
    (tmp_path / "stand_in.py").write_text(STAND_IN, encoding="utf-8")

    path = f"{tmp_path}{os.pathsep}{airflow_environment['PYTHONPATH']}"
    from infra.embedded.executor import ROUNDS_AFTER_NEWS

    told = json.loads(in_airflow(SCRIPT, SCRATCH=f"{tmp_path}/", PYTHONPATH=path))

    assert told == {
        "running at first": 3,
        "alive beside others that ended": True,
        "alive after its watcher was killed": False,
        "states": {"good": "success", "bad": "failed", "task": "failed"},
        "processes": 0,
        "rounds left after an end": ROUNDS_AFTER_NEWS - 1,
        "imported before the task begins": ["cxr_tasks.steps.train_arm", "keras", "mlflow", "tensorflow"],
    }


def test_airflow_does_not_wait_for_a_heartbeat_where_a_task_has_closed_all():
    import attrs
    from airflow.sdk.execution_time.supervisor import WatchedSubprocess

    from infra.embedded.executor import ENDING_SECONDS, _watch

    look = _watch(lambda watched, max_wait_time, **given: (max_wait_time, given))

    assert look(SimpleNamespace(_open_sockets={"logs": 1}), 5.0) == (5.0, {})
    assert look(SimpleNamespace(_open_sockets={}), max_wait_time=5.0, expect_signal=9) == (
        ENDING_SECONDS,
        {"expect_signal": 9},
    )
    # The names that the executor relies on are not Airflow's public ones.
    assert callable(WatchedSubprocess._service_subprocess)
    assert "_open_sockets" in {field.name for field in attrs.fields(WatchedSubprocess)}


def test_airflow_finds_the_executor_under_its_alias(in_airflow, tmp_path):
    from infra.embedded.stack import Stack

    name = Stack(tmp_path, 1, 2, {}).environment["AIRFLOW__CORE__EXECUTOR"]
    script = (
        "from airflow.executors.executor_loader import ExecutorLoader; "
        "executor = ExecutorLoader.load_executor('gpu'); print(type(executor).__name__, executor.is_local)"
    )

    assert in_airflow(script, AIRFLOW__CORE__EXECUTOR=name) == "ProcessExecutor True"
