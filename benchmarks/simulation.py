"""Measures how often the intervals hold the truth, and how often the verdict is a false alarm.

    python benchmarks/simulation.py [--simulations 1000]

The worlds of the simulation have a known truth. Their test sets are patients with one image or more, of three classes
as unequal as those of the source report's data. Their arms mostly fail on the same images. The truth follows exactly
from the error rates, so no large sample has to stand in for it. The columns ``percentile`` and ``welch`` are the usual
intervals, beside those of the product.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm

from cxr_tasks.evaluation.intervals import (
    Estimate,
    group_counts,
    holm,
    macro_f1,
    mcnemar_exact,
    paired_bootstrap,
    resampled,
)
from cxr_tasks.evaluation.seeds import seeds_estimate

SIZES = (130, 500, 1500)
SEEDS = (1, 2, 3, 5)
SAMPLES = 500
CONFIDENCE = 0.95
SHARES = np.array([0.24, 0.67, 0.09])
# Where a mistaken image goes: to the next class, or to the one after it.
NEXT = 0.7
# Images of a patient beyond the first, on average (Poisson).
FURTHER_IMAGES = 0.25
# What makes an image hard, as shares of variance 1: the patient, the image, the arm. The training has the rest.
PATIENT, IMAGE, ARM = 0.4, 0.3, 0.15
PAIRS = 3


@dataclass(frozen=True)
class World:
    """Two arms and how they fail.

    Attributes:
        baseline: The baseline's error rate in each class.
        augmented: The augmented arm's error rate in each class.
        spread: How far trainings spread: the standard deviation of a shift of all error rates, on the probit scale.
    """

    name: str
    baseline: tuple[float, float, float]
    augmented: tuple[float, float, float]
    spread: float = 0.0

    def gained(self, factor: float) -> World:
        """The same world where the augmented arm makes ``factor`` times the errors of the baseline."""
        a, b, c = (min(0.95, factor * rate) for rate in self.baseline)
        return replace(self, augmented=(a, b, c))

    def truth(self) -> float:
        """The true macro-F1 difference, averaged over trainings."""
        base, augmented = (expected_f1(rates, self.spread) for rates in (self.baseline, self.augmented))
        return augmented - base


WORLDS = (
    World("5 % errors", (0.12, 0.03, 0.08), (0.12, 0.03, 0.08)),
    World("20 % errors", (0.30, 0.15, 0.30), (0.30, 0.15, 0.30)),
)
# The effect where there is one: half the errors.
GAIN = 0.5
SPREAD = 0.1


def expected_f1(rates: tuple[float, float, float], spread: float) -> float:
    """Macro F1 (0 to 1) of an endless test set, averaged over trainings."""
    shifts = spread * norm.ppf((np.arange(999) + 0.5) / 999)
    error = norm.cdf(norm.ppf(rates) + shifts[:, None])
    counts = np.zeros((len(shifts), 3, 3))
    for true in range(3):
        counts[:, true, true] = SHARES[true] * (1 - error[:, true])
        counts[:, true, (true + 1) % 3] = SHARES[true] * error[:, true] * NEXT
        counts[:, true, (true + 2) % 3] = SHARES[true] * error[:, true] * (1 - NEXT)
    return float(macro_f1(counts).mean())


def draw(world: World, images: int, trainings: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], ...]:
    """Draw a test set of about ``images``, and what the arms predict.

    Returns:
        The group and the class of each image (n,), and predictions (trainings, 2, n).
    """
    further = rng.poisson(FURTHER_IMAGES, size=round(images / (1 + FURTHER_IMAGES)))
    group = np.repeat(np.arange(len(further)), 1 + further)
    y = rng.choice(3, p=SHARES, size=len(further))[group]
    n = len(group)
    shared = PATIENT**0.5 * rng.normal(size=len(further))[group] + IMAGE**0.5 * rng.normal(size=n)
    own = ARM**0.5 * rng.normal(size=(2, n))
    once = (1 - PATIENT - IMAGE - ARM) ** 0.5 * rng.normal(size=(trainings, 2, n))
    limits = -norm.ppf(np.array([world.baseline, world.augmented]))[:, y]
    shifts = world.spread * rng.normal(size=(trainings, 2, 1))
    wrong = (y + 1 + (rng.random(n) >= NEXT)) % 3
    return group, y, np.where(shared + own + once > limits - shifts, wrong, y)


def counted(group: NDArray[np.int64], y: NDArray[np.int64], predicted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Confusion counts (groups, trainings, 2, 3, 3) of a test set of ``draw``."""
    trainings = len(predicted)
    flat = [group_counts(group, y, arm, 3) for training in predicted for arm in training]
    return np.stack(flat, axis=1).reshape(-1, trainings, 2, 3, 3)


