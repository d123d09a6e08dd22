"""How tasks reach Celery's workers by Redis, and which of them a new scheduler takes over."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from airflow.providers.celery.executors.celery_executor import CeleryExecutor
from airflow.utils.state import TaskInstanceState
from celery import states
from celery.result import AsyncResult

if TYPE_CHECKING:
    from airflow.models.taskinstance import TaskInstance


class RedisCeleryExecutor(CeleryExecutor):
    """Airflow's Celery executor, which takes over no task that was never sent.

    A scheduler writes into the database that a task is queued, and then sends it. If it dies in between, the next
    scheduler waits for a task that nobody has, until ``scheduler.task_queued_timeout`` has passed. That limit is long
    here, and the task holds the GPU's slot. So this executor asks Redis. What it does not hold and no worker has
    begun, Airflow hands out anew, under another id: should the message turn up after all, its worker drops it.
    """

    def try_adopt_task_instances(self, tis: Sequence[TaskInstance]) -> Sequence[TaskInstance]:
        """Take over the tasks of a scheduler that died; returns those that Airflow shall hand out anew."""
        never_sent = self._never_sent([ti for ti in tis if ti.state == TaskInstanceState.QUEUED])
        for ti in never_sent:
            self.log.warning("%s was queued and never sent.", ti)
        return [*never_sent, *super().try_adopt_task_instances([ti for ti in tis if ti not in never_sent])]

    def _never_sent(self, queued: Sequence[TaskInstance]) -> list[TaskInstance]:
        # Redis first: a message that leaves it meanwhile shows in the state.
        held = self._messages({ti.queue for ti in queued}) if queued else set()
        unknown = {ti.external_executor_id: ti for ti in queued if ti.external_executor_id not in held | {None}}
        if not unknown:
            return []
        noted = self.bulk_state_fetcher.get_many([AsyncResult(id_, app=self.celery_app) for id_ in unknown])
        return [ti for id_, ti in unknown.items() if noted[id_][0] == states.PENDING]

    def _messages(self, queues: Iterable[str]) -> set[str]:
        """The ids of the tasks that wait in these queues, or that a worker has taken and not ended."""
        with self.celery_app.connection_for_read() as connection:
            channel = connection.default_channel
            waiting = [json.loads(each) for queue in queues for each in channel.client.lrange(queue, 0, -1)]
            taken = [json.loads(each)[0] for each in channel.client.hvals(channel.unacked_key)]
        return {message["headers"]["id"] for message in [*waiting, *taken]}
