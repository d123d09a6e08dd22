"""Did the augmented arm do better than its baseline, by how much, and how sure are we?

Works on two prediction tables over the same images. Metrics of one arm alone are in ``metrics``, the
statistics in ``intervals``, several trainings of one pair in ``seeds``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict

from cxr_tasks.errors import DataError
from cxr_tasks.evaluation.intervals import group_counts, mcnemar_exact, paired_bootstrap
from cxr_tasks.evaluation.metrics import check_predictions, classification_metrics, encode

Verdict = Literal["helps", "no detectable difference", "hurts"]


class PairComparison(BaseModel):
    """A baseline and an augmented arm on the same test images.

    Differences are augmented minus baseline, as fractions: 0.01 is one percentage point.
    ``baseline_only_correct`` and ``augmented_only_correct`` are McNemar's discordant counts b and c.
    Confusion matrices have true classes as rows. All but the two ``*_validation`` are about test images.
    ``standard_error`` is the bootstrap's, of the macro-F1 difference; ``detectable`` is the smallest true
    macro-F1 difference that these test images would have shown in four of five cases, None when the arms
    never disagreed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

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
    mcnemar_p: float
    confidence: float
    bootstrap_samples: int
    seed: int
    verdict: Verdict
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values; ``PairComparison.model_validate`` takes it back."""
        return self.model_dump(mode="json")


def compare(
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
    """Compare two arms on their test rows; ``name`` is how the pair is called in its sentence, such as
    "VGG16", and ``baseline_arm`` and ``augmented_arm`` what its arms are, such as "classical" and "both".

    The verdict is ``helps`` or ``hurts`` when the interval of the macro-F1 difference, at ``confidence``
    (between 0 and 1, such as 0.95), leaves out 0. The order of rows does not matter.

    Raises
    ------
    DataError
        If a table is not a prediction table, if the tables are not of exactly the same images with the
        same labels, splits and groups, or if validation or test rows are missing.
    ValueError
        If ``bootstrap_samples`` or ``confidence`` is out of range.
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
    baseline_only = int((base_right & ~aug_right).sum())
    augmented_only = int((aug_right & ~base_right).sum())
    p_value = mcnemar_exact(baseline_only, augmented_only)
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
        baseline_only_correct=baseline_only,
        augmented_only_correct=augmented_only,
        mcnemar_p=p_value,
        confidence=confidence,
        bootstrap_samples=bootstrap_samples,
        seed=seed,
        verdict=verdict,
        sentence=(
            f"{name}: {verdict}: macro F1 changed by {points(macro.value)} points{arms} "
            f"({confidence * 100:g} % interval {points(low)} to {points(high)}; {len(base_test):,} test images "
            f"from {len(base_counts):,} groups; McNemar {p_text(p_value)}); {detectable_text(detectable)}"
        ),
    )


def verdict_of(low: float, high: float) -> Verdict:
    """What an interval of augmented minus baseline says."""
    return "helps" if low > 0 else "hurts" if high < 0 else "no detectable difference"


def detectable_text(detectable: float | None) -> str:
    """What size of effect the test set could show, in words; ``detectable`` is a fraction or None."""
    if detectable is None:
        return "the two arms never disagreed, so these images cannot say what difference they would have shown"
    if detectable > 1:
        return "the two arms disagreed too rarely for these images to show any difference reliably"
    return f"a true difference of about {100 * detectable:.1f} points would have been found in four of five such tests"


def points(difference: float) -> str:
    """A difference of fractions as signed percentage points with one decimal: 0.0123 gives ``+1.2``."""
    rounded = round(difference * 100, 1)
    return f"{rounded:+.1f}" if rounded else "0.0"


def p_text(p_value: float) -> str:
    """A p-value as it is written in a sentence: ``p = 0.45``, ``p < 0.001``."""
    if p_value < 0.001:
        return "p < 0.001"
    return f"p = {p_value:.2f}" if p_value >= 0.0995 else f"p = {p_value:.3f}"


def join_words(words: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def aligned(
    baseline: pd.DataFrame, augmented: pd.DataFrame, classes: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables indexed by image id in the same order; a DataError if they are not about the same
    images."""
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
