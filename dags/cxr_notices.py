"""Who hears of a run without looking at its pages: the log, and the connections that CXR_NOTIFY names."""

from __future__ import annotations

import logging
import os
import time
from typing import Any

from airflow.sdk import BaseNotifier
from cxr_failures import reason_of

from cxr_tasks import steps
from cxr_tasks.errors import IncompleteError, SettingsError

log = logging.getLogger(__name__)
# What a service shows beside a notice, as Apprise calls it.
TYPES = {"success": "success", "promotion": "success", "failure": "failure", "degradation": "warning"}
# How often a service is tried, and the seconds between.
SENT_AT_MOST, SENT_AGAIN_AFTER = 3, 5


def send_notice(notice: steps.Notice, context: Any) -> None:
    """Write ``notice`` to the log of the task, and hand it to every connection that hears of its kind."""
    log.info("Notice (%s): %s\n%s", notice.kind, notice.title, notice.text)
    try:
        heard_by = steps.listeners(os.environ.get("CXR_NOTIFY", ""))
    except SettingsError as error:
        # No work stops for it.
        log.error("Nobody is told: %s", error)
        return
    for connection in (name for name, kinds in heard_by.items() if notice.kind in kinds):
        try:
            sent = any(_is_sent(connection, notice, attempt) for attempt in range(SENT_AT_MOST))
        except Exception:
            log.warning("The connection %s cannot be used.", connection, exc_info=True)
            sent = False
        if not sent:
            log.warning("The connection %s was told nothing.", connection)


def _is_sent(connection: str, notice: steps.Notice, attempt: int) -> bool:
    """Whether all services of the connection took the notice. The provider's own call does not tell."""
    from airflow.providers.apprise.hooks.apprise import AppriseHook
    from apprise import Apprise, NotifyType

    time.sleep(SENT_AGAIN_AFTER if attempt else 0)
    hook, services = AppriseHook(connection), Apprise()
    hook.set_config_from_conn(hook.get_connection(connection), services)
    how = NotifyType(TYPES.get(notice.kind, "info"))
    return bool(services.notify(title=notice.title, body=notice.text, notify_type=how))


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
        ti, error = context["ti"], context.get("exception")
        # That parts of a run have failed was told when they did.
        if not isinstance(error, IncompleteError) and not _is_known(ti):
            notice = steps.notice_of_failure(ti.dag_id, ti.task_id, reason_of(error), ti.log_url)
            send_notice(notice, context)


class TellQuestion(BaseNotifier):
    """Tells that a person is asked, once the page is there on which the answer is given."""

    def __init__(self, asked: steps.Question) -> None:
        """``asked``: the question."""
        super().__init__()
        self.asked = asked

    def notify(self, context: Any) -> None:
        """Name the question, and its page."""
        try:
            page = context["task"].generate_link_to_ui_from_context(context=context)
        except ValueError:
            # This Airflow was not told its own address.
            page = ""
        send_notice(steps.notice_of_question(self.asked, page), context)


def _is_known(ti: Any) -> bool:
    """Whether another instance of the task has failed, and this one was not cleared by a person since."""
    if ti.map_index < 0 or ti.max_tries > ti.task.retries:
        return False
    # Also the DAG processor may ask this, which tells of tasks that were killed.
    states = ti.get_task_states(ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id]).get(ti.run_id, {})
    return any(state == "failed" for name, state in states.items() if name != f"{ti.task_id}_{ti.map_index}")
