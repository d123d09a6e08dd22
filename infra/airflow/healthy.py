"""Ends with 0 if the service of this container does its work: ``healthy.py worker``, or the type of an Airflow job.

Airflow's own command asks the same, but imports Airflow for that: five seconds of a core, for each service, each time.
"""

from __future__ import annotations

import os
import socket
import sys

# A job's heart beats every 5 s.
LATE_SECONDS = 60
PATIENT_SECONDS = 15
LAST_BEAT = """
    SELECT extract(epoch FROM now() - max(latest_heartbeat)) FROM job
    WHERE hostname = %s AND job_type = %s AND state = 'running'
"""


def beats(job_type: str) -> bool:
    """Whether a job of this type, on this host, has told the database of itself lately."""
    import psycopg2

    address = os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("+psycopg2", "", 1)
    with psycopg2.connect(address, connect_timeout=PATIENT_SECONDS) as connection, connection.cursor() as cursor:
        cursor.execute(LAST_BEAT, (socket.getfqdn(), job_type))
        (age,) = cursor.fetchone()
    return age is not None and age < LATE_SECONDS


def answers() -> bool:
    """Whether the Celery worker on this host answers by way of the broker."""
    from celery import Celery

    app = Celery(broker=os.environ["AIRFLOW__CELERY__BROKER_URL"])
    return bool(app.control.ping(destination=[f"celery@{socket.gethostname()}"], timeout=PATIENT_SECONDS))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Give `worker`, or the type of a job.")
    if not (answers() if sys.argv[1] == "worker" else beats(sys.argv[1])):
        sys.exit(f"{sys.argv[1]} on {socket.gethostname()} does not answer.")
