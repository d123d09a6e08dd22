"""What Airflow's pages show of a task: its label, its result in a line, and links to where more is.

The API that tasks speak with knows no notes, and the one that knows them wants a person's account. So the result of a
mapped task becomes a part of its label, which is made again when the task ends, and that of every task is kept as the
XCom ``result``.

A link is an XCom that Airflow writes when a task ends, however it ends. Here it is written when the task begins, too.
"""

from __future__ import annotations

import logging
from typing import Any

from airflow.configuration import conf
from airflow.sdk import BaseOperatorLink, get_current_context
from airflow.sdk.execution_time.xcom import XCom

from cxr_tasks import steps

log = logging.getLogger(__name__)

RESULT_KEY = "result"
# Templates of labels, which take these two.
MACROS = {"task_label": steps.task_label}
LABEL = "{{ task_label(task.op_kwargs) }}{{ ' · ' ~ cxr_result if cxr_result is defined and cxr_result else '' }}"
PAGE_OF_PROJECT = "plugin/chest-x-rays/cxr/"


# The task that was asked about last, and what it returned. Airflow gives the same object for each link, and that has no
# hash.
_asked_about: list[tuple[Any, dict[str, Any]]] = []


def _returned_by(ti_key: Any) -> dict[str, Any]:
    """The handle that a task returned; empty where it returned none. Asked for once, and not for each link."""
    if not _asked_about or _asked_about[0][0] is not ti_key:
        handle = XCom.get_value(ti_key=ti_key, key="return_value")
        _asked_about[:] = [(ti_key, handle if isinstance(handle, dict) else {})]
    return _asked_about[0][1]


class HandleLink(BaseOperatorLink):
    """A link that is a field of the handle which a task returned; where there is no address no link is shown."""

    field = ""

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The address. Evaluated on the worker when the task ends; Airflow keeps it for the pages."""
        known = _returned_by(ti_key)
        address = known.get(self.field) or (known.get("run") or {}).get(self.field) or self.meanwhile(operator)
        # Whoever may edit an XCom could put a script in the place of an address.
        return address if address.startswith(("http://", "https://")) else ""

    def meanwhile(self, operator: Any) -> str:
        """The address while the task runs, and after it failed; empty where there is none."""
        return ""


class MlflowRunLink(HandleLink):
    """To the MLflow run of the step. While that is not known, or there is none: to that of the DAG run."""

    name = "MLflow run"
    field = "url"

    def meanwhile(self, operator: Any) -> str:
        """The run that this process has worked in last, or that of the DAG run."""
        return steps.page_of_run() or _run_of(operator).get("url", "")


class ReportLink(HandleLink):
    """To the report, on the task that wrote it."""

    name = "Report"
    field = "address"


class DataDocsLink(HandleLink):
    """To the page of the data validation, also where it says why the data do not pass."""

    name = "Data Docs"
    field = "data_docs"

    def meanwhile(self, operator: Any) -> str:
        """The page among the files of the run that this process has worked in last."""
        return steps.page_of_docs() if operator.task_id.rpartition(".")[2] == "validate" else ""


class SampleGridLink(HandleLink):
    """To the grids of samples, on the page of this project in Airflow, which needs no account of MLflow."""

    name = "Sample grid"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The address; only of tasks that make synthetic images or look at them."""
        return self.meanwhile(operator)

    def meanwhile(self, operator: Any) -> str:
        """The same at any time."""
        run, base = _run_of(operator).get("mlflow_run_id", ""), conf.get("api", "base_url", fallback="").rstrip("/")
        of_gan = operator.task_id.startswith("gan.")
        return f"{base}/{PAGE_OF_PROJECT}?run={run}#samples" if of_gan and base and run.isalnum() else ""


LINKS = (MlflowRunLink(), ReportLink(), DataDocsLink(), SampleGridLink())


def show_links() -> None:
    """Show what links there are while the task runs."""
    context = get_current_context()
    ti = context["ti"]
    for link in LINKS:
        if isinstance(link, MlflowRunLink | SampleGridLink) and (address := link.meanwhile(context["task"])):
            _push(ti, link.xcom_key, address)


def show_result(returned: Any) -> None:
    """Keep what came out of the task, in a line.

    Args:
        returned: What its step returned.
    """
    context: Any = get_current_context()
    if words := steps.task_result(returned):
        context["cxr_result"] = words
        _push(context["ti"], RESULT_KEY, words)


def _run_of(operator: Any) -> dict[str, Any]:
    """The DAG run as the task is given it."""
    given = [*(getattr(operator, "op_args", None) or ()), *(getattr(operator, "op_kwargs", None) or {}).values()]
    return next((each for each in given if isinstance(each, dict) and {"mlflow_run_id", "settings"} <= each.keys()), {})


def _push(ti: Any, key: str, value: str) -> None:
    try:
        ti.xcom_push(key, value)
    except Exception:
        # What people see beside the work must not stop it.
        log.warning("Airflow's pages do not show %s of this task.", key, exc_info=True)
