"""Thirty runs in a row on one stack: do its servers, its databases and its time a run stay as they are?

    python benchmarks/soak.py [--runs 30] [--folder FOLDER]

Each run is both DAGs: the data, which have not changed, and a training with a seed of its own, so that GAN, networks
and report are all made anew. After each run every server's memory, the files that it holds open, the sizes of what is
kept and the time are written down. Flat means: a trend (Theil and Sen's slope, with its 95 % interval) that is not
above 0 for time and memory, and for what is kept, that a late run adds no more than an early one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import yaml
from scipy.stats import theilslopes

from benchmarks.endurance import TINY, free_port, leftovers, mlflow_faults, prepare, report, sessions
from cxr_tasks.config import merge, resolve
from infra.embedded.run import StackRun
from infra.embedded.stack import Stack

# The first runs load code and fill caches; what comes after them should be flat.
WARM_UP = 5
ONE_NETWORK = {"classifiers": {"names": ["cnn"]}, "arms": {"compared": ["synthetic"]}}
MIB = 2**20


def main(runs: int, folder: Path) -> bool:
    """Run them all and print what each left; returns whether every run was green and nothing was left behind."""
    images, profile = prepare(folder)
    settings = resolve("quick", merge(TINY, ONE_NETWORK)).model_dump(mode="json", exclude={"profile"})
    profile.write_text(yaml.safe_dump(settings))
    os.environ["CXR_CACHE"] = str(folder / "cache")
    home = folder / "home"
    stack = Stack(home, free_port(), free_port(), {"CXR_PROFILE": str(profile), "CXR_SOURCE": str(images)})
    stack.check()
    rows: list[dict[str, Any]] = []
    servers: set[int] = set()
    try:
        run = StackRun(stack, stack.start(), lambda summary: None)
        run.prepare()
        for number in range(runs):
            began = time.monotonic()
            seeds = {"seeds": {"gan": number, "classifiers": [number]}}
            green = run.both(str(images), {"profile": str(profile), "settings": seeds})[1] == "success"
            servers |= set(sessions(home).values())
            row = {"run": number + 1, "green": green, "seconds": round(time.monotonic() - began, 1)}
            rows.append(row | kept(home) | memory(home))
            print(rows[-1], flush=True)
    finally:
        stack.stop()
    faults = mlflow_faults(home) + leftovers(home, servers)
    table = pd.DataFrame(rows)
    report(rows, {"benchmark": "soak", "runs": runs, "green": sum(table["green"]), "faults": faults, **trends(table)})
    return bool(table["green"].all()) and not faults


def kept(home: Path) -> dict[str, float]:
    """Sizes of what a stack keeps, MiB."""
    places = {
        "airflow.db": home / "airflow",
        "mlflow.db": home / "mlflow" / "mlflow.db",
        "artifacts": home / "mlflow" / "artifacts",
        "store": home / "store",
        "logs": home / "logs",
    }
    return {name: round(size(path) / MIB, 2) for name, path in places.items()}


def size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def memory(home: Path) -> dict[str, float]:
    """Each server with its processes, but for tasks: proportional set size in MiB, and how many files are open."""
    figures: dict[str, float] = {}
    for name, number in sorted(sessions(home).items()):
        processes = [psutil.Process(number), *psutil.Process(number).children(recursive=True)]
        resident, files = 0, 0
        for process in processes:
            try:
                resident, files = resident + process.memory_full_info().pss, files + process.num_fds()
            except psutil.NoSuchProcess:
                continue
        figures[f"{name} MiB"], figures[f"{name} files"] = round(resident / MIB, 1), files
    return figures


def trends(table: pd.DataFrame) -> dict[str, Any]:
    """What each figure does after the warm-up."""
    steady = table.iloc[WARM_UP:]
    if len(steady) < WARM_UP:
        return {}
    told: dict[str, Any] = {"seconds": round(statistics.median(steady["seconds"]), 1)}
    for name in [column for column in table if column == "seconds" or column.endswith((" MiB", " files"))]:
        slope = theilslopes(steady[name], steady["run"])
        told[f"{name} a run"] = [round(float(value), 3) for value in (slope.slope, slope.low_slope, slope.high_slope)]
    for name in ("airflow.db", "mlflow.db", "artifacts", "store", "logs"):
        added = table[name].diff().iloc[WARM_UP:]
        half = len(added) // 2
        told[f"{name} MiB a run, early and late"] = [
            round(added.iloc[:half].mean(), 3),
            round(added.iloc[half:].mean(), 3),
        ]
    return told


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    work = given.folder or Path(tempfile.mkdtemp(prefix="soak-"))
    work.mkdir(parents=True, exist_ok=True)
    raise SystemExit(0 if main(given.runs, work.absolute()) else 1)
