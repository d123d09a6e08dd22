"""What the DAG files share: the task decorator, the trigger form, the retry policy, the asset, and the schedules.

The only file that knows how a step becomes a task. DAG files import it by its plain name: Airflow puts the folder of
the DAGs on the import path, wherever that folder comes from.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial, wraps
from typing import Any

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import (
    Asset,
    CronTriggerTimetable,
    Param,
    task,
)
from airflow.sdk.bases.branch import BranchMixIn
from airflow.sdk.bases.decorator import DecoratedOperator, TaskDecorator, task_decorator_factory
from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy
from airflow.sdk.exceptions import AirflowRuntimeError
from cxr_failures import failures_so_far, on_record
from cxr_notices import TellFailure, TellSuccess
from cxr_pages import LINKS, MACROS, show_links, show_result
from pydantic import TypeAdapter, validate_call
from pydantic_core import to_jsonable_python

from cxr_tasks import steps
from cxr_tasks.artifacts import Features, Judgement, RunContext, Training
from cxr_tasks.form import CLEANUP_FIELDS, DATASET_FIELD, FIELDS, ROLLBACK_FIELDS, SOURCE_FIELD, Field, gpu_steps

ARM_AND_FEATURES: TypeAdapter[Any] = TypeAdapter(tuple[Training, list[list[Features | None] | None]])
DATASET = Asset(name="cxr_dataset", uri="cxr://dataset", group="cxr")


def form(fields: Mapping[str, Field]) -> dict[str, Param]:
    """The fields of a trigger form."""
    return {name: Param(field.default, **field.json_schema()) for name, field in fields.items()}


DATA_FORM, TRAINING_FORM = form({"source": SOURCE_FIELD, **FIELDS}), form({"dataset": DATASET_FIELD, **FIELDS})
MONITOR_FORM = form({"dataset": DATASET_FIELD, **{name: FIELDS[name] for name in ("profile", "settings")}})
ROLLBACK_FORM, CLEANUP_FORM = form(ROLLBACK_FIELDS), form(CLEANUP_FIELDS)
# Where slots are few, what takes seconds goes before what takes hours, also that of another run: a data run does not
# stay open behind trainings, and a set that cannot be read is known before them. Then comes what most waits for.
PRIORITIES = {"quick": 100, "reading": 50, "gan": 40, "features": 30, "arms": 20, "last": 10}
# The queue of the workers that have a GPU; empty where the stack has none.
GPU_QUEUE = os.environ.get("CXR_GPU_QUEUE", "")
# A cron expression, or empty for runs that are only triggered.
DATA_SCHEDULE = os.environ.get("CXR_DATA_SCHEDULE", "")
TRAINING_SCHEDULE = os.environ.get("CXR_TRAINING_SCHEDULE", "")
MONITOR_SCHEDULE = os.environ.get("CXR_MONITOR_SCHEDULE", "")
CLEANUP_SCHEDULE = os.environ.get("CXR_CLEANUP_SCHEDULE", "")
# Where the hours of these expressions are, such as Europe/Berlin.
TIME_ZONE = os.environ.get("CXR_TIME_ZONE") or "UTC"
# What is neither the user's error nor the world's is tried so often: it may be a killed neighbour or a bug.
OTHER_RETRIES = 2


class RetryWhatPasses(RetryPolicy):
    """A server that is away is waited for; what only a person can mend fails at once; the rest is tried twice more."""

    def evaluate(self, exception: BaseException, try_number: int, max_tries: int, context: Any = None) -> RetryDecision:
        """Decide on the worker, where the exception is."""
        from cxr_tasks.errors import UserError
        from cxr_tasks.outages import is_passing

        if isinstance(exception, UserError):
            # The same input gives the same error.
            return RetryDecision.fail("The data or the settings need a person's attention")
        if is_passing(exception):
            return RetryDecision.default()
        # ``max_tries`` grows when a task is cleared, so that it counts from there.
        if try_number > max_tries - RETRIES + OTHER_RETRIES:
            return RetryDecision.fail("Not an outage, and tried often enough")
        return RetryDecision.retry(RETRY_DELAY, "Not an outage: tried again soon")


# 20 s, 40 s, 80 s … and at most 10 minutes, each up to twice as long: seven retries span at least half an hour.
RETRIES, RETRY_DELAY = 7, timedelta(seconds=20)
DEFAULT_ARGS = {
    "retries": RETRIES,
    "retry_delay": RETRY_DELAY,
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=10),
    "execution_timeout": timedelta(hours=2),
    "retry_policy": RetryWhatPasses(),
    "priority_weight": PRIORITIES["quick"],
    # By Airflow's own rule a task also weighs what follows it, so that the last tasks of a run come last of all.
    "weight_rule": "absolute",
    "on_success_callback": TellSuccess(),
    "on_failure_callback": TellFailure(),
}

# What all DAGs are made with.
OF_ALL: dict[str, Any] = {
    "catchup": False,
    # A training that begins while a champion waits for its approval would make the answer void.
    "max_active_runs": 1,
    "is_paused_upon_creation": False,
    "default_args": DEFAULT_ARGS,
    "tags": ["cxr"],
    "user_defined_macros": MACROS,
}


def cron(expression: str) -> CronTriggerTimetable | None:
    """A timetable, or ``None`` for an empty expression."""
    return CronTriggerTimetable(expression, timezone=TIME_ZONE) if expression else None


class StepOperator(DecoratedOperator, PythonOperator):
    """A function of ``cxr_tasks.steps`` as a task, with links in Airflow's pages."""

    template_fields = ("op_args", "op_kwargs")
    template_fields_renderers = {"op_args": "py", "op_kwargs": "py"}  # noqa: RUF012
    custom_operator_name = "@step"
    operator_extra_links = LINKS

    def __init__(self, *, python_callable: Callable, op_args: Any, op_kwargs: Any, **kwargs: Any) -> None:
        """Hand the callable and its arguments to both parents, as Airflow asks of decorated operators."""
        call = {"python_callable": python_callable, "op_args": op_args, "op_kwargs": op_kwargs}
        super().__init__(kwargs_to_upstream=call, **call, **kwargs)


