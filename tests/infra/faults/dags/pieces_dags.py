"""The DAGs on which faults are tried: tasks of the GPU's worker, and of the other one. Wired as the product's are."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Param, dag, get_current_context
from cxr_wiring import OF_ALL, step

from tests.infra.faults import pieces

GPU = {"executor": "gpu", "queue": "gpu", "pool": "gpu"}


@step
def numbers() -> list[int]:
    """The pieces that the run is to make."""
    return list(range(get_current_context()["params"]["pieces"]))


def wire(dag_id: str, **place: Any) -> None:
    """A DAG that makes pieces at ``place``."""
    params = {"pieces": Param(1, type="integer"), "seconds": Param(0, type="integer"), "name": Param("", type="string")}

    # Faults meet several runs at once.
    @dag(dag_id=dag_id, schedule=None, params=params, **{**OF_ALL, "max_active_runs": 16})
    def wired() -> None:
        run = step(pieces.begin)("{{ run_id }}")
        make = step(pieces.make, **place).partial(run=run, name="{{ params.name }}", seconds="{{ params.seconds }}")
        make.expand(number=numbers()) >> step(pieces.close)(run)

    wired()


wire("pieces")
wire("pieces_gpu", **GPU)
wire("pieces_limited", execution_timeout=timedelta(seconds=15))
