"""What `cxr estimate` says of a run, and what the run then takes, on this machine.

    python benchmarks/estimate.py [FOLDER] [--only NAME]

Three runs through the whole stack, each in a folder of its own: generated phantoms with the profile quick; FOLDER,
laid out as the COVID-19 Radiography Database, with the profile quick and one arm (left out without a FOLDER); phantoms
with another classifier, more epochs, two seeds, and no GAN. The store, the cache and the measured rates are empty
before each. With --only a name of a run, that one alone is made.

Other programs may share the machine. An estimate is of the machine by itself, so beside the time on the clock there is
the time without what tasks waited for a processor: Linux counts both for every thread.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from cxr_tasks.config import resolve
from cxr_tasks.data.phantoms import PHANTOM_COUNTS, write_phantoms
from cxr_tasks.estimate.ask import count_source, measured_forecast
from cxr_tasks.estimate.forecast import Forecast
from cxr_tasks.estimate.probe import waited_seconds
from cxr_tasks.estimate.rates import machine
from infra.embedded.stack import is_free

# Without the control, which takes as long again as the arm.
ONE_ARM = {"arms": {"baseline": "none", "compared": ["synthetic"]}}
OTHERWISE = {
    "classifiers": {"names": ["mobilenetv3"], "epochs": 30, "patience": 30},
    "arms": {"baseline": "none", "compared": ["classical"]},
    "seeds": {"classifiers": [0, 1]},
}
HEADER = (
    f"{'run':<30}{'images':>8}{'estimate':>10}{'took':>9}{'waited':>8}{'alone':>9}{'ratio':>7}{'memory':>15}{'load':>6}"
)


class Watched:
    """What the tasks of a stack work, wait and hold, looked at twice a second."""

    def __init__(self, runner: int) -> None:
        """``runner``: the process that keeps the stack up."""
        self.runner = psutil.Process(runner)
        self.worked: dict[int, float] = {}
        self.waited: dict[int, float] = {}
        self.memory, self.loads = 0, []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.5):
            held = 0
            try:
                there = self.runner.children(recursive=True)
            except psutil.NoSuchProcess:
                return
            for process in there:
                try:
                    with process.oneshot():
                        held += process.memory_full_info().pss
                        times = process.cpu_times()
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue
                self.worked[process.pid] = times.user + times.system
                self.waited[process.pid] = max(self.waited.get(process.pid, 0.0), waited_seconds(str(process.pid)))
            self.memory = max(self.memory, held)
            self.loads.append(os.getloadavg()[0])


def main(folder: str, only: str) -> None:
    """Estimate and run, print a table, and end with one JSON object."""
    print(json.dumps(machine()), flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        phantoms = Path(scratch, "phantoms")
        write_phantoms(phantoms, PHANTOM_COUNTS)
        cases: list[tuple[str, str, dict[str, Any]]] = [("phantoms, quick", str(phantoms), {})]
        cases += [("real X-rays, one arm", folder, ONE_ARM)] if folder else []
        cases += [("phantoms, otherwise", str(phantoms), OTHERWISE)]
        cases = [case for case in cases if only in case[0]]
        print(HEADER, flush=True)
        for number, (name, source, changes) in enumerate(cases):
            rows.append(one(name, source, changes, Path(scratch, f"run-{number}")))
    print(json.dumps({"benchmark": "estimate", "machine": machine(), "runs": rows}))


def one(name: str, source: str, changes: dict[str, Any], home: Path) -> dict[str, Any]:
    """Estimate one run, make it, and print its row."""
    home.mkdir()
    os.environ["CXR_CACHE"] = str(home / "cache")
    settings = resolve("quick", changes)
    began = time.monotonic()
    told: Forecast = measured_forecast(settings, count_source(source, settings))
    measured = time.monotonic() - began
    command = [sys.executable, "-c", "from cxr_tasks.cli import app; app()", "run", "--once", "--no-estimate"]
    command += ["--data", source, "--home", str(home / "cxr"), "--set", *_settings(changes)]
    command += ["--airflow-port", str(_port(19080)), "--mlflow-port", str(_port(16000))]
    with (home / "log").open("w") as log:
        runner = subprocess.Popen([part for part in command if part], stdout=log, stderr=log)
        watched = Watched(runner.pid)
        runner.wait()
        watched.stop()
    last = home / "cxr" / "last-run.json"
    if runner.returncode:
        print((home / "log").read_text()[-2000:])
        sys.exit(f"{name}: the run failed")
    took = json.loads(last.read_text())["seconds"]
    # What waited for a processor held up the run by as much as what ran held it up by.
    worked, waited = sum(watched.worked.values()), sum(watched.waited.values())
    alone = took * worked / (worked + waited)
    load = sum(watched.loads) / len(watched.loads)
    row = {
        "run": name,
        "images": told.images.total,
        "estimate": round(told.seconds),
        "measured_in": round(measured),
        "took": round(took),
        "waited": round(waited / (worked + waited), 2),
        "alone": round(alone),
        "ratio": round(told.seconds / alone, 2),
        "memory_estimate": round(told.memory / 2**30, 1),
        "memory": round(watched.memory / 2**30, 1),
        "disk_estimate": round(told.disk / 2**30, 1),
        "disk": round(sum(path.stat().st_size for path in (home / "cxr").rglob("*") if path.is_file()) / 2**30, 1),
        "load": round(load, 1),
    }
    print(
        f"{name:<30}{row['images']:>8}{row['estimate']:>8} s{row['took']:>7} s{row['waited']:>8.0%}{row['alone']:>7} s"
        f"{row['ratio']:>7}{row['memory_estimate']:>6} / {row['memory']} GiB{row['load']:>6}  {row}",
        flush=True,
    )
    return row


def _settings(changes: dict[str, Any]) -> list[str]:
    pairs = [f"{section}={json.dumps(values)}" for section, values in changes.items()]
    return [each for pair in pairs for each in ("--set", pair)][1:] or ["gan.epochs=8"]


def _port(first: int) -> int:
    return next(port for port in range(first, first + 100) if is_free(port))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", default="")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    main(options.folder, options.only)
