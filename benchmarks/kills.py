"""SIGKILL at random moments over whole runs of the embedded stack: do they end as an undisturbed run does?

    python benchmarks/kills.py [--kills 60] [--every 20] [--seed 0] [--folder FOLDER]

Each run begins with an empty store. One process at a time is killed: that of a task, the one that watches a task, the
scheduler, MLflow, or another of Airflow's servers, each as likely as the others. A run must end green, with the same
predictions as the undisturbed run, no doubled and no unfinished run in MLflow, no process and no half-finished work.
The exit status is 1 where one does not.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from benchmarks.endurance import leftovers, mlflow_faults, prediction_hashes, prepare, report, sessions, start_run

# What the runner says when the first DAG run was triggered: from then on servers are kept up.
TRIGGERED = "/dags/cxr_data/runs/"
RUN_SECONDS = 3600.0


def main(kills: int, every: float, seed: int, folder: Path) -> bool:
    """Run undisturbed once, then with kills until there were enough; returns whether all runs ended as they should."""
    images, profile = prepare(folder)
    chance = random.Random(seed)  # noqa: S311  when to kill is no secret
    rows, wanted = [], kills
    undisturbed = disturbed_run(folder / "undisturbed", images, profile, 0, every, chance)
    expected = undisturbed.pop("predictions")
    rows.append(undisturbed)
    print(undisturbed, flush=True)
    while wanted > 0:
        row = disturbed_run(folder / f"run-{len(rows)}", images, profile, wanted, every, chance)
        row["same predictions"] = row.pop("predictions") == expected
        wanted -= row["kills"]
        rows.append(row)
        print(row, flush=True)
    disturbed = rows[1:]
    sound = [row["green"] and row["same predictions"] and not row["faults"] for row in disturbed]
    victims: Counter[str] = sum((Counter(row["victims"]) for row in disturbed), Counter())
    report(
        rows,
        {
            "benchmark": "kills",
            "kills": sum(row["kills"] for row in disturbed),
            "victims": dict(victims),
            "runs": len(disturbed),
            "sound": sum(sound),
            "trainings": len(expected),
            "seconds_undisturbed": undisturbed["seconds"],
            "seconds_disturbed": [row["seconds"] for row in disturbed],
        },
    )
    return all(sound) and undisturbed["green"] and not undisturbed["faults"]


def disturbed_run(
    home: Path, images: Path, profile: Path, kills: int, every: float, chance: random.Random
) -> dict[str, Any]:
    """One run with at most so many kills.

    Args:
        home: The folder of its stack; it does not exist yet.
        images: The data source.
        profile: The path of the profile.
        kills: The most processes to kill.
        every: Seconds between two kills, in the mean.
        chance: Chooses moments and victims.
    """
    run, started = start_run(home, images, profile), time.monotonic()
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(run.stdout or ()), daemon=True)
    reader.start()
    killed: list[str] = []
    seen: set[int] = set()
    due = None
    while run.poll() is None and time.monotonic() - started < RUN_SECONDS:
        time.sleep(0.05)
        seen |= set(sessions(home).values())
        if due is None and any(TRIGGERED in line for line in list(lines)):
            due = time.monotonic() + chance.uniform(0, 2 * every)
        if due is not None and len(killed) < kills and time.monotonic() > due:
            if victim := kill_one(home, chance):
                killed.append(victim)
            due = time.monotonic() + chance.uniform(0, 2 * every)
    if run.poll() is None:
        run.send_signal(signal.SIGINT)
    green = run.wait(120) == 0
    reader.join(5)
    (home / "printed.txt").write_text("".join(lines))
    summary = home / "last-run.json"
    tasks = json.loads(summary.read_text())["tasks"] if summary.is_file() else []
    return {
        "run": home.name,
        "green": green,
        "seconds": round(time.monotonic() - started),
        "kills": len(killed),
        "victims": dict(Counter(killed)),
        "most tries": max((task["tries"] for task in tasks), default=0),
        "predictions": prediction_hashes(home),
        "faults": mlflow_faults(home) + leftovers(home, seen),
    }


def kill_one(home: Path, chance: random.Random) -> str | None:
    """Kill a process of the stack; returns of what kind it was, or ``None`` where there was none."""
    kinds: dict[str, list[psutil.Process]] = {}
    for name, number in sessions(home).items():
        try:
            server = psutil.Process(number)
            kinds[name] = [server]
            # The scheduler's processes that watch tasks, and those that they watch.
            workers = [child for child in server.children() if child.cmdline()[:1] and is_worker(child)]
            if workers:
                kinds["worker"] = workers
            if tasks := [task for worker in workers for task in worker.children()]:
                kinds["task"] = tasks
        except psutil.Error:
            continue
    if not kinds:
        return None
    kind = chance.choice(sorted(kinds))
    try:
        chance.choice(kinds[kind]).kill()
    except psutil.NoSuchProcess:
        return None
    return kind


def is_worker(process: psutil.Process) -> bool:
    """Whether a child of a server is a process of the executor, which watches a task."""
    return " ".join(process.cmdline()).startswith("airflow supervisor")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--every", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    work = given.folder or Path(tempfile.mkdtemp(prefix="kills-"))
    work.mkdir(parents=True, exist_ok=True)
    sys.exit(0 if main(given.kills, given.every, given.seed, work.absolute()) else 1)
