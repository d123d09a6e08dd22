"""Summing up over seeds: against the pair's own figures and a computation by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from cxr_tasks.errors import DataError
from cxr_tasks.evaluation.comparison import PairComparison, compare_predictions
from cxr_tasks.evaluation.intervals import macro_f1
from cxr_tasks.evaluation.seeds import SeedsComparison, over_seeds, seeds_estimate

CLASSES = ["COVID", "Normal", "Viral Pneumonia"]
Pair = tuple[pd.DataFrame, pd.DataFrame]


def trained(seeds: int, gain: float = 0.05, spread: float = 0.0) -> list[Pair]:
    """Pairs of arms over the same 200 test and 20 validation images; the gain differs between seeds by ``spread``."""
    rng = np.random.default_rng(8)
    n = 220
    y = rng.integers(3, size=n)
    table = pd.DataFrame(
        {
            "image_id": [f"image-{i}" for i in range(n)],
            "split": ["test"] * 200 + ["validation"] * 20,
            "group": [f"patient-{i // 2}" for i in range(n)],
            "label": [CLASSES[i] for i in y],
        }
    )

    def arm(accuracy: float) -> pd.DataFrame:
        predicted = np.where(rng.random(n) < accuracy, y, (y + 1) % 3)
        return pd.concat([table, pd.DataFrame(np.eye(3)[predicted], columns=CLASSES)], axis=1)

    return [(arm(0.8), arm(0.8 + gain + spread * (i % 2 - 0.5))) for i in range(seeds)]


def compared(pairs: list[Pair]) -> list[PairComparison]:
    return [
        compare_predictions(*pair, CLASSES, name=f"CNN, seed {i}", bootstrap_samples=300, confidence=0.95, seed=7)
        for i, pair in enumerate(pairs)
    ]


def summed(pairs: list[Pair]) -> SeedsComparison:
    return over_seeds(compared(pairs), pairs, range(len(pairs)), name="CNN")


def test_one_seed_is_the_pair() -> None:
    pairs = trained(1)
    pair, result = compared(pairs)[0], summed(pairs)
    assert (result.mean, result.low, result.high) == pytest.approx(
        (pair.macro_f1_difference, pair.macro_f1_low, pair.macro_f1_high)
    )
    assert result.detectable == pytest.approx(pair.detectable)
    assert result.sd is None
    assert (result.verdict, result.sentence) == (pair.verdict, pair.sentence)


def test_the_spread_between_seeds_is_added_to_the_sampling_error() -> None:
    pairs = trained(4, spread=0.12)
    comparisons, result = compared(pairs), summed(pairs)
    differences = [each.macro_f1_difference for each in comparisons]
    assert result.mean == pytest.approx(np.mean(differences))
    assert result.sd == pytest.approx(np.std(differences, ddof=1))
    assert (result.least, result.most) == pytest.approx((min(differences), max(differences)))
    # t is at least 1.96, and the spread alone accounts for sd / 2 of the standard error.
    assert (result.high - result.low) / 2 > 1.96 * np.std(differences, ddof=1) / 2
    assert SeedsComparison.model_validate(result.model_dump(mode="json")) == result
    assert "over 4 seeds" in result.sentence and "single seeds" in result.sentence


def test_the_same_training_twice_is_no_new_evidence() -> None:
    once, again = summed(trained(1)), summed(trained(1) * 3)
    assert again.sd == 0
    assert (again.low, again.high) == pytest.approx((once.low, once.high))


def test_both_sources_of_chance_by_hand() -> None:
    rng = np.random.default_rng(0)
    counts = np.zeros((30, 3, 2, 2, 2), dtype=np.int64)
    for group, seed, arm in np.ndindex(30, 3, 2):
        counts[group, seed, arm, group % 2, rng.integers(2)] = 1
    estimate, differences = seeds_estimate(counts, samples=400, seed=1)
    differing = (counts[:, :, 0] != counts[:, :, 1]).any(axis=(1, 2, 3)).sum()
    sampling, between = estimate.variances
    draws = np.random.default_rng(1).integers(30, size=(400, 30))
    means = [np.diff(macro_f1(counts[draw].sum(axis=0)), axis=-1).mean() for draw in draws]
    assert sampling == pytest.approx(np.var(means, ddof=1))
    assert between == pytest.approx(differences.var(ddof=1) / 3)
    assert estimate.degrees == (differing - 1, 2)
    half = np.sqrt(sampling * t.ppf(0.975, differing - 1) ** 2 + between * t.ppf(0.975, 2) ** 2)
    assert estimate.interval(0.95) == pytest.approx((estimate.value - half, estimate.value + half))


def test_swapping_the_arms_turns_everything_round() -> None:
    pairs = trained(3)
    forward, backward = summed(pairs), summed([(augmented, baseline) for baseline, augmented in pairs])
    assert (backward.mean, backward.low, backward.high) == pytest.approx((-forward.mean, -forward.high, -forward.low))
    assert backward.detectable == pytest.approx(forward.detectable)


def test_what_does_not_belong_together_is_refused() -> None:
    pairs = trained(2)
    comparisons = compared(pairs)
    with pytest.raises(DataError, match="distinct seeds"):
        over_seeds(comparisons, pairs, [1, 1], name="CNN")
    with pytest.raises(DataError, match="differ in augmented_arm"):
        changed = comparisons[1].model_copy(update={"augmented_arm": "both"})
        over_seeds([comparisons[0], changed], pairs, [0, 1], name="CNN")
    with pytest.raises(DataError, match="1 images are in only one"):
        over_seeds(comparisons, [pairs[0], (pairs[1][0].iloc[1:], pairs[1][1].iloc[1:])], [0, 1], name="CNN")
