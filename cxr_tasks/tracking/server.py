"""The MLflow server: whether there is one, a client of it, and what becomes of what people deleted in its pages.

With ``CXR_MLFLOW=off`` nothing is tracked: what would be logged is dropped, and asking for a client is an error.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from cxr_tasks.errors import SettingsError
from cxr_tasks.outages import is_passing, patiently

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

Arguments = ParamSpec("Arguments")
Logged = TypeVar("Logged")

SWITCH = "CXR_MLFLOW"
# MLflow's own client asks eight times and waits for two minutes each time: a training would stand still for as long.
# Whoever can wait asks again here.
ASKED_AGAIN, MLFLOW_SECONDS = "1", "60"
DELETED = "deleted"


def is_on() -> bool:
    """Whether anything is tracked."""
    return os.environ.get(SWITCH, "").lower() != "off"


def client() -> MlflowClient:
    """A client of the server named by ``MLFLOW_TRACKING_URI``.

    Raises:
        SettingsError: The variable is not set; MLflow would silently write to a local file instead.
    """
    if not is_on():
        raise SettingsError(f"MLflow is needed here, and {SWITCH} is off: take that variable away.")
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        raise SettingsError(
            "MLFLOW_TRACKING_URI is not set: give it the address of the MLflow server, such as http://127.0.0.1:5000, "
            f"or set {SWITCH}=off to work without MLflow."
        )
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", ASKED_AGAIN)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", MLFLOW_SECONDS)
    from mlflow import MlflowClient

    return MlflowClient()


def patient(call: Callable[Arguments, Logged]) -> Callable[Arguments, Logged]:
    """``call`` as a function that waits for MLflow while :func:`cxr_tasks.outages.patience` says so."""

    @wraps(call)
    def attempt(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Logged:
        return patiently(lambda: call(*args, **kwargs), "MLflow")

    return attempt


def reviving(call: Callable[[], Logged], run_id: str) -> Logged:
    """What ``call`` returns; where it fails because people deleted the run, it is restored and ``call`` tried again."""
    from mlflow.exceptions import MlflowException

    try:
        return call()
    except MlflowException as error:
        if is_passing(error) or not revive_run(run_id):
            raise
        return call()


def revive_run(run_id: str) -> bool:
    """Restore a run that people deleted, and its experiment; whether there was anything to restore."""
    from mlflow.exceptions import MlflowException

    server = client()
    try:
        run = server.get_run(run_id).info
    except MlflowException as error:
        if is_passing(error):
            raise
        # Deleted for good: nothing is there to restore.
        return False
    revived = revive_experiment(run.experiment_id)
    # MLflow deletes and restores the runs of an experiment with it.
    if server.get_run(run_id).info.lifecycle_stage == DELETED:
        log.warning("MLflow's run %s was deleted while work went on in it: it is restored", run_id)
        server.restore_run(run_id)
        revived = True
    return revived


def revive_experiment(experiment: str) -> bool:
    """Restore an experiment that people deleted; whether it was.

    Raises:
        SettingsError: The experiment is deleted for good.
    """
    from mlflow.exceptions import MlflowException

    server = client()
    try:
        found = server.get_experiment(experiment)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise SettingsError(
            f"MLflow's experiment {experiment} was deleted for good while this run worked in it: start the run anew."
        ) from error
    if found.lifecycle_stage != DELETED:
        return False
    log.warning("MLflow's experiment %r was deleted: it is restored with its runs", found.name)
    server.restore_experiment(experiment)
    return True


def all_pages(search: Callable[..., Any]) -> Iterator[Any]:
    """Everything that a search of MLflow finds, however many pages that is; ``search`` takes a ``page_token``."""
    page = search()
    yield from page
    while page.token:
        page = search(page_token=page.token)
        yield from page
