"""### Monitoring: does the champion still see what it was tested on?

Holds the champion of `cxr-overall` against the images of the newest dataset that are of no patient of its own dataset.
Macro F1 on them comes with its interval. A sequential test watches gray levels, contrast, how sure the champion is, and
how wrong it is. It may be looked at every week. That it ever raises an alarm while nothing has changed has the
probability `monitoring.false_alarms` of the profile.

An alarm starts **cxr_training** on the newest dataset, with the reason, once for each dataset.

Where `CXR_SERVING` names the champion's server, its figures are kept too: images by answer, and how many got a warning.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import dag, get_current_context
from airflow.sdk.exceptions import AirflowSkipException
from cxr_announced import TRAINING_DAG, training_is_paused
from cxr_wiring import DATASET, MONITOR_FORM, MONITOR_SCHEDULE, OF_ALL, close_left_open, cron, finish, step

from cxr_tasks import steps
from cxr_tasks.artifacts import Dataset, RunContext, Watched


@step(multiple_outputs=True)
def configure() -> dict[str, Any]:
    """Resolve settings once and find the newest dataset."""
    context = get_current_context()
    close_left_open(context)
    form = context["params"]
    run = steps.configure("cxr_monitor", context["run_id"], form)
    return {"run": run, "dataset": steps.find_dataset(run, form["dataset"] or "")}


@step(outlets=[DATASET])
def ask_for_training(run: RunContext, dataset: Dataset, watched: Watched) -> str:
    """Start a training where the champion is to be trained anew."""
    if watched.alarm and training_is_paused() is not False:
        raise AirflowSkipException(f"{TRAINING_DAG} is paused, and hears nothing. The next run of this DAG asks again.")
    reason = steps.reason_to_train(run, dataset, watched)
    if not reason:
        raise AirflowSkipException("Nothing says that the champion is to be trained anew, or that was said before.")
    context = get_current_context()
    form = {name: value for name, value in context["params"].items() if name != "dataset"}
    told = {"dataset": dataset.version, "form": form, "reason": reason}
    context["outlet_events"][DATASET].extra = told
    return reason


@step
def ask_server(run: RunContext) -> steps.ServerFigures:
    """Ask the champion's server what it has answered."""
    address, token = steps.server_to_ask()
    if not address:
        raise AirflowSkipException("No server is watched: CXR_SERVING is not set.")
    return steps.ask_server(run, address, token)


@dag(schedule=cron(MONITOR_SCHEDULE), params=MONITOR_FORM, doc_md=__doc__, **OF_ALL)
def cxr_monitor() -> None:
    """Wire the steps."""
    plan = configure()
    common = {"run": plan["run"], "dataset": plan["dataset"]}
    watched = step(steps.watch)(**common)
    [ask_for_training(**common, watched=watched), ask_server(plan["run"])] >> finish()


cxr_monitor()
