"""The end of every run: its place in MLflow is closed, and what is missing is said."""

from __future__ import annotations

from cxr_tasks import tracking
from cxr_tasks.artifacts import Failure
from cxr_tasks.errors import IncompleteError, in_one_line
from cxr_tasks.store import open_store


def finish(experiment: str, run_name: str, failures: list[Failure]) -> None:
    """Close the MLflow runs of a DAG run, remove what killed tasks left, and fail where a part of the run has failed.

    Args:
        experiment: The DAG's name. Airflow keeps the word ``dag`` for itself in the arguments of tasks.
        run_name: The id of the DAG run.
        failures: Its failed tasks.

    Raises:
        IncompleteError: There are some, so that the DAG run does not pass for one that made everything.
    """
    words = "; ".join(failure.words for failure in failures)
    # Before MLflow says that the run has ended: a store that is away lets this task try again.
    open_store().sweep()
    close_run(experiment, run_name, words)
    if failures:
        number = "1 task has" if len(failures) == 1 else f"{len(failures)} tasks have"
        raise IncompleteError(f"This run is incomplete, for {number} failed. {words}")


def close_run(dag: str, dag_run: str, error: str) -> None:
    """End the MLflow run of a DAG run, and those of its steps that were killed; ``error``: why it failed, or ''."""
    if tracking.is_on():
        tracking.close_dag_run(dag, dag_run, error)


def open_runs(dag: str) -> list[str]:
    """The DAG runs whose MLflow run says that they go on."""
    return tracking.open_dag_runs(dag) if tracking.is_on() else []


def sentence_of(error: Exception) -> str:
    """What a report says of ``error``."""
    return f"{in_one_line(error)}."
