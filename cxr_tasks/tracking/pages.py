"""Addresses of MLflow's pages."""

from __future__ import annotations

import os
from urllib.parse import quote, urlencode, urlsplit

from cxr_tasks.tracking.server import is_on


def run_url(experiment: str, run_id: str) -> str:
    """Where people see the run; empty when the tracking store has no pages of its own."""
    base = _pages()
    return f"{base}/#/experiments/{experiment}/runs/{run_id}" if base else ""


def artifact_url(experiment: str, run_id: str, path: str) -> str:
    """Where people see one artifact of a run; empty as for :func:`run_url`."""
    base = run_url(experiment, run_id)
    return f"{base}/artifacts/{path}" if base else ""


def active_artifact_url(path: str) -> str:
    """Where people see one artifact of the active run; empty as for :func:`run_url`."""
    if not is_on():
        return ""
    import mlflow

    run = mlflow.active_run()
    return artifact_url(run.info.experiment_id, run.info.run_id, path) if run else ""


def search_url(experiment: str, condition: str, order_by: str, *, charts: bool = False) -> str:
    """Where people see the runs that fulfil ``condition``; empty as for :func:`run_url`.

    Args:
        experiment: MLflow's experiment.
        condition: In MLflow's search language.
        order_by: Runs with most of it come first.
        charts: Show their curves over each other instead of a list.
    """
    base = _pages()
    query = {"searchFilter": condition, "orderByKey": order_by, "orderByAsc": "false"}
    if charts:
        query["compareRunsMode"] = "CHART"
    return f"{base}/#/experiments/{experiment}/runs?{urlencode(query, quote_via=quote)}" if base else ""


def _pages() -> str:
    """The address of MLflow's pages, or '' where the tracking store has none. A password in it is not repeated."""
    base = os.environ.get("CXR_MLFLOW_UI") or os.environ.get("MLFLOW_TRACKING_URI", "")
    if not base.startswith("http") or not is_on():
        return ""
    parts = urlsplit(base)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")
