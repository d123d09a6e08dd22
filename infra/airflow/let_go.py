"""Tells Airflow which tasks died with the worker that had this host name. Run it before a worker starts, and only then.

With ``everywhere`` it tells that no task is at work at all. That is so before a restored stack starts.

The scheduler knows a dead task by its heartbeats, and waits for them as long as tasks outlast an API server that is
away: 15 minutes, in which the dead task holds its slot of the GPU. A container keeps its host name when it restarts.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from airflow.models.taskinstance import TaskInstance
from airflow.utils.net import get_hostname
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from sqlalchemy import update

AT_WORK = (TaskInstanceState.RUNNING, TaskInstanceState.RESTARTING)
LONG_AGO = datetime.fromtimestamp(0, UTC)


def let_go(host: str | None) -> int:
    """Let the last heartbeat of each task at work on ``host`` be long ago; returns how many there are.

    ``None`` stands for every host.

    The scheduler finds them at its next look, and tries them again as their DAGs say.
    """
    there = [TaskInstance.state.in_(AT_WORK)]
    if host is not None:
        there.append(TaskInstance.hostname == host)
    with create_session() as session:
        return session.execute(update(TaskInstance).where(*there).values(last_heartbeat_at=LONG_AGO)).rowcount


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["everywhere"]:
            print(f"{let_go(None)} tasks died with the workers of the stack that was saved.", flush=True)
        case []:
            name = get_hostname()
            print(f"{let_go(name)} tasks died with the worker that was {name} before.", flush=True)
        case _:
            sys.exit("Give `everywhere`, or nothing.")
