"""Compares an augmented arm with its baseline: which did better, by how much, and how sure that is.

Both arms come as prediction tables of the same images. ``metrics`` measures one arm alone, ``intervals`` has the
statistics, and ``seeds`` sums up several trainings of one pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr_tasks.errors import DataError
from cxr_tasks.evaluation.intervals import better_groups, group_counts, paired_bootstrap, sign_test
from cxr_tasks.evaluation.metrics import check_predictions, classification_metrics, encode
from cxr_tasks.strict import Strict

Verdict = Literal["helps", "no detectable difference", "hurts"]


class PairComparison(Strict):
    """A baseline and an augmented arm on the same test images.

    Differences are augmented minus baseline, as fractions: 0.01 is one percentage point. Confusion matrices have true
    classes as rows. Every figure but the two ``*_validation`` is about test images.

    Attributes:
        standard_error: The bootstrap's standard error of the macro-F1 difference.
        detectable: The smallest true macro-F1 difference that four of five such tests would find; None where the arms
            never disagreed.
        baseline_only_correct: The images that only the baseline got right.
        augmented_only_correct: The images that only the augmented arm got right.
        baseline_better_groups: The groups in which the baseline got more images right.
        augmented_better_groups: The groups in which the augmented arm got more images right.
        sign_p: The exact sign test on these groups.
        p_value: Of the macro-F1 difference, by the t statistic of its interval.
        verdict: Of this comparison by itself. What a run may say is in ``claims``.
        sentence: The verdict and its figures in a few sentences.
    """

    name: str
    baseline_arm: str
    augmented_arm: str
    classes: list[str]
    images: int
    groups: int
    baseline_validation: dict[str, float]
    augmented_validation: dict[str, float]
    baseline_test: dict[str, float]
    augmented_test: dict[str, float]
    baseline_confusion: list[list[int]]
    augmented_confusion: list[list[int]]
    macro_f1_difference: float
    macro_f1_low: float
    macro_f1_high: float
    standard_error: float
    detectable: float | None
    accuracy_difference: float
    accuracy_low: float
    accuracy_high: float
    baseline_only_correct: int
    augmented_only_correct: int
    baseline_better_groups: int
    augmented_better_groups: int
    sign_p: float
    p_value: float
    confidence: float
    bootstrap_samples: int
    seed: int
    verdict: Verdict
    sentence: str


def compare_predictions(
    baseline: pd.DataFrame,
    augmented: pd.DataFrame,
    classes: Sequence[str],
    *,
    name: str,
    bootstrap_samples: int,
    confidence: float,
    seed: int,
    baseline_arm: str = "baseline",
    augmented_arm: str = "augmented",
) -> PairComparison:
    """Compare two arms on their test rows.

    The verdict is ``helps`` or ``hurts`` where the interval of the macro-F1 difference leaves out 0. It holds for this
    comparison by itself. The order of the rows does not matter.

    Args:
        baseline: The baseline's prediction table.
        augmented: The augmented arm's prediction table.
        classes: The classes, in the order of the confusion matrices.
        name: What the sentence calls the pair, such as "VGG16".
        bootstrap_samples: How often the test groups are drawn again, at least 2.
        confidence: The interval's confidence, between 0 and 1.
        seed: Keys the bootstrap's draws.
        baseline_arm: The baseline's arm, such as "classical".
        augmented_arm: The augmented arm, such as "both".

    Raises:
        DataError: A table is not a prediction table, the tables differ in images, labels, splits or groups, or
            validation or test rows are missing.
        ValueError: ``bootstrap_samples`` or ``confidence`` is out of range.
    """
    if bootstrap_samples < 2 or not 0 < confidence < 1:
        raise ValueError("bootstrap_samples must be at least 2 and confidence between 0 and 1")
    baseline, augmented = aligned(baseline, augmented, classes)
    base_test, aug_test = (table[table["split"] == "test"] for table in (baseline, augmented))
    base_valid, aug_valid = (table[table["split"] == "validation"] for table in (baseline, augmented))
    if base_test.empty or base_valid.empty:
        raise DataError(f"The predictions of {name} need both validation and test images.")

    y_true, base_pred, _ = encode(base_test, classes)
    _, aug_pred, _ = encode(aug_test, classes)
    groups = base_test["group"].to_numpy(dtype=str)
    base_counts = group_counts(groups, y_true, base_pred, len(classes))
    aug_counts = group_counts(groups, y_true, aug_pred, len(classes))
    macro, accurate = paired_bootstrap(base_counts, aug_counts, samples=bootstrap_samples, seed=seed)
    low, high = macro.interval(confidence)
    accuracy_low, accuracy_high = accurate.interval(confidence)
    detectable = macro.detectable(confidence)
    base_right, aug_right = base_pred == y_true, aug_pred == y_true
    better = better_groups(groups, base_right, aug_right)
    sign_p = sign_test(*better)
    verdict = verdict_of(low, high)
    arms = (
        "" if (baseline_arm, augmented_arm) == ("baseline", "augmented") else f" from {baseline_arm} to {augmented_arm}"
    )
    return PairComparison(
        name=name,
        baseline_arm=baseline_arm,
        augmented_arm=augmented_arm,
        classes=list(classes),
        images=len(base_test),
        groups=len(base_counts),
        baseline_validation=classification_metrics(base_valid, classes),
        augmented_validation=classification_metrics(aug_valid, classes),
        baseline_test=classification_metrics(base_test, classes),
        augmented_test=classification_metrics(aug_test, classes),
        baseline_confusion=base_counts.sum(axis=0).tolist(),
        augmented_confusion=aug_counts.sum(axis=0).tolist(),
        macro_f1_difference=macro.value,
        macro_f1_low=low,
        macro_f1_high=high,
        standard_error=macro.standard_error,
        detectable=detectable,
        accuracy_difference=accurate.value,
        accuracy_low=accuracy_low,
        accuracy_high=accuracy_high,
        baseline_only_correct=int((base_right & ~aug_right).sum()),
        augmented_only_correct=int((aug_right & ~base_right).sum()),
        baseline_better_groups=better[0],
        augmented_better_groups=better[1],
        sign_p=sign_p,
        p_value=macro.p_value(),
        confidence=confidence,
        bootstrap_samples=bootstrap_samples,
        seed=seed,
        verdict=verdict,
        sentence=(
            f"{name}, by itself: {verdict}. Macro F1 changed by {points(macro.value)} points{arms} "
            f"({confidence * 100:g} % interval {points(low)} to {points(high)}; {len(base_test):,} test images "
            f"from {len(base_counts):,} groups; sign test {p_text(sign_p)}). {detectable_text(detectable)}"
        ),
    )


def verdict_of(low: float, high: float) -> Verdict:
    """The verdict of an interval of augmented minus baseline."""
    return "helps" if low > 0 else "hurts" if high < 0 else "no detectable difference"


def detectable_text(detectable: float | None, most: float | None = None) -> str:
    """What size of difference a test would find, as sentences.

    Args:
        detectable: The smallest difference that is found in four of five tests, as a fraction; None where the arms
            never disagreed.
        most: The largest such difference, where several tests have their own.
    """
    if detectable is None:
        return "The two arms never disagreed. These images cannot say what difference they would find."
    if detectable > 1:
        return "The two arms disagreed too rarely for these images to find any difference reliably."
    low, high = (f"{100 * limit:.1f}" for limit in (detectable, detectable if most is None else most))
    size = low if low == high else f"{low} to {high}"
    return f"Four of five such tests would find a true difference of about {size} points."


def points(difference: float) -> str:
    """Write a difference of fractions as signed percentage points: 0.0123 gives ``+1.2``."""
    rounded = round(difference * 100, 1)
    return f"{rounded:+.1f}" if rounded else "0.0"


def p_text(p_value: float) -> str:
    """Write a p-value for a sentence: ``p = 0.45``, ``p < 0.001``."""
    if p_value < 0.001:
        return "p < 0.001"
    return f"p = {p_value:.2f}" if p_value >= 0.0995 else f"p = {p_value:.3f}"


def join_words(words: Sequence[str]) -> str:
    """Join words as ``a``, ``a and b``, ``a, b and c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def aligned(
    baseline: pd.DataFrame, augmented: pd.DataFrame, classes: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables with their rows in the order of image ids.

    Raises:
        DataError: A table is not a prediction table, or the tables differ in images, labels, splits or groups.
    """
    for table in (baseline, augmented):
        check_predictions(table, classes)
    left = baseline.set_index("image_id").sort_index()
    right = augmented.set_index("image_id").sort_index()
    alone = len(left.index.symmetric_difference(right.index))
    if alone:
        raise DataError(f"The arms cannot be compared: {alone} images are in only one of the two tables.")
    for column in ("label", "split", "group"):
        differing = int((left[column].to_numpy(dtype=str) != right[column].to_numpy(dtype=str)).sum())
        if differing:
            raise DataError(f"The arms cannot be compared: {differing} images differ in their {column}.")
    return left.reset_index(), right.reset_index()


def counts_on_test(tables: Sequence[pd.DataFrame], classes: Sequence[str]) -> NDArray[np.int64]:
    """Confusion counts by group of the test rows of several prediction tables of the same images.

    Returns:
        Counts (groups, tables, classes, classes), true classes before predicted ones, groups in sorted order of their
        names.

    Raises:
        DataError: A table is not a prediction table, or the tables differ in images, labels, splits or groups.
    """
    counts = []
    for table in tables:
        _, rows = aligned(tables[0], table, classes)
        test = rows[rows["split"] == "test"]
        y_true, y_pred, _ = encode(test, classes)
        counts.append(group_counts(test["group"].to_numpy(dtype=str), y_true, y_pred, len(classes)))
    return np.stack(counts, axis=1)
