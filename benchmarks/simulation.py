"""Measures how often the intervals hold the truth, how often a verdict is a false alarm, and a run any of its verdicts.

    python benchmarks/simulation.py [--simulations 500]

The worlds of the simulation have a known truth. Their test sets are patients with one image or more, of three classes
as unequal as those of the source report's data. Their arms mostly fail on the same images. The truth follows exactly
from the error rates, so no large sample has to stand in for it. The columns ``percentile`` and ``welch`` are the usual
intervals, beside those of the product.

Whole runs are simulated too: several classifiers and arms, tested on one test set, with arms that make like mistakes in
all classifiers, as one GAN would cause. There the share counts that tells how often the first line of a report, which
picks out what was found, says anything that is false.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm

from cxr_tasks.evaluation.claims import Joint, verdict_of_claim
from cxr_tasks.evaluation.intervals import (
    Estimate,
    better_groups,
    disagreement_degrees,
    group_counts,
    macro_f1,
    paired_bootstrap,
    resampled,
    sign_test,
)
from cxr_tasks.evaluation.seeds import mean_over_seeds, seeds_estimate

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
# Of the share of the arm: what an arm has in all classifiers alike, as arms of one synthetic set have.
ALIKE = 0.5
# A whole run: each classifier has a baseline and so many arms that are compared with it.
CLASSIFIERS, ARMS = 3, 5


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
# The effect in whole runs, of a size that tests miss at times: so much of the errors is left.
MILD = 0.65
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
        p_value = sign_test(*better_groups(group, *(predicted[0] == y)))
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
        "sign_test": share(p_value < 1 - CONFIDENCE),
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


@dataclass(frozen=True)
class Run:
    """A run of several classifiers and arms, and how its arms fail.

    Attributes:
        rates: Error rates (classifiers, arms, classes). The first arm of each classifier is its baseline.
        claims: Pairs of positions among the arms: the arm that is claimed something of, and its control or None.
        spread: How far trainings spread, as in a ``World``.
    """

    name: str
    rates: NDArray[np.float64]
    claims: tuple[tuple[int, int | None], ...]
    spread: float = 0.0

    def truth(self) -> NDArray[np.float64]:
        """The true macro F1 (classifiers, arms), averaged over trainings."""
        return np.array([[expected_f1(tuple(arm), self.spread) for arm in network] for network in self.rates])


def equal_arms(world: World, spread: float) -> Run:
    """A run in which no arm differs from its baseline; none has a control."""
    rates = np.tile(np.array(world.baseline), (CLASSIFIERS, 1 + ARMS, 1))
    return Run(f"{world.name}, all arms alike", rates, tuple((arm, None) for arm in range(1, 1 + ARMS)), spread)


def with_control(world: World, spread: float, *, control_gains: bool, gaining: int) -> Run:
    """A run as by default: baseline, synthetic arm and control; in ``gaining`` classifiers the arm truly gains."""
    rates = np.tile(np.array(world.baseline), (CLASSIFIERS, 3, 1))
    rates[:gaining, 1] *= MILD
    if control_gains:
        rates[:, 1:] *= MILD
    told = "control gains as much" if control_gains else f"{gaining} of {CLASSIFIERS} gain"
    return Run(f"{world.name}, {told}", rates, ((1, 2),), spread)


def draw_run(run: Run, images: int, trainings: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw a test set, and confusion counts (groups, classifiers, arms, trainings, 3, 3) of a whole run on it."""
    further = rng.poisson(FURTHER_IMAGES, size=round(images / (1 + FURTHER_IMAGES)))
    group = np.repeat(np.arange(len(further)), 1 + further)
    y = rng.choice(3, p=SHARES, size=len(further))[group]
    n, (networks, arms) = len(group), run.rates.shape[:2]
    shared = PATIENT**0.5 * rng.normal(size=len(further))[group] + IMAGE**0.5 * rng.normal(size=n)
    alike, own = rng.normal(size=(arms, 1, n)), rng.normal(size=(networks, arms, 1, n))
    of_arm = (ARM * ALIKE) ** 0.5 * alike + (ARM * (1 - ALIKE)) ** 0.5 * own
    once = (1 - PATIENT - IMAGE - ARM) ** 0.5 * rng.standard_normal((networks, arms, trainings, n), np.float32)
    limits = -norm.ppf(run.rates)[:, :, None, y]
    shifts = run.spread * rng.normal(size=(networks, arms, trainings, 1))
    wrong = (y + 1 + (rng.random(n) >= NEXT)) % 3
    predicted = np.where(shared + of_arm + once > limits - shifts, wrong, y).reshape(-1, n)
    cell = (np.arange(len(predicted))[:, None] * (len(further) * 9)) + group * 9 + y * 3 + predicted
    counts = np.bincount(cell.ravel(), minlength=len(predicted) * len(further) * 9)
    shape = (networks, arms, trainings, len(further), 3, 3)
    return np.moveaxis(counts.reshape(shape), 3, 0)


