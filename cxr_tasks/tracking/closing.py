"""The end of a DAG run in MLflow: its own run is ended, and so are those that killed trainings left open."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from cxr_tasks.markdown import in_markdown
from cxr_tasks.tracking.runs import MOST_ERROR, TAG_DAG_RUN, TAG_ERROR, TAG_NOTE, TAG_WORK
from cxr_tasks.tracking.server import all_pages, client, patient

if TYPE_CHECKING:
    from mlflow.entities import Run

# How the note of a DAG run begins that failed before it had an answer.
INCOMPLETE = "**This run is incomplete.**"


@patient
def open_dag_runs(experiment: str) -> list[str]:
    """The DAG runs whose MLflow run says that they go on; ``experiment``: by its name."""
    condition = f"tags.`{TAG_WORK}` = 'dag run' and attributes.status = 'RUNNING'"
    return [run.data.tags[TAG_DAG_RUN] for run in _found_runs(experiment, condition)]


@patient
def close_dag_run(experiment: str, dag_run: str, error: str) -> None:
    """End the run of a DAG run, and the runs of steps that a killed task left open.

    Args:
        experiment: MLflow's experiment, by its name.
        dag_run: The id of the DAG run.
        error: Why the DAG run failed; empty where it did not.
    """
    server = client()
    for run in _found_runs(experiment, f"tags.`{TAG_DAG_RUN}` = '{dag_run}'"):
        run_id, tags = run.info.run_id, run.data.tags
        if tags.get(TAG_WORK) == "dag run":
            _tell_error(run_id, tags, error)
            server.set_terminated(run_id, "FAILED" if error else "FINISHED")
        elif run.info.status == "RUNNING":
            server.set_tag(run_id, TAG_ERROR, "The task was killed, and has left no word.")
            server.set_terminated(run_id, "KILLED")


def _tell_error(run_id: str, tags: Mapping[str, str], error: str) -> None:
    """Say why a DAG run failed, and in its note too where it has no answer; or take that away."""
    server, note = client(), tags.get(TAG_NOTE, "")
    if error:
        server.set_tag(run_id, TAG_ERROR, error[:MOST_ERROR])
        if not note or note.startswith(INCOMPLETE):
            server.set_tag(run_id, TAG_NOTE, f"{INCOMPLETE} {in_markdown(error)}"[:MOST_ERROR])
        return
    # Those of steps too: what has failed at first has succeeded since.
    for tag in tags:
        if tag == TAG_ERROR or tag.startswith(f"{TAG_ERROR}."):
            server.delete_tag(run_id, tag)
    if note.startswith(INCOMPLETE):
        server.delete_tag(run_id, TAG_NOTE)


def _found_runs(experiment: str, condition: str) -> list[Run]:
    """All runs of an experiment that meet a condition; none where there is no such experiment."""
    server = client()
    found = server.get_experiment_by_name(experiment)
    if found is None:
        return []
    # At once, since runs that are closed may leave the condition: a later page would then skip some.
    return list(all_pages(partial(server.search_runs, [found.experiment_id], condition)))