def pair(world: World, images: int, simulations: int, key: int = 0) -> dict[str, Any]:
    """Measure single pairs of trainings: how often the interval holds the truth, and how often a verdict is called."""
    truth, rows = world.truth(), []
    for number in range(simulations):
        rng = np.random.default_rng([key, images, number])
        group, y, predicted = draw(world, images, 1, rng)
        base, augmented = np.moveaxis(counted(group, y, predicted)[:, 0], 1, 0)
        macro, accurate = paired_bootstrap(base, augmented, samples=SAMPLES, seed=number)
        differences = np.diff(macro_f1(resampled(np.stack([base, augmented], 1), samples=SAMPLES, seed=number)))[:, 0]
        right = predicted[0] == y
        p_value = mcnemar_exact(int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum()))
        percentile = np.quantile(differences, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        rows.append(
            (
                *macro.interval(CONFIDENCE),
                *percentile,
                *accurate.interval(CONFIDENCE),
                macro.detectable(CONFIDENCE) or 0.0,
                p_value,
                macro.degrees[0] + 1,
                macro.value,
            )
        )
    low, high, old_low, old_high, accuracy_low, accuracy_high, detectable, p_value, differing, value = np.array(rows).T
    right_rates = [1 - SHARES @ np.array(rates) for rates in (world.baseline, world.augmented)]
    accuracy_truth = right_rates[1] - right_rates[0]
    return {
        "world": world.name,
        "images": images,
        "truth": truth,
        "differing_groups": float(differing.mean()),
        "coverage": share((low <= truth) & (truth <= high)),
        "called": share((low > 0) | (high < 0)),
        "found": share(low > 0),
        "mcnemar": share(p_value < 1 - CONFIDENCE),
        "percentile_coverage": share((old_low <= truth) & (truth <= old_high)),
        "percentile_called": share((old_low > 0) | (old_high < 0)),
        "accuracy_coverage": share((accuracy_low <= accuracy_truth) & (accuracy_truth <= accuracy_high)),
        "half_width": float((high - low).mean() / 2),
        "spread": float(value.std(ddof=1)),
        "detectable": float(detectable.mean()),
    }


def share(hits: NDArray[np.bool_]) -> float:
    """How often something was the case, 0 to 1."""
    return float(np.mean(hits))


def power(world: World, images: int, simulations: int) -> dict[str, Any]:
    """Measure how often a true gain of the detectable size is found.

    The detectable size depends on how often the arms disagree, and therefore on the gain. An iteration finds it.
    """
    target = pair(world, images, simulations // 5, key=1)["detectable"]
    for _ in range(4):
        if target >= world.gained(0.02).truth():
            return {"world": world.name, "images": images, "detectable": target, "power": None}
        factor = brentq(lambda f: world.gained(f).truth() - target, 0.02, 1)  # noqa: B023
        target = (target + pair(world.gained(factor), images, simulations // 5, key=1)["detectable"]) / 2
    if target >= world.gained(0.02).truth():
        return {"world": world.name, "images": images, "detectable": target, "power": None}
    factor = brentq(lambda f: world.gained(f).truth() - target, 0.02, 1)
    measured = pair(world.gained(factor), images, simulations, key=2)
    return {"world": world.name, "images": images, "detectable": target, "power": measured["found"]}


def family(world: World, images: int, simulations: int) -> float:
    """How often McNemar's test with Holm's correction finds a difference among three pairs that have none."""
    found = []
    for number in range(simulations):
        _, y, predicted = draw(world, images, PAIRS, np.random.default_rng([3, images, number]))
        right = predicted == y
        p_values = [mcnemar_exact(int((a & ~b).sum()), int((b & ~a).sum())) for a, b in right]
        found.append(min(holm(p_values)) < 1 - CONFIDENCE)
    return float(np.mean(found))


def seeds(world: World, images: int, trainings: int, simulations: int) -> dict[str, Any]:
    """Measure the mean over ``trainings`` seeds. The truth is the mean over all trainings."""
    truth, rows = world.truth(), []
    for number in range(simulations):
        counts = counted(*draw(world, images, trainings, np.random.default_rng([4, images, trainings, number])))
        estimate, differences = seeds_estimate(counts, samples=SAMPLES, seed=number)
        rows.append((*estimate.interval(CONFIDENCE), *welch(estimate), differences.std(ddof=1) if trainings > 1 else 0))
    low, high, old_low, old_high, sd = np.array(rows).T
    return {
        "world": world.name,
        "images": images,
        "seeds": trainings,
        "truth": truth,
        "coverage": share((low <= truth) & (truth <= high)),
        "called": share((low > 0) | (high < 0)),
        "welch_coverage": share((old_low <= truth) & (truth <= old_high)),
        "welch_called": share((old_low > 0) | (old_high < 0)),
        "half_width": float((high - low).mean() / 2),
        "sd_between": float(sd.mean()),
    }


def welch(estimate: Estimate) -> tuple[float, float]:
    """The usual interval, with a single quantile of t and Welch and Satterthwaite's degrees of freedom."""
    parts = sum(v**2 / nu for v, nu in zip(estimate.variances, estimate.degrees, strict=True))
    degrees = sum(estimate.variances) ** 2 / parts if parts else 1.0
    return Estimate(estimate.value, (sum(estimate.variances),), (degrees,)).interval(CONFIDENCE)


def main(simulations: int) -> None:
    """Print four tables and end with one JSON object."""
    started = time.perf_counter()
    pairs = [pair(w, n, simulations) for world in WORLDS for w in (world, world.gained(GAIN)) for n in SIZES]
    show("Single pairs; called: verdict helps or hurts, which is a false alarm where truth is 0", pairs)
    powers = [power(world, n, simulations) for world in WORLDS for n in SIZES]
    show("How often a gain of the detectable size is found (none: the baseline is too good to gain so much)", powers)
    families = [
        {"world": world.name, "images": n, "mcnemar_holm": family(world, n, simulations)}
        for world in WORLDS
        for n in SIZES
    ]
    show(f"False alarms of McNemar's test with Holm's correction over {PAIRS} pairs, at least one", families)
    spread = [replace(world, spread=SPREAD) for world in WORLDS]
    over = [
        seeds(w, n, k, simulations)
        for world in spread
        for w in (world, world.gained(GAIN))
        for n in SIZES[:2]
        for k in SEEDS
    ]
    show("Over seeds, where trainings spread; with 1 seed the interval speaks of that training alone", over)
    seconds = time.perf_counter() - started
    print(
        json.dumps(
            {
                "benchmark": "simulation",
                "simulations": simulations,
                "bootstrap_samples": SAMPLES,
                "confidence": CONFIDENCE,
                "seconds": round(seconds),
                "pairs": pairs,
                "power": powers,
                "mcnemar_holm": families,
                "seeds": over,
            }
        )
    )


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Print one table."""
    print(f"\n{title}\n{pd.DataFrame(rows).round(4).to_string(index=False)}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1000)
    main(parser.parse_args().simulations)
