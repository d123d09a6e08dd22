"""Sums up one pair of arms over several training seeds, all tested on the same images.

``comparison`` compares a single pair. This module adds up two sources of chance: which images were in the test set,
and how each training happened to go.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr_tasks.errors import DataError
from cxr_tasks.evaluation.comparison import (
    PairComparison,
    Verdict,
    counts_on_test,
    detectable_text,
    points,
    verdict_of,
)
from cxr_tasks.evaluation.intervals import Estimate, disagreement_degrees, macro_f1, resampled
from cxr_tasks.strict import Strict


class SeedsComparison(Strict):
    """The macro-F1 difference, augmented minus baseline, over seeds. Fractions: 0.01 is one percentage point.

    Attributes:
        mean: The mean of the seeds' own differences.
        sd: The standard deviation between seeds; None with one seed.
        least: The smallest of the seeds' own differences.
        most: The largest of the seeds' own differences.
        low: The lower end of the mean's interval, for test images and trainings like these.
        high: The upper end of that interval.
        detectable: The smallest true mean that four of five such experiments would find; None without error.
        p_value: Of a true mean of 0, by the t statistics of the interval.
        variances: The parts of the error's square, of which intervals of any confidence can be made.
        degrees: The degrees of freedom of each variance.
        verdict: Of this comparison by itself. What a run may say is in ``claims``.
        sentence: The verdict and its figures in a few sentences.
    """

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
    p_value: float
    variances: tuple[float, ...]
    degrees: tuple[float, ...]
    confidence: float
    verdict: Verdict
    sentence: str

    @property
    def estimate(self) -> Estimate:
        """The mean with its error."""
        return Estimate(self.mean, self.variances, self.degrees)


def over_seeds(
    comparisons: Sequence[PairComparison],
    tables: Sequence[tuple[pd.DataFrame, pd.DataFrame]],
    seeds: Sequence[int],
    *,
    name: str,
) -> SeedsComparison:
    """Sum up the comparisons of one pair over its training seeds.

    The number of resamples, the confidence and the bootstrap's own seed are those of the comparisons. With one seed
    the figures are the pair's.

    Args:
        comparisons: One for each training seed.
        tables: The (baseline, augmented) prediction tables of each comparison.
        seeds: The training seeds.
        name: What the sentence calls the classifier.

    Raises:
        DataError: The numbers of comparisons, pairs of tables and distinct seeds differ, or the comparisons differ in
            classes, arms, test images or settings.
    """
    if not 1 <= len(comparisons) == len(tables) == len(set(seeds)) == len(seeds):
        raise DataError(f"{len(comparisons)} comparisons need as many pairs of tables and distinct seeds.")
    first = comparisons[0]
    shared = ("classes", "baseline_arm", "augmented_arm", "confidence", "bootstrap_samples", "seed")
    for field in shared:
        if any(getattr(each, field) != getattr(first, field) for each in comparisons):
            raise DataError(f"The seeds of {name} cannot be summed up: their comparisons differ in {field}.")

    estimate, differences = seeds_estimate(
        _counts_by_seed(tables, first.classes), samples=first.bootstrap_samples, seed=first.seed
    )
    low, high = estimate.interval(first.confidence)
    detectable, verdict = estimate.detectable(first.confidence), verdict_of(low, high)
    k = len(seeds)
    if k == 1:
        sentence = first.sentence
    else:
        sentence = (
            f"{name}, by itself: {verdict} over {k} seeds. "
            f"Macro F1 changed by {points(estimate.value)} points on average "
            f"({first.confidence * 100:g} % interval {points(low)} to {points(high)}; single seeds "
            f"{points(differences.min())} to {points(differences.max())}; {first.images:,} test images from "
            f"{first.groups:,} groups). {detectable_text(detectable)}"
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
        p_value=estimate.p_value(),
        variances=estimate.variances,
        degrees=estimate.degrees,
        confidence=first.confidence,
        verdict=verdict,
        sentence=sentence,
    )


def seeds_estimate(counts: NDArray[np.int64], *, samples: int, seed: int) -> tuple[Estimate, NDArray[np.float64]]:
    """The mean macro-F1 difference over seeds, with its error.

    V_b is the variance of the mean over resamples of groups, with the same draws for all k seeds. s² is the variance
    between seeds. The square of the error is V_b + s²/k: the two-way layout of test cases and trainings, both random
    (Dorfman, Berbaum and Metz, Investigative Radiology 27, 1992; Bouthillier et al., "Accounting for Variance in
    Machine Learning Benchmarks", MLSys 2021). Each part has its own quantile of t; s²/k has k - 1 degrees of freedom.
    A single quantile with Welch and Satterthwaite's degrees of freedom would trust an s² that is small by chance. With
    two seeds such an interval held the truth in 91 instead of 95 % of cases (``benchmarks/simulation.py``).

    What the test images do to all seeds alike cancels out of s². An image that only some seeds get right adds to both
    V_b and s², at 1/k of its size in each, and so counts twice. The interval is therefore too wide rather than too
    narrow; more seeds make the excess smaller.

    Args:
        counts: Confusion counts (groups, seeds, 2, classes, classes); the 2 are baseline and augmented.
        samples: How often the groups are drawn again.
        seed: Keys the draws.

    Returns:
        The mean with its error, and the difference of each seed (seeds,).
    """
    differences = np.diff(macro_f1(counts.sum(axis=0)), axis=-1)[:, 0]
    means = np.diff(macro_f1(resampled(counts, samples=samples, seed=seed)), axis=-1).mean(axis=(1, 2))
    degrees = disagreement_degrees(counts[:, :, 0], counts[:, :, 1])
    return mean_over_seeds(differences, means, degrees), differences


def mean_over_seeds(differences: NDArray[np.float64], means: NDArray[np.float64], degrees: int) -> Estimate:
    """The mean of the seeds' differences, with both parts of its error.

    Args:
        differences: Of each seed (seeds,).
        means: Their mean in each resample of the groups (samples,).
        degrees: Degrees of freedom of the variance over resamples.
    """
    k = len(differences)
    variances, freedom = [float(means.var(ddof=1))], [degrees]
    if k > 1:
        variances.append(float(differences.var(ddof=1)) / k)
        freedom.append(k - 1)
    return Estimate(float(differences.mean()), tuple(variances), tuple(freedom))


def _counts_by_seed(tables: Sequence[tuple[pd.DataFrame, pd.DataFrame]], classes: Sequence[str]) -> NDArray[np.int64]:
    """Confusion counts (groups, seeds, 2, classes, classes) of the test rows."""
    counts = counts_on_test([table for pair in tables for table in pair], classes)
    return counts.reshape(len(counts), len(tables), 2, len(classes), len(classes))