class BranchingStepOperator(StepOperator, BranchMixIn):
    """A step after which one of several tasks runs, and the others are skipped."""

    inherits_from_skipmixin = True
    custom_operator_name = "@step"

    def __init__(
        self,
        *,
        python_callable: Callable,
        op_args: Any,
        op_kwargs: Any,
        choose: Callable[[Any, dict[str, Any]], str],
        **kwargs: Any,
    ) -> None:
        """``choose``: the task to run, from what the step returns and what it is given."""
        super().__init__(python_callable=python_callable, op_args=op_args, op_kwargs=op_kwargs, **kwargs)
        self.choose = choose

    def execute(self, context: Any) -> Any:
        """Run the step, and then choose."""
        returned = super().execute(context)
        # Airflow skips tasks by an exception, which what is returned does not survive.
        context["ti"].xcom_push(key="return_value", value=returned)
        self.do_branch(context, self.choose(returned, self.op_kwargs))
        return returned


def step(
    function: Callable | None = None, *, multiple_outputs: bool = False, told_failures: bool = False, **kwargs: Any
) -> TaskDecorator:
    """Like ``@task``: plain JSON goes in and comes out, typed handles reach the function.

    ``told_failures``: it is given the tasks of the run that have failed, as ``failures``. ``choose``, of a branch: the
    task that runs next, from what the step returns and what it is given.
    """
    if function is None:
        options = {"multiple_outputs": multiple_outputs, "told_failures": told_failures, **kwargs}
        return lambda decorated: step(decorated, **options)
    checked = validate_call(function)

    @wraps(function)
    def call(*args: Any, **given: Any) -> Any:
        if told_failures:
            given["failures"] = failures_so_far()
        with on_record(function.__name__, given):
            show_links()
            returned = checked(*args, **given)
            show_result(returned)
            return to_jsonable_python(returned)

    operator = BranchingStepOperator if "choose" in kwargs else StepOperator
    kwargs |= {"decorated_operator_class": operator, "multiple_outputs": multiple_outputs}
    return task_decorator_factory(call, **kwargs)


def heavy(function: Callable, work: str, **kwargs: Any) -> TaskDecorator:
    """Like :func:`step`, of a task that may take days, on a GPU or not; ``work`` is one of ``PRIORITIES``."""
    on_gpu = GPU_QUEUE and function.__name__ in gpu_steps()
    place = {"executor": "gpu", "queue": GPU_QUEUE, "pool": "gpu"} if on_gpu else {"pool": "training"}
    turn = {"execution_timeout": timedelta(days=2), "priority_weight": PRIORITIES[work]}
    return step(function, **place, **turn | kwargs)


