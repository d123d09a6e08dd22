"""The paired comparison against slow plain references, its symmetries, and a world whose truth is known."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from sklearn.metrics import f1_score

from cxr_tasks.errors import DataError
from cxr_tasks.evaluation.comparison import (
    PairComparison,
    answer,
    compare,
    group_counts,
    holm,
    macro_f1,
    mcnemar_exact,
    paired_bootstrap,
    points,
    resampled_differences,
)

CLASSES = ["COVID", "Normal", "Viral Pneumonia"]
SHARES = [0.3, 0.55, 0.15]


def truth(n: int, rng: np.random.Generator) -> pd.DataFrame:
    """n test and n validation images, about two to a group."""
    return pd.DataFrame(
        {
            "image_id": [f"image-{i}" for i in range(2 * n)],
            "split": ["test"] * n + ["validation"] * n,
            "group": [f"patient-{i}" for i in rng.integers(n, size=2 * n)],
            "label": rng.choice(CLASSES, p=SHARES, size=2 * n),
        }
    )


def arm(table: pd.DataFrame, accuracy: float, rng: np.random.Generator) -> pd.DataFrame:
    """Predictions that are right with the given probability, else any other class."""
    y = np.array([CLASSES.index(label) for label in table["label"]])
    off = rng.integers(1, len(CLASSES), size=len(y)) * (rng.random(len(y)) >= accuracy)
    probabilities = np.full((len(y), len(CLASSES)), 0.1)
    probabilities[np.arange(len(y)), (y + off) % len(CLASSES)] = 0.8
    return pd.concat([table, pd.DataFrame(probabilities, columns=CLASSES, index=table.index)], axis=1)


def compared(baseline: pd.DataFrame, augmented: pd.DataFrame, **changes) -> PairComparison:
    arguments = {"name": "VGG16", "bootstrap_samples": 200, "confidence": 0.95, "seed": 7} | changes
    return compare(baseline, augmented, CLASSES, **arguments)


@pytest.fixture
def pair() -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(1)
    table = truth(120, rng)
    return arm(table, 0.8, rng), arm(table, 0.85, rng)


def test_differences_are_those_of_the_test_rows(pair) -> None:
    baseline, augmented = pair
    result = compared(baseline, augmented)
    scores = []
    for table in pair:
        test = table[table["split"] == "test"]
        predicted = test[CLASSES].idxmax(axis=1)
        scores.append((f1_score(test["label"], predicted, average="macro"), (test["label"] == predicted).mean()))
    assert result.macro_f1_difference == pytest.approx(scores[1][0] - scores[0][0])
    assert result.accuracy_difference == pytest.approx(scores[1][1] - scores[0][1])
    assert result.baseline_test["macro_f1"] == pytest.approx(scores[0][0])
    assert result.images == 120
    assert result.groups == baseline.loc[baseline["split"] == "test", "group"].nunique()
    assert np.sum(result.augmented_confusion) == 120


def test_mcnemar_is_the_exact_binomial_test(pair) -> None:
    result = compared(*pair)
    b, c = result.baseline_only_correct, result.augmented_only_correct
    assert (c - b) / result.images == pytest.approx(result.accuracy_difference)
    assert result.mcnemar_p == pytest.approx(min(1.0, 2 * binom.cdf(min(b, c), b + c, 0.5)))
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(0, 5) == pytest.approx(2 / 32)


def test_bootstrap_equals_a_plain_one_on_the_same_draws() -> None:
    rng = np.random.default_rng(2)
    n, samples = 40, 60
    groups = np.array([f"patient-{i}" for i in rng.integers(15, size=n)])
    y, base, aug = (rng.integers(3, size=n) for _ in range(3))
    names = np.unique(groups)
    draws = rng.integers(len(names), size=(samples, len(names)))

    fast = resampled_differences(group_counts(groups, y, base, 3), group_counts(groups, y, aug, 3), draws)

    for draw, value in zip(draws, fast, strict=True):
        rows = np.concatenate([np.flatnonzero(groups == names[i]) for i in draw])
        slow = [
            f1_score(y[rows], predicted[rows], labels=[0, 1, 2], average="macro", zero_division=0)
            for predicted in (base, aug)
        ]
        assert value == pytest.approx(slow[1] - slow[0])


def test_images_of_one_group_do_not_narrow_the_interval() -> None:
    """The same images five times over, each with its copies in its group, are no new evidence."""
    rng = np.random.default_rng(3)
    y, base, aug = (rng.integers(3, size=50) for _ in range(3))
    groups = np.arange(50).astype(str)
    once = [group_counts(groups, y, predicted, 3) for predicted in (base, aug)]
    five = [
        group_counts(np.repeat(groups, 5), np.repeat(y, 5), np.repeat(predicted, 5), 3) for predicted in (base, aug)
    ]
    options = {"samples": 200, "confidence": 0.9, "seed": 0}
    assert paired_bootstrap(*five, **options) == pytest.approx(paired_bootstrap(*once, **options))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_symmetries(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = truth(int(rng.integers(10, 60)), rng)
    baseline, augmented = arm(table, 0.7, rng), arm(table, 0.8, rng)
    forward, backward = compared(baseline, augmented), compared(augmented, baseline)

    assert backward.macro_f1_difference == pytest.approx(-forward.macro_f1_difference)
    assert (backward.macro_f1_low, backward.macro_f1_high) == pytest.approx(
        (-forward.macro_f1_high, -forward.macro_f1_low)
    )
    assert backward.mcnemar_p == pytest.approx(forward.mcnemar_p)
    assert forward.macro_f1_low <= forward.macro_f1_high

    shuffled = compared(baseline.sample(frac=1, random_state=1), augmented.sample(frac=1, random_state=2))
    assert shuffled.macro_f1_low == pytest.approx(forward.macro_f1_low)
    assert shuffled.macro_f1_high == pytest.approx(forward.macro_f1_high)
    assert shuffled.sentence == forward.sentence

    same = compared(baseline, baseline)
    assert (same.macro_f1_difference, same.macro_f1_low, same.macro_f1_high, same.mcnemar_p) == (0, 0, 0, 1)
    assert same.verdict == "no detectable difference"


def test_interval_and_verdict_in_a_world_whose_truth_is_known() -> None:
    """Independent errors at known rates: the interval holds the truth about as often as it says."""
    rng = np.random.default_rng(4)

    def draw(n: int, accuracy: float, y: np.ndarray) -> np.ndarray:
        return (y + rng.integers(1, 3, size=n) * (rng.random(n) >= accuracy)) % 3

    def interval(n: int, base: float, aug: float) -> tuple[float, float]:
        y = rng.choice(3, p=SHARES, size=n)
        groups = np.arange(n).astype(str)
        counts = [group_counts(groups, y, draw(n, accuracy, y), 3) for accuracy in (base, aug)]
        return paired_bootstrap(*counts, samples=400, confidence=0.95, seed=0)

    y = rng.choice(3, p=SHARES, size=400_000)
    everywhere = np.zeros(len(y), dtype="U1")
    big = [macro_f1(group_counts(everywhere, y, draw(len(y), a, y), 3)[0]) for a in (0.80, 0.85)]
    gain = float(big[1] - big[0])

    runs = [interval(250, 0.80, 0.85) for _ in range(200)]
    assert 0.89 <= np.mean([low <= gain <= high for low, high in runs]) <= 0.99
    nothing = [interval(250, 0.8, 0.8) for _ in range(200)]
    assert np.mean([low > 0 or high < 0 for low, high in nothing]) <= 0.11
    plain_gain = [interval(250, 0.70, 0.90) for _ in range(50)]
    assert np.mean([low > 0 for low, _ in plain_gain]) >= 0.98


def test_the_sentence_says_everything() -> None:
    rng = np.random.default_rng(5)
    table = truth(120, rng).assign(group=lambda t: t["image_id"])
    result = compared(arm(table, 0.6, rng), arm(table, 0.95, rng))
    assert result.verdict == "helps"
    assert result.sentence == (
        f"VGG16: helps: macro F1 changed by {points(result.macro_f1_difference)} points (95 % interval "
        f"{points(result.macro_f1_low)} to {points(result.macro_f1_high)}; 120 test images from 120 groups; "
        "McNemar p < 0.001)"
    )
    assert PairComparison.model_validate(result.to_dict()) == result


def test_points_are_signed_and_zero_is_not() -> None:
    assert [points(value) for value in (0.0123, -0.0123, 0.0, -0.0004)] == ["+1.2", "-1.2", "0.0", "0.0"]


def test_different_images_are_refused(pair) -> None:
    baseline, augmented = pair
    with pytest.raises(DataError, match="2 images are in only one"):
        compared(baseline.iloc[1:], augmented.iloc[:-1])
    relabelled = augmented.assign(label=["COVID"] * 3 + augmented["label"].tolist()[3:])
    changed = int((relabelled["label"].to_numpy() != augmented["label"].to_numpy()).sum())
    assert changed
    with pytest.raises(DataError, match=f"{changed} images differ in their label"):
        compared(baseline, relabelled)
    with pytest.raises(DataError, match="need both validation and test"):
        compared(baseline[baseline["split"] == "test"], augmented[augmented["split"] == "test"])
    with pytest.raises(DataError, match="all of one group"):
        compared(baseline.assign(group="same"), augmented.assign(group="same"))
    with pytest.raises(ValueError, match="confidence"):
        compared(baseline, augmented, confidence=95)


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_properties(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert len(adjusted) == len(p_values)
    assert all(raw <= value <= 1 for raw, value in zip(p_values, adjusted, strict=True))
    in_order = [adjusted[i] for i in np.argsort(p_values, kind="stable")]
    assert in_order == sorted(in_order)
    # Never harsher than Bonferroni.
    assert all(value <= min(1, raw * len(p_values)) + 1e-12 for raw, value in zip(p_values, adjusted, strict=True))


def test_holm_of_a_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.5, float("nan")])


def test_the_answer_is_one_sentence_for_any_number_of_pairs(pair) -> None:
    result = compared(*pair)

    def like(name: str, verdict: str, difference: float, p_value: float) -> PairComparison:
        return result.model_copy(
            update={"name": name, "verdict": verdict, "macro_f1_difference": difference, "mcnemar_p": p_value}
        )

    null = like("ResNet50", "no detectable difference", -0.004, 0.6)
    assert answer([null]) == (
        "On these test images synthetic augmentation makes no detectable difference to ResNet50 "
        "(-0.4 points of macro F1)."
    )
    assert answer([like("CNN", "helps", 0.03, 0.001), null]) == (
        "On these test images synthetic augmentation helps CNN (+3.0 points of macro F1) and makes no "
        "detectable difference to ResNet50 (-0.4)."
    )
    assert answer([like("CNN", "helps", 0.03, 0.04), null]).endswith("does not confirm it for CNN.")
    many = answer([like("CNN", "hurts", -0.02, 0.9), *[null] * 8])
    assert "hurts 1 of 9 pairs" in many and "on average" in many and "for 1 of these pairs." in many
    assert "cannot say" in answer([])
