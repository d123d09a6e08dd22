"""Did the augmented arm do better than its baseline, by how much, and how sure are we?

Works on two prediction tables over the same images. Metrics of one arm alone are in ``metrics``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.stats import binomtest

from cxr_tasks.errors import DataError
from cxr_tasks.evaluation.metrics import check_predictions, classification_metrics, encode

Verdict = Literal["helps", "no detectable difference", "hurts"]

# Above this many pairs a list of names no longer reads as a sentence.
NAMED_PAIRS = 6

# Bounds the memory of the bootstrap (8 bytes each) whatever the number of groups.
WEIGHTS_AT_ONCE = 4_000_000


class PairComparison(BaseModel):
    """A baseline and an augmented arm on the same test images.

    Differences are augmented minus baseline, as fractions: 0.01 is one percentage point.
    ``baseline_only_correct`` and ``augmented_only_correct`` are McNemar's discordant counts b and c.
    Confusion matrices have true classes as rows. All but the two ``*_validation`` are about test images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
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
    accuracy_difference: float
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


def macro_f1(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Macro F1 (0 to 1) of confusion counts shaped (..., classes, classes); the result is shaped (...).

    F1 = 2 TP / (2 TP + FP + FN); a class that is neither present nor predicted counts as 0, as in
    scikit-learn with ``zero_division=0``.
    """
    true_positive = np.diagonal(counts, axis1=-2, axis2=-1).astype(np.float64)
    denominator = counts.sum(axis=-1) + counts.sum(axis=-2)
    f1 = np.divide(2 * true_positive, denominator, out=np.zeros_like(true_positive), where=denominator > 0)
    return f1.mean(axis=-1)


def group_counts(
    groups: NDArray[Any], y_true: NDArray[np.int64], y_pred: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """One confusion matrix per group, (groups, classes, classes), groups in sorted order of their names."""
    names, position = np.unique(groups, return_inverse=True)
    cell = (position * classes + y_true) * classes + y_pred
    return np.bincount(cell, minlength=len(names) * classes**2).reshape(len(names), classes, classes)


def resampled_differences(
    baseline: NDArray[np.int64], augmented: NDArray[np.int64], draws: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Macro-F1 differences (samples,) of resamples of groups.

    ``baseline`` and ``augmented`` are (groups, classes, classes) from ``group_counts``; ``draws`` is
    (samples, groups) with the index of each group drawn. Both arms use the same draw, which is what makes
    the bootstrap paired.
    """
    samples, n_groups = len(draws), len(baseline)
    shifted = draws + np.arange(samples)[:, None] * n_groups
    weights = np.bincount(shifted.ravel(), minlength=samples * n_groups).reshape(samples, n_groups)
    both = np.stack([baseline, augmented], axis=1)
    # Float matrix products go through BLAS; the counts are whole numbers far below 2**53, so they stay exact.
    totals = weights.astype(np.float64) @ both.reshape(n_groups, -1).astype(np.float64)
    scores = macro_f1(totals.reshape(samples, *both.shape[1:]))
    return scores[:, 1] - scores[:, 0]


def paired_bootstrap(
    baseline: NDArray[np.int64], augmented: NDArray[np.int64], *, samples: int, confidence: float, seed: int
) -> tuple[float, float]:
    """Percentile interval of the macro-F1 difference, groups resampled with replacement.

    Images of one patient are not independent, so the group is what is drawn (Efron and Tibshirani 1993,
    chapters 8 and 13). ``baseline`` and ``augmented`` are (groups, classes, classes) from
    ``group_counts``.

    Raises
    ------
    DataError
        With fewer than two groups, where resampling says nothing.
    """
    n_groups = len(baseline)
    if n_groups < 2:
        raise DataError("The test images are all of one group; an interval needs at least two groups.")
    rng = np.random.default_rng(seed)
    at_once = max(1, WEIGHTS_AT_ONCE // n_groups)
    differences = np.concatenate(
        [
            resampled_differences(
                baseline, augmented, rng.integers(n_groups, size=(min(at_once, samples - start), n_groups))
            )
            for start in range(0, samples, at_once)
        ]
    )
    tail = (1 - confidence) / 2
    low, high = np.quantile(differences, [tail, 1 - tail])
    return float(low), float(high)


def mcnemar_exact(baseline_only: int, augmented_only: int) -> float:
    """Two-sided exact McNemar p-value of the discordant counts; 1 when there are none.

    McNemar 1947: under the null each discordant image falls to either arm with probability 1/2.
    """
    discordant = baseline_only + augmented_only
    return float(binomtest(baseline_only, discordant, 0.5).pvalue) if discordant else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm-Bonferroni adjusted p-values, in the order given, each at least its raw value and at most 1.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6,
    1979.

    Raises
    ------
    ValueError
        If a value is not in [0, 1].
    """
    raw = np.asarray(p_values, dtype=np.float64)
    if not ((raw >= 0) & (raw <= 1)).all():
        raise ValueError(f"p-values lie between 0 and 1; got {list(p_values)}")
    order = np.argsort(raw, kind="stable")
    stepped = np.maximum.accumulate(raw[order] * np.arange(len(raw), 0, -1))
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted.tolist()


def compare(
    baseline: pd.DataFrame,
    augmented: pd.DataFrame,
    classes: Sequence[str],
    *,
    name: str,
    bootstrap_samples: int,
    confidence: float,
    seed: int,
) -> PairComparison:
    """Compare two arms on their test rows; ``name`` is how the pair is called in its sentence, such as
    "VGG16".

    The verdict is ``helps`` or ``hurts`` when the paired bootstrap interval of the macro-F1 difference, at
    ``confidence`` (between 0 and 1, such as 0.95), leaves out 0. The order of rows does not matter.

    Raises
    ------
    DataError
        If a table is not a prediction table, if the tables are not of exactly the same images with the
        same labels, splits and groups, or if validation or test rows are missing.
    ValueError
        If ``bootstrap_samples`` or ``confidence`` is out of range.
    """
    if bootstrap_samples < 1 or not 0 < confidence < 1:
        raise ValueError("bootstrap_samples must be at least 1 and confidence between 0 and 1")
    baseline, augmented = _aligned(baseline, augmented, classes)
    base_test, aug_test = (table[table["split"] == "test"] for table in (baseline, augmented))
    base_valid, aug_valid = (table[table["split"] == "validation"] for table in (baseline, augmented))
    if base_test.empty or base_valid.empty:
        raise DataError(f"The predictions of {name} need both validation and test images.")

    y_true, base_pred, _ = encode(base_test, classes)
    _, aug_pred, _ = encode(aug_test, classes)
    groups = base_test["group"].to_numpy(dtype=str)
    base_counts = group_counts(groups, y_true, base_pred, len(classes))
    aug_counts = group_counts(groups, y_true, aug_pred, len(classes))
    low, high = paired_bootstrap(base_counts, aug_counts, samples=bootstrap_samples, confidence=confidence, seed=seed)
    base_confusion, aug_confusion = base_counts.sum(axis=0), aug_counts.sum(axis=0)
    difference = float(macro_f1(aug_confusion) - macro_f1(base_confusion))
    base_right, aug_right = base_pred == y_true, aug_pred == y_true
    baseline_only = int((base_right & ~aug_right).sum())
    augmented_only = int((aug_right & ~base_right).sum())
    p_value = mcnemar_exact(baseline_only, augmented_only)
    verdict: Verdict = "helps" if low > 0 else "hurts" if high < 0 else "no detectable difference"
    return PairComparison(
        name=name,
        classes=list(classes),
        images=len(base_test),
        groups=len(base_counts),
        baseline_validation=classification_metrics(base_valid, classes),
        augmented_validation=classification_metrics(aug_valid, classes),
        baseline_test=classification_metrics(base_test, classes),
        augmented_test=classification_metrics(aug_test, classes),
        baseline_confusion=base_confusion.tolist(),
        augmented_confusion=aug_confusion.tolist(),
        macro_f1_difference=difference,
        macro_f1_low=low,
        macro_f1_high=high,
        accuracy_difference=(augmented_only - baseline_only) / len(base_test),
        baseline_only_correct=baseline_only,
        augmented_only_correct=augmented_only,
        mcnemar_p=p_value,
        confidence=confidence,
        bootstrap_samples=bootstrap_samples,
        seed=seed,
        verdict=verdict,
        sentence=(
            f"{name}: {verdict}: macro F1 changed by {points(difference)} points "
            f"({confidence * 100:g} % interval {points(low)} to {points(high)}; {len(base_test):,} test images "
            f"from {len(base_counts):,} groups; McNemar {p_text(p_value)})"
        ),
    )


def answer(comparisons: Sequence[PairComparison]) -> str:
    """The whole run in one sentence: what synthetic augmentation did to each pair, and what the tests do
    not confirm.

    A pair whose interval leaves out 0 is called unconfirmed when its McNemar p-value, Holm-corrected over
    all pairs, is not below 1 - confidence: with few disagreements the interval alone is too easily
    pleased.
    """
    if not comparisons:
        return (
            "No baseline and augmented arm were compared, so this run cannot say whether synthetic augmentation helps."
        )
    adjusted = holm([comparison.mcnemar_p for comparison in comparisons])
    by_name = len(comparisons) <= NAMED_PAIRS
    # Said once, with the first number.
    unit = " points of macro F1"
    parts = []
    for verdict, verb in (
        ("helps", "helps"),
        ("hurts", "hurts"),
        ("no detectable difference", "makes no detectable difference to"),
    ):
        members = [comparison for comparison in comparisons if comparison.verdict == verdict]
        if members and by_name:
            named = []
            for member in members:
                named.append(f"{member.name} ({points(member.macro_f1_difference)}{unit})")
                unit = ""
            parts.append(f"{verb} {join_words(named)}")
        elif members:
            parts.append(f"{verb} {len(members)} of {len(comparisons)} pairs")
    sentence = f"On these test images synthetic augmentation {join_words(parts)}"
    if not by_name:
        mean = sum(comparison.macro_f1_difference for comparison in comparisons) / len(comparisons)
        sentence += f" ({points(mean)} points of macro F1 on average)"
    unconfirmed = [
        comparison.name
        for comparison, p_value in zip(comparisons, adjusted, strict=True)
        if comparison.verdict != "no detectable difference" and p_value >= 1 - comparison.confidence
    ]
    if unconfirmed:
        which = join_words(unconfirmed) if by_name else f"{len(unconfirmed)} of these pairs"
        sentence += f"; McNemar's test, corrected for the number of pairs, does not confirm it for {which}"
    return sentence + "."


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


def _aligned(
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
