"""A manifest of a million images (rows only, no pixels): split, split again after growth, and validated.

    python benchmarks/manifest.py [rows]

The peer is the split that a notebook would write: scikit-learn's grouped shuffle, which neither stratifies by
class nor keeps a split as the data grow.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupShuffleSplit

from cxr_tasks.config import resolve
from cxr_tasks.data.expectations import check_manifest
from cxr_tasks.data.split import assign_splits

SETTINGS = resolve("paper", {"data": {"expected_counts": None}}).data


def generate(rows: int) -> pd.DataFrame:
    """Manifest rows with patients of one to three images in a third of the cases."""
    rng = np.random.default_rng(0)
    label = rng.choice(SETTINGS.classes, rows, p=[0.24, 0.67, 0.09])
    patient = np.char.add("P", (rng.integers(0, rows // 6, rows)).astype(str))
    patient[rng.random(rows) > 1 / 3] = ""
    number = np.arange(rows)
    return pd.DataFrame(
        {
            "image_id": [f"{n * 2654435761 % 2**64:064x}" for n in range(rows)],
            "path": np.char.add(label + "/images/", number.astype(str)),
            "label": label,
            "source": "",
            "patient": patient,
            "group": "",
            "width": 299,
            "height": 299,
            "mode": "L",
            "mean": rng.uniform(80, 180, rows),
            "contrast": rng.uniform(30, 70, rows),
            "split": "",
            "provenance": "real",
            "status": "used",
            "reason": "",
        }
    )


def peak_mib() -> float:
    """The highest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(rows: int) -> None:
    """Measure, print a table, and end with one JSON object."""
    manifest = generate(rows)
    figures = {"rows generated": (0.0, peak_mib())}
    grown = manifest.iloc[: rows * 9 // 10]

    def timed(name: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = work()
        figures[name] = (time.perf_counter() - started, peak_mib())
        print(f"{name:<44}{figures[name][0]:>9.1f} s{figures[name][1]:>9.0f} MiB at most", flush=True)
        return result

    part = timed("split, nine tenths", lambda: assign_splits(grown, SETTINGS.split, 0))
    kept = dict(zip(grown["image_id"], part["split"], strict=True))
    given = timed("split, all, the nine tenths kept", lambda: assign_splits(manifest, SETTINGS.split, 0, kept))
    assert (given.loc[grown.index, "split"] == part["split"]).all()
    assert (given["split"].groupby(given["group"]).nunique() == 1).all()
    whole = timed("split, all at once", lambda: assign_splits(manifest, SETTINGS.split, 0))
    manifest["split"], manifest["group"] = whole["split"], whole["group"]
    timed(
        "peer: GroupShuffleSplit, twice",
        lambda: [
            next(GroupShuffleSplit(1, test_size=share, random_state=0).split(manifest, groups=whole["group"]))
            for share in (0.1, 0.1 / 0.9)
        ],
    )
    with tempfile.TemporaryDirectory() as folder:
        outcome = timed(
            "validated with Great Expectations, Data Docs", lambda: check_manifest(manifest, SETTINGS, Path(folder))
        )
    assert not outcome.failures, outcome.failures
    split, peer = figures["split, all at once"][0], figures["peer: GroupShuffleSplit, twice"][0]
    print(
        json.dumps(
            {
                "benchmark": "manifest",
                "rows": rows,
                "ratio": round(peer / split, 3),
                "seconds": {name: round(seconds, 1) for name, (seconds, _) in figures.items()},
                "peak_mib": round(peak_mib()),
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
