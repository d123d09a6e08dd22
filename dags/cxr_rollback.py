"""### Rollback: the champion before this one serves again.

Gives the alias `champion` of a registered model back to the version that had it before, or to the one that you name.
The version that is rolled back keeps your reason and your name in MLflow, and no later training makes it champion again
by itself.
"""

from __future__ import annotations

from airflow.sdk import dag, get_current_context
from cxr_wiring import OF_ALL, ROLLBACK_FORM, step

from cxr_tasks import steps


@step
def roll_back() -> steps.RolledBack:
    """Move the alias, and say what was done."""
    context = get_current_context()
    form, run = context["params"], context["dag_run"]
    return steps.roll_back(
        form["model"], form["reason"], who=run.triggering_user_name or "", to=form["version"] or "", request=run.run_id
    )


@dag(schedule=None, params=ROLLBACK_FORM, doc_md=__doc__, **OF_ALL)
def cxr_rollback() -> None:
    """One task."""
    roll_back()


cxr_rollback()
