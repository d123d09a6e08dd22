"""The end of a DAG run in MLflow: its own run is ended, and so are those that killed tasks left open."""

from __future__ import annotations

from cxr_tasks.tracking.runs import MOST_ERROR, TAG_DAG_RUN, TAG_ERROR, TAG_WORK
from cxr_tasks.tracking.server import client, patient


@patient
def open_dag_runs(experiment: str) -> list[str]:
    """The DAG runs whose MLflow run says that they go on; ``experiment``: by its name."""
    server = client()
    found = server.get_experiment_by_name(experiment)
    if found is None:
        return []
    condition = f"tags.`{TAG_WORK}` = 'dag run' and attributes.status = 'RUNNING'"
    return [run.data.tags[TAG_DAG_RUN] for run in server.search_runs([found.experiment_id], condition)]


@patient
def close_dag_run(experiment: str, dag_run: str, error: str) -> None:
    """End the run of a DAG run, and the runs of steps that a killed task left open.

    Args:
        experiment: MLflow's experiment, by its name.
        dag_run: The id of the DAG run.
        error: Why the DAG run failed; empty where it did not.
    """
    server = client()
    found = server.get_experiment_by_name(experiment)
    if found is None:
        return
    for run in server.search_runs([found.experiment_id], f"tags.`{TAG_DAG_RUN}` = '{dag_run}'"):
        run_id, tags = run.info.run_id, run.data.tags
        if tags.get(TAG_WORK) == "dag run":
            if error:
                server.set_tag(run_id, TAG_ERROR, error[:MOST_ERROR])
            elif TAG_ERROR in tags:
                server.delete_tag(run_id, TAG_ERROR)
            server.set_terminated(run_id, "FAILED" if error else "FINISHED")
        elif run.info.status == "RUNNING":
            server.set_tag(run_id, TAG_ERROR, "The task was killed, and has left no word.")
            server.set_terminated(run_id, "KILLED")
