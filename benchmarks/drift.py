"""How often the watch over a champion errs: false alarms, and changes that it finds, beside a weekly two-sample test.

    python -m benchmarks.drift FOLDER [divisions]

FOLDER holds X-rays as ``<Class>/images/*.png``. They are divided at random again and again (100 times by default): a
half trains a logistic regression, a quarter tests it, and a quarter comes later, week after week, as it is or changed.
The peer is what is often done: each week SciPy's Kolmogorov-Smirnov test of all images so far, for each score, with the
same limit shared among the scores.

Simulated champions follow, whose scores are normal draws, for what a year of images would take too long to train on.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cxr_tasks.config import resolve
from cxr_tasks.data.typical import TypicalImages
from cxr_tasks.monitoring.drift import SCORES, drift_findings, scores_of

WEEKLY = 10
# Pixels of a side that the regression sees.
PIXELS = 32
CHAMPIONS = 400


def another_site(images: np.ndarray) -> np.ndarray:
    """As from a device of another maker: other gray levels, and a black margin of a sixteenth on each side."""
    found, margin = 255 * (images / 255.0) ** 0.7, images.shape[1] // 16
    for edge in (np.s_[:, :margin], np.s_[:, -margin:], np.s_[:, :, :margin], np.s_[:, :, -margin:]):
        found[edge] = 0
    return found


CHANGED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as they are": lambda images: images,
    "inverted": lambda images: 255 - images,
    "darker (0.8)": lambda images: 0.8 * images,
    "another site": another_site,
    "shuffled labels": lambda images: images,
}


def weekly_test(reference: pd.DataFrame, new: pd.DataFrame, limit: float) -> int | None:
    """After how many images a Kolmogorov-Smirnov test of one of the scores says that they differ."""
    for seen in [*range(WEEKLY, len(new), WEEKLY), len(new)]:
        p_values = [stats.ks_2samp(reference[name], new[name][:seen]).pvalue for name in SCORES]
        if min(p_values) <= limit / len(SCORES):
            return seen
    return None


def table_of(scores: dict[str, np.ndarray]) -> pd.DataFrame:
    """Scores as the watch keeps them, each image of a group of its own."""
    found = pd.DataFrame(scores)
    return found.assign(group=found.index.astype(str))


def both(reference: pd.DataFrame, new: pd.DataFrame, limit: float, seed: int) -> tuple[int | None, int | None]:
    """After how many images each of the two raises an alarm."""
    found = drift_findings(reference, new, false_alarms=limit, seed=seed).after
    return found, weekly_test(reference, new, limit)


def on_images(folder: Path, divisions: int, limit: float) -> dict[str, list[tuple[int | None, int | None]]]:
    """After how many images each change was found, division by division."""
    paths = sorted(folder.glob("*/images/*.png"))
    size = (PIXELS, PIXELS)
    images = np.stack([np.asarray(Image.open(path).convert("L").resize(size), np.float64) for path in paths])
    _, labels = np.unique([path.parts[-3] for path in paths], return_inverse=True)
    found: dict[str, list[tuple[int | None, int | None]]] = {name: [] for name in CHANGED}
    for seed in range(divisions):
        rng = np.random.default_rng(seed)
        train, test, late = np.split(rng.permutation(len(images)), [len(images) // 2, len(images) * 3 // 4])
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
        model.fit(images[train].reshape(len(train), -1), labels[train])
        typical = TypicalImages.of(images[train].astype(np.uint8))

        def scored(
            pixels: np.ndarray, truth: np.ndarray, model: LogisticRegression = model, typical: TypicalImages = typical
        ) -> pd.DataFrame:
            said = model.predict_proba(pixels.reshape(len(pixels), -1))
            return table_of(scores_of(pixels, typical.distances(pixels.astype(np.uint8)), said, truth))

        reference = scored(images[test], labels[test])
        for name, change in CHANGED.items():
            truth = rng.permutation(labels[late]) if name == "shuffled labels" else labels[late]
            found[name].append(both(reference, scored(change(images[late]), truth), limit, seed))
    return found


def simulated(shift: float, limit: float) -> list[tuple[int | None, int | None]]:
    """After how many of 520 images a shift of the first score, in standard deviations, was found, by champion."""
    found = []
    for seed in range(CHAMPIONS):
        rng = np.random.default_rng([7, seed])
        reference, new = ({name: rng.normal(size=size) for name in SCORES} for size in (180, 52 * WEEKLY))
        new[next(iter(SCORES))] += shift
        found.append(both(table_of(reference), table_of(new), limit, seed))
    return found


def summary(found: list[tuple[int | None, int | None]]) -> dict[str, dict[str, float | None]]:
    """The share of alarms, and the median of the images that they took."""
    told = {}
    for name, after in zip(("watch", "weekly test"), zip(*found, strict=True), strict=True):
        reached = [images for images in after if images is not None]
        median = float(np.median(reached)) if reached else None
        told[name] = {"alarms": len(reached) / len(found), "images": median}
    return told


def main(folder: Path, divisions: int) -> None:
    """Measure, print a table, and end with one JSON object."""
    limit, begun = resolve("quick").monitoring.false_alarms, time.perf_counter()
    told = {name: summary(found) for name, found in on_images(folder, divisions, limit).items()}
    told |= {f"simulated, {shift:g} SD": summary(simulated(shift, limit)) for shift in (0, 0.25, 0.5, 1)}
    print(f"{divisions} divisions of {folder.name}, {CHAMPIONS} simulated champions, limit {limit:.0%}\n")
    print(f"{'':20}{'watch: alarms':>16}{'after images':>14}{'weekly test: alarms':>22}{'after images':>14}")
    for name, of in told.items():
        line = f"{name:20}"
        for width, each in zip((16, 22), of.values(), strict=True):
            after = "" if each["images"] is None else f"{each['images']:.0f}"
            line += f"{each['alarms']:{width}.1%}{after:>14}"
        print(line)
    print(json.dumps({"seconds": round(time.perf_counter() - begun), **told}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 100)
