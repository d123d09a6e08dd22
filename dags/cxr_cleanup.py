"""### Cleanup: make room, and keep what people rely on.

Removes from the store, and from MLflow, what is old and belongs to nothing that people rely on. These stay: every
version that is or was champion, with its lineage; the newest runs of each DAG, with all that they made or took; all
that was used lately; trainings that go on; the newest datasets.

A run that needs what is gone makes that anew. **Only list** says what would go.
"""

from __future__ import annotations

from airflow.sdk import dag, get_current_context
from cxr_wiring import CLEANUP_FORM, CLEANUP_SCHEDULE, OF_ALL, cron, step

from cxr_tasks import steps


@step
def clean_up() -> steps.CleanedUp:
    """Remove what is old, and say what that was."""
    form = get_current_context()["params"]
    return steps.clean_up(form["unused_days"], form["keep_runs"], only_list=form["only_list"])


@dag(schedule=cron(CLEANUP_SCHEDULE), params=CLEANUP_FORM, doc_md=__doc__, **OF_ALL)
def cxr_cleanup() -> None:
    """One task."""
    clean_up()


cxr_cleanup()
