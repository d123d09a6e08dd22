"""One classifier and one pair of arms, trained with several seeds and tested on the same images.

A single pair is ``comparison``'s matter; here two sources of chance are added up: which images were in the test
set, and how each training happened to go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from cxr_tasks.errors import DataError
from cxr_tasks.evaluation.comparison import PairComparison, Verdict, aligned, detectable_text, points, verdict_of
from cxr_tasks.evaluation.intervals import Estimate, disagreement_degrees, group_counts, macro_f1, resampled
from cxr_tasks.evaluation.metrics import encode


class SeedsComparison(BaseModel):
    """The macro-F1 difference, augmented minus baseline, over seeds; fractions, 0.01 is one point.

    ``sd`` is the standard deviation between seeds, None with one; ``least`` and ``most`` are the seeds' own
    differences at the ends. ``low`` to ``high`` and ``detectable`` are about the mean, for test images and
    trainings like these.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    baseline_arm: str
    augmented_arm: str
    seeds: list[int]
    mean: float
    sd: float | None
    least: float
    most: float
    low: float
    high: float
    detectable: float | None
    confidence: float
    verdict: Verdict
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values; ``SeedsComparison.model_validate`` takes it back."""
        return self.model_dump(mode="json")


def over_seeds(
    comparisons: Sequence[PairComparison],
    tables: Sequence[tuple[pd.DataFrame, pd.DataFrame]],
    seeds: Sequence[int],
    *,
    name: str,
) -> SeedsComparison:
    """Sum up ``comparisons``, one for each training seed, with the (baseline, augmented) tables they were made of.

    Resamples, confidence and the bootstrap's own seed are those of the comparisons; ``name`` is how the
    classifier is called in the sentence. With one seed the figures are the pair's.

    Raises
    ------
    DataError
        If there are not as many comparisons, tables and distinct seeds, or if they are not about the same
        classifier's classes, arms, test images and settings.
    """
    if not 1 <= len(comparisons) == len(tables) == len(set(seeds)) == len(seeds):
        raise DataError(f"{len(comparisons)} comparisons need as many pairs of tables and distinct seeds.")
    first = comparisons[0]
    shared = ("classes", "baseline_arm", "augmented_arm", "confidence", "bootstrap_samples", "seed")
    for field in shared:
        if any(getattr(each, field) != getattr(first, field) for each in comparisons):
            raise DataError(f"The seeds of {name} cannot be summed up: their comparisons differ in {field}.")

    estimate, differences = seeds_estimate(
        _counts(tables, first.classes), samples=first.bootstrap_samples, seed=first.seed
    )
    low, high = estimate.interval(first.confidence)
    detectable, verdict = estimate.detectable(first.confidence), verdict_of(low, high)
    k = len(seeds)
    if k == 1:
        sentence = first.sentence
    else:
        sentence = (
            f"{name}: {verdict} over {k} seeds: macro F1 changed by {points(estimate.value)} points on average "
            f"({first.confidence * 100:g} % interval {points(low)} to {points(high)}; single seeds "
            f"{points(differences.min())} to {points(differences.max())}; {first.images:,} test images from "
            f"{first.groups:,} groups); {detectable_text(detectable)}"
        )
    return SeedsComparison(
        name=name,
        baseline_arm=first.baseline_arm,
        augmented_arm=first.augmented_arm,
        seeds=list(seeds),
        mean=estimate.value,
        sd=float(differences.std(ddof=1)) if k > 1 else None,
        least=float(differences.min()),
        most=float(differences.max()),
        low=low,
        high=high,
        detectable=detectable,
        confidence=first.confidence,
        verdict=verdict,
        sentence=sentence,
    )


def seeds_estimate(counts: NDArray[np.int64], *, samples: int, seed: int) -> tuple[Estimate, NDArray[np.float64]]:
    """The mean macro-F1 difference over seeds with its error, and the difference of each seed (seeds,).

    ``counts`` is (groups, seeds, 2, classes, classes), the 2 being baseline and augmented. With V_b the
    variance of the mean over resamples of groups, the same draws for all k seeds, and s² the variance
    between seeds, the error's square is V_b + s²/k: the two-way layout of test cases and trainings, both
    random (Dorfman, Berbaum and Metz, Investigative Radiology 27, 1992; Bouthillier et al., "Accounting for
    Variance in Machine Learning Benchmarks", MLSys 2021). Each part has its own quantile of t, s²/k with
    k - 1 degrees of freedom. One quantile with Welch and Satterthwaite's degrees of freedom trusts an s²
    that is small by chance: with two seeds it held the truth in 91 instead of 95 % (``benchmarks/simulation.py``).

    What the test images do to all seeds alike cancels out of s². What they do to one training and not to
    another (an image that only some seeds get right) is in both V_b and s², at 1/k of its size in each, and
    so is counted twice: the interval errs on the wide side, less with more seeds.
    """
    k = counts.shape[1]
    differences = np.diff(macro_f1(counts.sum(axis=0)), axis=-1)[:, 0]
    means = np.diff(macro_f1(resampled(counts, samples=samples, seed=seed)), axis=-1).mean(axis=(1, 2))
    variances = [float(means.var(ddof=1))]
    degrees = [disagreement_degrees(counts[:, :, 0], counts[:, :, 1])]
    if k > 1:
        variances.append(float(differences.var(ddof=1)) / k)
        degrees.append(k - 1)
    return Estimate(float(differences.mean()), tuple(variances), tuple(degrees)), differences


def _counts(tables: Sequence[tuple[pd.DataFrame, pd.DataFrame]], classes: Sequence[str]) -> NDArray[np.int64]:
    """Confusion counts (groups, seeds, 2, classes, classes) of the test rows; every table is of the same images."""
    reference = tables[0][0]
    counts = []
    for pair in tables:
        for table in pair:
            _, rows = aligned(reference, table, classes)
            test = rows[rows["split"] == "test"]
            y_true, y_pred, _ = encode(test, classes)
            counts.append(group_counts(test["group"].to_numpy(dtype=str), y_true, y_pred, len(classes)))
    stacked = np.stack(counts, axis=1)
    return stacked.reshape(len(stacked), len(tables), 2, len(classes), len(classes))
