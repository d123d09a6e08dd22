"""Six trainings, as they share the cores of one machine: one after the other, as the stack runs them, or all at once.

    python benchmarks/together.py FOLDER [--size 96] [--images 384] [--epochs 12]

FOLDER is laid out as the COVID-19 Radiography Database. The trainings are the CNN, VGG16 and ResNet50,
each un-augmented and classical (a pool of two views), each a process of its own from its first import to its last
epoch. The stack gives each task all cores, up to 16, and trainings two slots (``cxr_tasks.cores``). The peers
are the same trainings one after the other, two at a time with an equal share of the cores each, and all at once.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.pair import deal
from cxr_tasks.cores import tasks_at_once, threads_of_task

REPOSITORY = Path(__file__).resolve().parents[1]
# The slowest first, so that it does not train last and alone.
TRAININGS = [(name, arm) for name in ("cnn", "vgg16", "resnet50") for arm in ("none", "classical")]
THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")


def main(source: str, size: int, images: int, epochs: int) -> None:
    """Measure each way, print a table, and end with one JSON object."""
    cores = os.cpu_count() or 2
    pools = json.loads((REPOSITORY / "infra" / "airflow" / "pools.json").read_text(encoding="utf-8"))
    at_once = min(tasks_at_once(), pools["training"]["slots"])
    ways = {
        "one after the other, all cores": (1, None),
        f"{at_once} at a time, {max(1, cores // at_once)} threads each": (at_once, max(1, cores // at_once)),
        f"{at_once} at a time, as the stack runs them": (at_once, threads_of_task()),
        "all six at once, no limits": (len(TRAININGS), None),
    }
    seconds = {}
    with tempfile.TemporaryDirectory() as scratch:
        counts = deal(Path(source), Path(scratch), images)
        print(f"{cores} cores, {size} px, {epochs} epochs, images {counts}", flush=True)
        for name, (workers, threads) in ways.items():
            started = time.perf_counter()
            with ThreadPoolExecutor(workers) as pool:
                list(pool.map(lambda training: train(scratch, size, epochs, training, threads), TRAININGS))  # noqa: B023
            seconds[name] = round(time.perf_counter() - started, 1)
            print(f"{name:<36}{seconds[name]:>8.1f} s", flush=True)
    alone, shared, stack, crowded = seconds.values()
    print(f"\n{'six trainings':<36}{'seconds':>9}{'ratio':>8}")
    for name, taken in seconds.items():
        print(f"{name:<36}{taken:>9.1f}{alone / taken:>8.2f}")
    figures = {
        "ratio": round(alone / stack, 3),
        "ratio_shared": round(alone / shared, 3),
        "ratio_crowded": round(alone / crowded, 3),
    }
    print(json.dumps({"benchmark": "together", "cores": cores, "seconds": seconds, **figures}))


def train(folder: str, size: int, epochs: int, training: tuple[str, str], threads: int | None) -> None:
    """One training in a process of its own."""
    task: dict[str, Any] = {"folder": folder, "size": size, "epochs": epochs}
    task |= {"network": training[0], "arm": training[1]}
    limits = {} if threads is None else dict.fromkeys(THREADS, str(threads))
    done = subprocess.run(
        [sys.executable, __file__, "--task", json.dumps(task)],
        capture_output=True,
        text=True,
        check=False,
        env={**{k: v for k, v in os.environ.items() if k not in THREADS}, **limits, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    if done.returncode:
        sys.exit(done.stderr[-3000:])


def task(folder: str, size: int, epochs: int, network: str, arm: str) -> None:
    """Train one arm as the project does."""
    from benchmarks.pair import ours
    from cxr_tasks.config import resolve

    changes = {"names": [network], "image_size": size, "epochs": epochs, "patience": epochs}
    changes["weights"] = {"default": "random"}
    ours(resolve("paper", {"classifiers": changes, "augmentation": {"views": 2}}), Path(folder), network, arm)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--images", type=int, default=384)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--task", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        task(**json.loads(options.task))
    elif options.folder:
        main(options.folder, options.size, options.images, options.epochs)
    else:
        sys.exit(__doc__)
