"""Addresses of MLflow's pages."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from urllib.parse import quote, urlencode, urlsplit

from cxr_tasks.tracking.places import place_of
from cxr_tasks.tracking.server import is_on

# MLflow's pages show trainings in one of two ways, and traces in the other, which is how they open: they look at this,
# or else at what the browser was told last, and at no tag of the experiment.
MODE = {"workflowType": "machine_learning"}


# Where people see artifacts of runs that were active, by their paths.
_artifact_urls: dict[str, str] = {}
_last_page: list[str] = []


def run_url(experiment: str, run_id: str) -> str:
    """Where people see the run; empty when the tracking store has no pages of its own."""
    return _page(f"{experiment}/runs/{run_id}")


def artifact_url(experiment: str, run_id: str, path: str) -> str:
    """Where people see one artifact of a run; empty as for :func:`run_url`."""
    return _page(f"{experiment}/runs/{run_id}/artifacts/{quote(path)}")


def active_artifact_url(path: str) -> str:
    """Where people see a file that the step in whose block this is keeps with MLflow; empty as for :func:`run_url`."""
    place = place_of(None)
    _artifact_urls[path] = artifact_url(place.experiment, place.run_id, f"{place.folder}{path}") if place else ""
    return _artifact_urls[path]


def last_artifact_url(path: str) -> str:
    """What :func:`active_artifact_url` has said last of a file in this process; empty where it was not asked."""
    return _artifact_urls.get(path, "")


def note_page(url: str) -> None:
    """Note where people see what this process works at."""
    _last_page[:] = [url]


def last_run_url() -> str:
    """What :func:`note_page` was told last; empty where it was told nothing."""
    return _last_page[0] if _last_page else ""


def version_url(model: str, version: str) -> str:
    """Where people see a version of a registered model; empty as for :func:`run_url`."""
    base = _pages()
    return f"{base}/#/models/{quote(model)}/versions/{quote(version)}?{urlencode(MODE)}" if base else ""


def runs_url(experiment: str) -> str:
    """Where people see the runs of an experiment; empty as for :func:`run_url`."""
    return _page(f"{experiment}/runs")


def view_link(experiment: str, key: str) -> str:
    """The way to a view of an experiment from any of MLflow's own pages; see :mod:`cxr_tasks.tracking.views`."""
    return f"#/experiments/{experiment}/runs?{urlencode({'viewStateShareKey': key, **MODE})}"


def these_runs(run_ids: Iterable[str]) -> str:
    """What finds these runs, in MLflow's search language."""
    return f"attributes.run_id IN ({', '.join(repr(run_id) for run_id in sorted(set(run_ids)))})"


def search_url(experiment: str, condition: str, order_by: str, *, charts: bool = False) -> str:
    """Where people see the runs that fulfil ``condition``; empty as for :func:`run_url`.

    Args:
        experiment: MLflow's experiment.
        condition: In MLflow's search language.
        order_by: Runs with most of it come first.
        charts: Show their curves over each other instead of a list.
    """
    query = {"searchFilter": condition, "orderByKey": order_by, "orderByAsc": "false"}
    if charts:
        query["compareRunsMode"] = "CHART"
    return _page(f"{experiment}/runs", query)


def _page(path: str, query: Mapping[str, str] = {}) -> str:
    """The address of a page below the experiments; '' where the tracking store has no pages."""
    base = _pages()
    return f"{base}/#/experiments/{path}?{urlencode({**query, **MODE}, quote_via=quote)}" if base else ""


def _pages() -> str:
    """The address of MLflow's pages, or '' where the tracking store has none. A password in it is not repeated."""
    base = os.environ.get("CXR_MLFLOW_UI") or os.environ.get("MLFLOW_TRACKING_URI", "")
    if not base.startswith("http") or not is_on():
        return ""
    parts = urlsplit(base)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")
