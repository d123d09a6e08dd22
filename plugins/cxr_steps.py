"""The ``@step`` task decorator: a Python task whose page in Airflow links to its MLflow run and to the report."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.decorators.python import _PythonDecoratedOperator
from airflow.sdk import BaseOperatorLink
from airflow.sdk.bases.decorator import TaskDecorator, task_decorator_factory
from airflow.sdk.execution_time.xcom import XCom

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class _ResultLink(BaseOperatorLink):
    """A link that the step's result carries; empty, and so not shown, where it carries none."""

    def _result(self, ti_key: TaskInstanceKey) -> dict[str, Any]:
        # Evaluated on the worker when the task ends; Airflow keeps the link for the pages.
        result = XCom.get_value(ti_key=ti_key, key="return_value")
        return result if isinstance(result, dict) else {}


class MlflowRunLink(_ResultLink):
    """To the MLflow run of this step."""

    name = "MLflow run"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        result = self._result(ti_key)
        return result.get("url") or result.get("run", {}).get("url", "")


class ReportLink(_ResultLink):
    """To the report, on the task that wrote it, and to Data Docs on the task that validated the data."""

    name = "Report"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        return self._result(ti_key).get("summary", {}).get("report", "")


class StepOperator(_PythonDecoratedOperator):
    """A function of ``cxr_tasks.steps`` as a task."""

    custom_operator_name = "step"
    operator_extra_links = (MlflowRunLink(), ReportLink())


def step(python_callable: Callable | None = None, **kwargs: Any) -> TaskDecorator:
    """Like ``@task``, with links. A result is one XCom unless ``multiple_outputs`` is asked for."""
    kwargs.setdefault("multiple_outputs", False)
    return task_decorator_factory(python_callable, decorated_operator_class=StepOperator, **kwargs)
