"""Airflow's cluster policy: a run that no task could begin is refused when a person asks for it.

Airflow reads this file from the folder of plugins. A file of this name in ``$AIRFLOW_HOME/config`` takes its place, and
then the first task says what is wrong. Airflow checks a field of the form by its schema alone, and no schema knows what
two fields say together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.models import DagRun, TaskInstance

__all__ = ["task_instance_mutation_hook"]

FIRST_TASK = "configure"
HAVE_FORMS = ("cxr_data", "cxr_training")
# Whoever asks so is told at once. Elsewhere an error here would stop a scheduler instead of a run.
ASKED_BY_PEOPLE = ("ui", "rest_api")


def task_instance_mutation_hook(task_instance: TaskInstance, dag_run: DagRun | None = None) -> None:
    """Look at the form when the first task of a run is made, which is before Airflow keeps the run.

    Raises:
        ValueError: No run can begin with it. Airflow's API answers with the sentence, and there is no run.
    """
    if dag_run is None or task_instance.task_id != FIRST_TASK or dag_run.dag_id not in HAVE_FORMS:
        return
    if dag_run.state != "queued" or getattr(dag_run.triggered_by, "value", "") not in ASKED_BY_PEOPLE:
        return
    # A run that people clear was begun once; and where Airflow only looks after its tasks, there is no DAG at hand.
    if dag_run.clear_number or dag_run.dag is None:
        return
    from cxr_tasks.filled_form import check_form

    given = dag_run.get_dag().params.deep_merge(dag_run.conf or {})
    check_form(dag_run.dag_id, {name: given[name] for name in given})