def _wants_synthetic(context: Any) -> tuple[bool, str]:
    """Whether the run trains with synthetic images; and what to say where it does not."""
    wanted = steps.wants_synthetic(RunContext.model_validate(context["task"].op_kwargs["run"]))
    return wanted, "" if wanted else "No arm of this run trains with synthetic images."


def _makes_synthetic(context: Any, *, by_gan: bool) -> tuple[bool, str]:
    """Whether the run trains with images of its GAN, or else with imported ones; and what to say where not."""
    wanted, why_not = _wants_synthetic(context)
    if not wanted:
        return wanted, why_not
    imports = steps.imports_synthetic(RunContext.model_validate(context["task"].op_kwargs["run"]))
    why_not = "synthetic.source is an address: no GAN is trained." if imports else "synthetic.source is gan."
    return imports != by_gan, why_not


def _may_train_with_synthetic(context: Any) -> tuple[bool, str]:
    """Whether the run trains with the synthetic images; and the verdict on them in words."""
    judged = context["ti"].xcom_pull(task_ids="gan.judge")
    if judged is None:
        return False, "Nothing was judged."
    judgement, run = Judgement.model_validate(judged), RunContext.model_validate(context["task"].op_kwargs["run"])
    return steps.may_train_with(run, judgement), judgement.sentence


def _has_what_it_needs(context: Any) -> tuple[bool, str]:
    """Whether a task that runs whatever has failed before it has what it cannot do without; and what it lacks."""
    given = context["task"].op_kwargs
    if given["run"] is None:
        return False, "The run has not begun; the task configure says why."
    # A skipped or failed task leaves nothing to those that ask for what it returns.
    if "challenge" in given and given["challenge"] is None:
        return False, "No challenger was registered; the task challenge says why."
    if "arm" not in given:
        return True, ""
    training, features = ARM_AND_FEATURES.validate_python((given["arm"], given["features"]))
    independent = steps.does_without(training)
    if "synthetic" in given and given["synthetic"] is None and not independent:
        return False, "There is no synthetic set to train with; the tasks of the group gan say why."
    lacks = steps.lacks_features(training, features[:1] if independent else features)
    return not lacks, lacks


# Decorators of tasks that are skipped where there is nothing for them to do.
if_generated = task.run_if(partial(_makes_synthetic, by_gan=True))
if_imported = task.run_if(partial(_makes_synthetic, by_gan=False))
_if_wanted, _if_good = task.run_if(_wants_synthetic), task.run_if(_may_train_with_synthetic)
_if_possible = task.run_if(_has_what_it_needs)


def if_wanted(step_task: TaskDecorator) -> TaskDecorator:
    """If the run trains with synthetic images: the task takes what one of two has made; the other is skipped."""
    step_task.kwargs["trigger_rule"] = "none_failed_min_one_success"
    return _if_wanted(step_task)


def if_good(step_task: TaskDecorator) -> TaskDecorator:
    """As :func:`if_wanted`, and if the synthetic images are good enough."""
    step_task.kwargs["trigger_rule"] = "none_failed_min_one_success"
    return _if_good(step_task)


def going_on(step_task: TaskDecorator) -> TaskDecorator:
    """One failure costs one branch: the task runs when all before it have ended, however, if it has what it needs."""
    step_task.kwargs["trigger_rule"] = "all_done"
    return _if_possible(step_task)


def finish() -> Any:
    """The last task of a run. It runs however the rest ended, also where a person marks the run as failed."""
    last = step(steps.finish, told_failures=True)("{{ dag.dag_id }}", "{{ run_id }}", failures=[])
    return last.as_teardown(on_failure_fail_dagrun=True)


def close_left_open(context: Any) -> None:
    """Close the MLflow runs of DAG runs that ended without their task ``finish``, as by a time limit."""
    ti = context["ti"]
    for run_id in set(steps.open_runs(ti.dag_id)) - {ti.run_id}:
        state = run_state(ti, ti.dag_id, run_id)
        if state in ("success", "failed"):
            steps.close_run(ti.dag_id, run_id, "" if state == "success" else "The DAG run has failed.")


def run_state(ti: Any, dag_id: str, run_id: str) -> str:
    """The state of a DAG run; empty where Airflow does not know it, as a run of another Airflow or without one."""
    try:
        state: str = ti.get_dagrun_state(dag_id, run_id)
    except AirflowRuntimeError:
        return ""
    return state
