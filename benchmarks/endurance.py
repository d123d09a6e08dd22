"""What the scripts that try the whole stack's endurance share: a small profile, a stack, and what it leaves."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from cxr_tasks.artifacts import TrainedModel
from cxr_tasks.config import resolve
from cxr_tasks.data.phantoms import write_phantoms
from cxr_tasks.store import RECORD, FolderStore
from infra.embedded.processes import in_sessions
from infra.embedded.stack import STATE_FILE

PHANTOMS = {"COVID": 60, "Normal": 90, "Viral Pneumonia": 48}
# Networks that train in seconds. The judge lets any GAN pass, so that every step has something to do.
TINY = {
    "data": {"min_images_per_class": 10, "shard_images": 60},
    "classifiers": {"epochs": 4, "image_size": 32},
    "gan": {"image_size": 32, "epochs": 4, "width": 0.1, "batch_size": 16, "checkpoint_seconds": 1},
    "judge": {
        "image_size": 32,
        "images_per_class": 20,
        "max_kid_ratio": None,
        "max_memorised": None,
        "max_repeated": None,
    },
    "synthetic": {"counts": {"COVID": 20, "Viral Pneumonia": 20}, "drop_near_copies": False},
    "evaluation": {"bootstrap_samples": 200},
}


def prepare(folder: Path) -> tuple[Path, Path]:
    """Write phantoms and the profile into ``folder``; returns the paths of both."""
    images, profile = folder / "phantoms", folder / "tiny.yaml"
    if not images.is_dir():
        write_phantoms(images, PHANTOMS)
    profile.write_text(yaml.safe_dump(resolve("quick", TINY).model_dump(mode="json", exclude={"profile"})))
    return images, profile


def start_run(home: Path, images: Path, profile: Path) -> subprocess.Popen[str]:
    """``cxr run --once`` in a process of its own; its lines can be read from ``stdout``."""
    command = [str(Path(sys.executable).with_name("cxr")), "run", "--once", "--no-estimate", "--home", str(home)]
    command += ["--data", str(images), "--profile", str(profile)]
    command += ["--airflow-port", str(free_port()), "--mlflow-port", str(free_port())]
    environment = {**os.environ, "COLUMNS": "200", "CXR_CACHE": str(home.parent / "cache")}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def free_port() -> int:
    """A port on loopback that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def prediction_hashes(home: Path) -> dict[str, str]:
    """A hash of the predictions of each training in a run's store, by the training's label."""
    store, hashes = FolderStore(home / "store"), {}
    for record in (home / "store" / TrainedModel.step).glob(f"*/{RECORD}"):
        model = TrainedModel.model_validate(json.loads(record.read_text())["made"])
        table = pd.read_parquet(store.fetch(f"{TrainedModel.step}/{record.parent.name}") / TrainedModel.PREDICTIONS)
        rows = pd.util.hash_pandas_object(table, index=False).to_numpy()
        hashes[model.training.label] = hashlib.sha256(rows.tobytes()).hexdigest()[:16]
    return hashes


def mlflow_faults(home: Path) -> list[str]:
    """What is wrong with the runs in MLflow's database: doubled ones, and ones that never ended."""
    database = sqlite3.connect(home / "mlflow" / "mlflow.db")
    runs = pd.read_sql("select run_uuid, name, status from runs where lifecycle_stage = 'active'", database)
    tags = pd.read_sql("select run_uuid, key, value from tags", database)
    identity = tags[tags["key"].isin(["cxr.dag_run", "cxr.work", "cxr.artifact"])]
    wide = identity.pivot(index="run_uuid", columns="key", values="value")
    doubled = wide[wide.duplicated(keep=False)]
    faults = [f"{row['name']} is {row['status']}" for _, row in runs[runs["status"] != "FINISHED"].iterrows()]
    return faults + [f"doubled: {work}" for work in sorted(set(doubled["cxr.work"]))]


def sessions(home: Path) -> dict[str, int]:
    """The sessions of a stack's servers by their names; empty where no stack is up."""
    try:
        return json.loads((home / STATE_FILE).read_text())["sessions"]
    except FileNotFoundError:
        return {}


def leftovers(home: Path, sessions: Iterable[int]) -> list[str]:
    """What half-finished work and which processes a run that ended has left behind.

    Args:
        home: The folder of its stack.
        sessions: All sessions that the stack's servers had.
    """
    store = home / "store"
    left = [str(path.relative_to(store)) for path in (store / "staging").glob("*")]
    left += [str(path.relative_to(store)) for path in (store / "unfinished").glob("*/*")]
    return left + [f"process {process.pid}" for process in in_sessions(sessions)]


def report(rows: list[dict[str, Any]], figures: dict[str, Any]) -> None:
    """Print a table for people, and the figures as one line of JSON."""
    print(pd.DataFrame(rows).to_string(index=False))
    print(json.dumps(figures))