def whole_runs(run: Run, images: int, trainings: int, simulations: int) -> dict[str, Any]:
    """Measure how often any verdict of a run is false, and how often a true gain is found.

    Columns ``by_itself`` take each verdict at its own 95 %, as if no other had been asked.
    """
    truth, rows = run.truth(), []
    for number in range(simulations):
        rng = np.random.default_rng([5, images, trainings, number])
        counts = draw_run(run, images, trainings, rng)
        f1, again = macro_f1(counts.sum(axis=0)), macro_f1(resampled(counts, samples=SAMPLES, seed=number))
        asked = len(run.claims) * len(truth)
        found = [
            [
                [_verdict(counts, f1, again, network, claim, level) for claim in run.claims]
                for network in range(len(truth))
            ]
            for level in (1 - (1 - CONFIDENCE) / asked, CONFIDENCE)
        ]
        rows.append([_judged(run, truth, verdicts) for verdicts in found])
    (any_false, gains), (any_false_itself, gains_itself) = np.moveaxis(np.array(rows, dtype=float), 0, -1)
    real = any(_gains(truth, network, claim) for network in range(len(truth)) for claim in run.claims)
    return {
        "run": run.name,
        "images": images,
        "seeds": trainings,
        "spread": run.spread,
        "claims": asked,
        "any_false": float(any_false.mean()),
        "any_false_by_itself": float(any_false_itself.mean()),
        "gain_found": float(gains.mean()) if real else None,
        "gain_found_by_itself": float(gains_itself.mean()) if real else None,
    }


def _verdict(
    counts: NDArray[np.int64],
    f1: NDArray[np.float64],
    again: NDArray[np.float64],
    network: int,
    claim: tuple[int, int | None],
    level: float,
) -> str:
    """The verdict on one arm of one classifier, from the macro F1 of the test set and of its resamples."""

    def joint(other: int) -> Joint:
        arm = claim[0]
        estimate = mean_over_seeds(
            f1[network, arm] - f1[network, other],
            (again[:, network, arm] - again[:, network, other]).mean(axis=-1),
            disagreement_degrees(counts[:, network, other], counts[:, network, arm]),
        )
        low, high = estimate.interval(level)
        return Joint(mean=estimate.value, low=low, high=high, p_value=1.0)

    return verdict_of_claim(joint(0), None if claim[1] is None else joint(claim[1]))


def _gains(truth: NDArray[np.float64], network: int, claim: tuple[int, int | None]) -> bool:
    """Whether the arm truly does better than its baseline and its control."""
    arm, control = claim
    return all(truth[network, arm] > truth[network, other] + 1e-12 for other in (0, control) if other is not None)


def _judged(run: Run, truth: NDArray[np.float64], verdicts: list[list[str]]) -> tuple[bool, float]:
    """Whether any verdict of a run is false, and the share of the true gains that were found."""
    is_false, found = False, []
    for network, of_network in enumerate(verdicts):
        for claim, verdict in zip(run.claims, of_network, strict=True):
            gain = truth[network, claim[0]] - truth[network, 0]
            gains = _gains(truth, network, claim)
            is_false |= (verdict == "helps" and not gains) or (verdict == "hurts" and gain > -1e-12)
            is_false |= verdict == "better, not shown beyond the control" and gain < 1e-12
            if gains:
                found.append(verdict == "helps")
    return is_false, float(np.mean(found)) if found else 0.0


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
    spread = [replace(world, spread=SPREAD) for world in WORLDS]
    over = [
        seeds(w, n, k, simulations)
        for world in spread
        for w in (world, world.gained(GAIN))
        for n in SIZES[:2]
        for k in SEEDS
    ]
    show("Over seeds, where trainings spread; with 1 seed the interval speaks of that training alone", over)
    runs = [whole_runs(run, n, k, simulations) for world in WORLDS for run, n, k in the_runs(world)]
    error = 100 * (0.05 * 0.95 / simulations) ** 0.5
    show(
        f"Whole runs: any false verdict, corrected and by itself; gains found. A share of .05 is known to ±{error:.1f} "
        "points (one standard error)",
        runs,
    )
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
                "seeds": over,
                "runs": runs,
            }
        )
    )


def the_runs(world: World) -> Iterator[tuple[Run, int, int]]:
    """The runs that are simulated: each with its number of test images and of seeds."""
    for images in SIZES[:2]:
        for trainings in SEEDS:
            # With one seed a verdict is about these trained models, so that nothing may spread where none differs.
            yield equal_arms(world, SPREAD if trainings > 1 else 0.0), images, trainings
    for trainings in (1, 5):
        spread = SPREAD if trainings > 1 else 0.0
        yield with_control(world, spread, control_gains=True, gaining=0), SIZES[1], trainings
        yield with_control(world, spread, control_gains=False, gaining=1), SIZES[1], trainings
        yield with_control(world, spread, control_gains=False, gaining=3), SIZES[1], trainings


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Print one table."""
    print(f"\n{title}\n{pd.DataFrame(rows).round(4).to_string(index=False)}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=500)
    main(parser.parse_args().simulations)
