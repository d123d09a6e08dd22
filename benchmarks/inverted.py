"""The detector of inverted X-rays: fits its weights, and measures what it gets wrong, out of fold.

    python benchmarks/inverted.py FOLDER [phantoms]

FOLDER holds X-rays that are right, as ``<Class>/images/*.png``. Each image is asked about as it is and inverted, and
altered as people alter images. It is judged by weights that were fitted without it (ten folds), and, class by class,
by weights that never saw its class. The shipped weights judge the phantoms (400 by default), which no fit has seen.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from altered import ALTERATIONS, read_gray, thumbnails_of
from PIL import ImageOps
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from cxr_tasks.data.inverted import CERTAINTY, DIFFERENCES, WEIGHTS, is_inverted, statistics
from cxr_tasks.data.phantoms import PHANTOM_COUNTS, write_phantoms

FOLDS = 10
CERTAIN = math.log(CERTAINTY / (1 - CERTAINTY))
# The fit sees these too, so that bars and gradation do not mislead.
FITTED_ON = ("white bars 10 %", "black bars 10 %", "black frame 5 %", "cropped 10 % a side", "histogram equalised")
FITTED_ON += ("gamma 0.5", "gamma 2")


def fit(right: np.ndarray) -> np.ndarray:
    """Weights (6,) from the statistics (n, 6) of X-rays that are right; their inverses have the negative ones."""
    model = LogisticRegression(C=1.0, fit_intercept=False, max_iter=1000)
    model.fit(np.concatenate([right, -right]), np.repeat([0, 1], len(right)))
    return -model.coef_[0]


def rates(evidence: np.ndarray) -> dict[str, Any]:
    """How often the model is wrong, and how often it is unsure; ``evidence`` (n,) is positive where it is right."""
    return {
        "images": len(evidence),
        "wrong": int((evidence < -CERTAIN).sum()),
        "unsure": int((np.abs(evidence) <= CERTAIN).sum()),
    }


def in_words(found: dict[str, Any]) -> str:
    """``wrong 0, unsure 2 of 1,250``."""
    return f"wrong {found['wrong']:>4}, unsure {found['unsure']:>4} of {found['images']:,}"


def main(folder: Path, phantoms: int) -> None:
    """Fit, measure, print a table, and end with one JSON object."""
    images, labels, _ = read_gray(folder)
    kinds = {"as they are": images, **{name: [alter(i) for i in images] for name, alter in ALTERATIONS.items()}}
    # The inverted files are looked at, and not the mirror of the statistics.
    kinds |= {f"{name}, inverted": [ImageOps.invert(i) for i in kinds[name]] for name in list(kinds)}
    seen = {name: statistics(thumbnails_of(some)) for name, some in kinds.items() if "inverted, inverted" not in name}
    evidence = {name: np.zeros(len(images)) for name in seen}
    sign = {name: -1 if "inverted" in name else 1 for name in seen}
    for train, test in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(images, labels):
        weights = fit(np.concatenate([seen[name][train] for name in ("as they are", *FITTED_ON)]))
        for name in seen:
            evidence[name][test] = sign[name] * seen[name][test] @ weights
    figures: dict[str, Any] = {}
    for name in ("as they are", "as they are, inverted"):
        for label in sorted(set(labels)):
            figures[f"{name}: {label}"] = rates(evidence[name][labels == label])
    figures |= {name: rates(found) for name, found in evidence.items()}
    for label in sorted(set(labels)):
        own = labels == label
        figures[f"fitted without {label}"] = rates(seen["as they are"][own] @ fit(seen["as they are"][~own]))
    for name, found in figures.items():
        print(f"{name:<44}{in_words(found)}")

    weights = fit(np.concatenate([seen[name] for name in ("as they are", *FITTED_ON)]))
    for name, fitted, shipped in zip(DIFFERENCES, weights, WEIGHTS, strict=True):
        print(f"weight of {name:<34}{fitted:.2f} fitted, {shipped:.2f} shipped")
    thumbnails = thumbnails_of(images)
    started = time.perf_counter()
    is_inverted(thumbnails)
    cost = (time.perf_counter() - started) / len(images) * 1e6
    with tempfile.TemporaryDirectory() as scratch:
        write_phantoms(Path(scratch, "p"), dict.fromkeys(PHANTOM_COUNTS, phantoms // len(PHANTOM_COUNTS)))
        made, _, _ = read_gray(Path(scratch, "p"))
        for name, some in {"phantoms": made, "phantoms, inverted": [ImageOps.invert(i) for i in made]}.items():
            strength = statistics(thumbnails_of(some)) @ np.array(WEIGHTS) * (-1 if "inverted" in name else 1)
            figures[name] = rates(strength)
            print(f"{name:<44}{in_words(figures[name])}")
    print(f"{cost:.0f} µs an image")
    print(json.dumps({"benchmark": "inverted", "us_an_image": round(cost, 1), "figures": figures}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 400)
