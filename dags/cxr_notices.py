"""Who hears of a run without looking at its pages: the log, and the connections that CXR_NOTIFY names."""

from __future__ import annotations

import logging
import os
from typing import Any

from airflow.sdk import BaseNotifier
from cxr_failures import reason_of

from cxr_tasks import steps

log = logging.getLogger(__name__)
# What a service shows beside a notice, as Apprise calls it.
TYPES = {"success": "success", "promotion": "success", "failure": "failure", "degradation": "warning"}
LISTENERS = steps.listeners(os.environ.get("CXR_NOTIFY", ""))


def send_notice(notice: steps.Notice, context: Any) -> None:
    """Write ``notice`` to the log of the task, and hand it to every connection that hears of its kind."""
    log.info("Notice (%s): %s\n%s", notice.kind, notice.title, notice.text)
    for connection in (name for name, kinds in LISTENERS.items() if notice.kind in kinds):
        # Its services are imported where something is sent, and not where DAGs are read.
        from airflow.providers.apprise.notifications.apprise import AppriseNotifier
        from apprise import NotifyType

        how = NotifyType(TYPES.get(notice.kind, "info"))
        given = {"title": notice.title, "body": notice.text, "notify_type": how}
        try:
            AppriseNotifier(**given, apprise_conn_id=connection).notify(context)
        except Exception:
            # The work is done, whoever hears of it.
            log.warning("The connection %s was told nothing.", connection, exc_info=True)


class TellSuccess(BaseNotifier):
    """Tells of tasks that people wait for."""

    def notify(self, context: Any) -> None:
        """Look what the task returned."""
        ti = context["ti"]
        if ti.task_id.rpartition(".")[2] in steps.TOLD_OF:
            notice = steps.notice_of(ti.task_id, ti.xcom_pull(task_ids=ti.task_id))
            if notice is not None:
                send_notice(notice, context)


class TellFailure(BaseNotifier):
    """Tells of a task that has failed for good; of many instances of a task, of the first."""

    def notify(self, context: Any) -> None:
        """Name the task, the reason, and the log."""
        ti = context["ti"]
        if not _failed_before(ti):
            why = reason_of(context.get("exception"))
            send_notice(steps.notice_of_failure(ti.dag_id, ti.task_id, why, ti.log_url), context)


def _failed_before(ti: Any) -> bool:
    """Whether another instance of the task has failed."""
    # Also the DAG processor may ask this, which tells of tasks that were killed.
    states = ti.get_task_states(ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id]).get(ti.run_id, {})
    mine = ti.task_id if ti.map_index < 0 else f"{ti.task_id}_{ti.map_index}"
    return any(state == "failed" for instance, state in states.items() if instance != mine)
