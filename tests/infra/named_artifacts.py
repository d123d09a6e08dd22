"""Reads every artifact that Airflow, MLflow and the store's pointers name. A worker of the stack runs this file.

It prints a JSON object: how many were read of each kind, and under ``lost`` what cannot be read.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

import mlflow
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from mlflow import MlflowClient

from cxr_tasks.retention.inspection import faults
from cxr_tasks.store import open_store

REFERENCE = re.compile(r"\b[a-z_]+/[0-9a-f]{20}\b")


def named_by_airflow() -> set[str]:
    """The references that results of tasks hold."""
    with create_session() as session:
        return {ref for (value,) in session.query(XComModel.value) for ref in REFERENCE.findall(json.dumps(value))}


def download(**place: str) -> int:
    """Read all files of a place in MLflow; returns how many there are."""
    with tempfile.TemporaryDirectory() as folder:
        there = mlflow.artifacts.download_artifacts(**place, dst_path=folder)
        return sum(path.is_file() for path in Path(there).rglob("*"))


def main() -> None:
    """Read everything."""
    store, client = open_store(), MlflowClient()
    experiments = [each.experiment_id for each in client.search_experiments()]
    runs = client.search_runs(experiments, max_results=1000)
    named = named_by_airflow()
    named |= {
        run.data.tags["cxr.artifact"]
        for run in runs
        if run.info.status == "FINISHED" and "cxr.artifact" in run.data.tags
    }
    lost = sorted(ref for ref in named if store.record(ref) is None)
    found, artifacts = faults(store)
    lost += [f"{fault.ref}: {fault.fault}" for fault in found]
    places = [{"run_id": run.info.run_id} for run in runs if client.list_artifacts(run.info.run_id)]
    places += [{"artifact_uri": f"models:/{each.name}/{each.version}"} for each in client.search_model_versions()]
    files = 0
    for place in places:
        try:
            files += download(**place)
        except Exception as error:
            lost.append(f"{place}: {error}")
    print(
        json.dumps({"named": len(named), "artifacts": artifacts, "places": len(places), "files": files, "lost": lost})
    )


if __name__ == "__main__":
    main()
