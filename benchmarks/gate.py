"""Measures how often the gate makes a champion of a challenger that is no better, and misses one that is.

    python -m benchmarks.gate [--retrainings 1000]

Each retraining trains several candidates, and the best of them by validation macro F1 stands at the gate. The champion
is one more draw of the same kind. The worlds, and how far models fail on the same images, are those of
``simulation.py``. Where no candidate is better, every promotion is false. Where all are better by three points of macro
F1, every refusal is a miss.

The peer is the rule that asks for a larger macro F1 alone.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import brentq

from benchmarks.simulation import WORLDS, World, draw
from cxr_tasks.config import resolve
from cxr_tasks.evaluation.intervals import group_counts, macro_f1
from cxr_tasks.registry.champions import Candidate, Standing
from cxr_tasks.registry.gate import Evidence, Gate

CLASSES = ["COVID", "Normal", "Viral Pneumonia"]
VALIDATION_IMAGES = (125, 500, 1500)
CANDIDATES = (1, 6, 18)
BETTER = 0.03
BOOTSTRAP_SAMPLES = 300


def gate() -> Gate:
    """The gate of the shipped profiles, with no floor but the champion."""
    open_floors = dict.fromkeys(("min_macro_f1", "min_recall", "max_ece", "max_latency_ms", "max_size_mb"))
    settings = resolve("paper", {"gate": open_floors, "evaluation": {"bootstrap_samples": BOOTSTRAP_SAMPLES}})
    return Gate.of(settings)


def tables(group: np.ndarray, y: np.ndarray, predicted: np.ndarray) -> list[pd.DataFrame]:
    """The prediction tables of models (models, n), each sure of itself."""
    ids = [f"{number:05}" for number in range(len(y))]
    known = {"image_id": ids, "split": "validation", "group": group.astype(str), "label": np.array(CLASSES)[y]}
    return [pd.DataFrame({**known, **dict(zip(CLASSES, np.eye(3)[said].T, strict=True))}) for said in predicted]


def retrain(world: World, images: int, candidates: int, number: int, judge: Gate) -> tuple[bool, bool]:
    """One retraining: whether the gate promotes, and whether the peer does."""
    rng = np.random.default_rng([images, candidates, number])
    group, y, predicted = draw(world, images, candidates, rng)
    champion, challengers = predicted[0, 0], predicted[:, 1]
    one = np.zeros(len(y), dtype="U1")
    scores = [float(macro_f1(group_counts(one, y, said, 3)[0])) for said in (champion, *challengers)]
    best = int(np.argmax(scores[1:]))
    held, shown = tables(group, y, np.stack([champion, challengers[best]]))
    stands = Candidate(
        classifier="cnn",
        role="augmented",
        arm="synthetic",
        seed=0,
        validation_macro_f1=scores[1 + best],
        artifact="",
        weights_digest="",
        dataset="",
        classes="",
        model_uri="",
    )
    ruling = judge.rule(stands, Evidence(shown, picked_from=candidates), "1", Standing(scores[0], held))
    return ruling.passed, scores[1 + best] > scores[0]


def measured(world: World, images: int, candidates: int, retrainings: int) -> dict[str, Any]:
    """How often the gate and the peer promote."""
    judge = gate()
    found = np.array([retrain(world, images, candidates, number, judge) for number in range(retrainings)])
    ours, peer = found.mean(axis=0)
    return {
        "world": world.name,
        "truth": round(100 * world.truth(), 2),
        "images": images,
        "candidates": candidates,
        "gate": float(ours),
        "larger_f1": float(peer),
    }


def better(world: World) -> World:
    """The same world where candidates are better by ``BETTER`` of macro F1."""
    return world.gained(float(brentq(lambda factor: world.gained(factor).truth() - BETTER, 0.05, 1)))


def main(retrainings: int) -> None:
    """Measure, print a table, and end with one JSON object."""
    started, rows = time.perf_counter(), []
    stated = (1 - gate().settings.confidence) / 2
    print(f"Promoted, in percent of {retrainings:,} retrainings. Stated error rate: {100 * stated:.1f} %.")
    print(f"{'world':<14}{'better by':>10}{'images':>8}{'candidates':>12}{'gate':>8}{'larger F1':>11}", flush=True)
    for world in WORLDS:
        for images in VALIDATION_IMAGES:
            for candidates in CANDIDATES:
                for each in (world, better(world)):
                    row = measured(each, images, candidates, retrainings)
                    rows.append(row)
                    shares = f"{100 * row['gate']:>8.1f}{100 * row['larger_f1']:>11.1f}"
                    told = f"{row['world']:<14}{row['truth']:>10.1f}{images:>8,}{candidates:>12}{shares}"
                    print(told, flush=True)
    false = max(row["gate"] for row in rows if not row["truth"])
    # A share of so many retrainings is known to three standard deviations.
    most = stated + 3 * (stated * (1 - stated) / retrainings) ** 0.5
    print(f"\nMost false promotions: {100 * false:.1f} % (at most {100 * most:.1f} % where the rate holds).")
    told = {"retrainings": retrainings, "stated": stated, "most_false": false, "kept": false <= most, "rows": rows}
    print(json.dumps({"benchmark": "gate", "seconds": round(time.perf_counter() - started, 1), **told}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--retrainings", type=int, default=1000)
    main(parser.parse_args().retrainings)
