"""Tells Airflow which tasks died with the worker that had this host name. Run it before a worker starts, and only then.

The scheduler knows a dead task by its heartbeats, and waits for them as long as tasks outlast an API server that is
away: 15 minutes, in which the dead task holds its slot of the GPU. A container keeps its host name when it restarts.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.models.taskinstance import TaskInstance
from airflow.utils.net import get_hostname
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from sqlalchemy import update

AT_WORK = (TaskInstanceState.RUNNING, TaskInstanceState.RESTARTING)
LONG_AGO = datetime.fromtimestamp(0, UTC)


def let_go(host: str) -> int:
    """Let the last heartbeat of each task at work on ``host`` be long ago; returns how many there are.

    The scheduler finds them at its next look, and tries them again as their DAGs say.
    """
    there = (TaskInstance.hostname == host, TaskInstance.state.in_(AT_WORK))
    with create_session() as session:
        return session.execute(update(TaskInstance).where(*there).values(last_heartbeat_at=LONG_AGO)).rowcount


if __name__ == "__main__":
    name = get_hostname()
    print(f"{let_go(name)} tasks died with the worker that was {name} before.", flush=True)
