"""Which MLflow run shows an artifact that a step takes as it is."""

from __future__ import annotations

from typing import NamedTuple

from cxr_tasks.tracking.runs import TAG_ARTIFACT, TAG_DAG_RUN, TAG_MADE_BY, TAG_REUSED
from cxr_tasks.tracking.server import DELETED, client, is_on, patient


class ShownRun(NamedTuple):
    """A run that shows an artifact: its id, its experiment, and Airflow's id of the DAG run that it belongs to."""

    run_id: str
    experiment: str
    dag_run: str


@patient
def run_that_shows(artifact: str, made_by: str, experiment: str) -> ShownRun | None:
    """The run that made an artifact, or one that shows the same figures; ``None`` where MLflow has none.

    People may have deleted the run, its task may have been ended before MLflow was told of all, or the artifact was
    made where nothing was tracked.

    Args:
        artifact: Its reference.
        made_by: The run that made it; empty where none is known.
        experiment: Where to look for another run.
    """
    from mlflow.exceptions import MlflowException

    if not is_on():
        return None
    server = client()
    try:
        found = [server.get_run(made_by)] if made_by else []
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        found = []
    # The last thing that a step tells of its artifact.
    if not found or found[0].info.lifecycle_stage == DELETED or TAG_REUSED not in found[0].data.tags:
        same = f"tags.`{TAG_ARTIFACT}` = '{artifact}' and tags.`{TAG_MADE_BY}` = '{made_by}'"
        found = list(server.search_runs([experiment], same, max_results=1))
    if not found:
        return None
    run = found[0]
    return ShownRun(run.info.run_id, run.info.experiment_id, run.data.tags.get(TAG_DAG_RUN, ""))
