"""What tasks import. A process that has imported this module forks into tasks that begin at once.

Each task would spend seven to ten seconds of a processor on it. None of it looks for a GPU before it is used, or begins
threads but those of OpenBLAS and jemalloc, which know of forks. The embedded stack's executor forks such a process, and
so do Celery's workers.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec

from airflow.configuration import conf

MODULES = (
    "airflow.dag_processing.dagbag",
    "airflow.providers.standard.operators.python",
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.task_runner",
    "cxr_tasks.steps",
    "keras",
    "mlflow.tensorflow",
    "mlflow.tracking.request_header.registry",
    "pandas",
    "pyarrow.parquet",
    "sklearn.metrics",
    "scipy.stats",
    "tensorflow",
)
# What the DAG files share, with the trigger forms. It lies beside them.
BESIDE_DAGS = "cxr_wiring"

for name in MODULES:
    import_module(name)
# As Airflow does when it reads a DAG file.
if (dags := conf.get("core", "dags_folder")) not in sys.path:
    sys.path.append(dags)
if find_spec(BESIDE_DAGS):
    import_module(BESIDE_DAGS)
