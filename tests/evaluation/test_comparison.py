"""The paired comparison against plain references, its symmetries, and its words."""

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
    compare_predictions,
    detectable_text,
    points,
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
    return compare_predictions(baseline, augmented, CLASSES, **arguments)


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


def test_the_sign_test_is_the_exact_binomial_test_of_groups(pair) -> None:
    result = compared(*pair)
    by_image = result.augmented_only_correct - result.baseline_only_correct
    assert by_image / result.images == pytest.approx(result.accuracy_difference)
    b, c = result.baseline_better_groups, result.augmented_better_groups
    assert 0 < b + c < result.baseline_only_correct + result.augmented_only_correct
    assert result.sign_p == pytest.approx(min(1.0, 2 * binom.cdf(min(b, c), b + c, 0.5)))


def test_copies_of_a_patients_images_are_no_new_evidence(pair) -> None:
    """Every image of every third patient four times: no p-value and no count of groups moves."""
    once = compared(*pair)
    copied = []
    for table in pair:
        some = table[table["group"].str.endswith(("0", "3", "6", "9"))]
        more = [some.assign(image_id=some["image_id"] + f"-{n}") for n in range(3)]
        copied.append(pd.concat([table, *more]))

    again = compared(*copied)

    assert again.images > once.images and again.groups == once.groups
    counts = ("sign_p", "baseline_better_groups", "augmented_better_groups")
    assert [getattr(again, name) for name in counts] == [getattr(once, name) for name in counts]


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
    assert (backward.accuracy_low, backward.accuracy_high) == pytest.approx(
        (-forward.accuracy_high, -forward.accuracy_low)
    )
    assert backward.standard_error == pytest.approx(forward.standard_error)
    assert backward.detectable == pytest.approx(forward.detectable)
    assert forward.accuracy_low <= forward.accuracy_difference <= forward.accuracy_high
    assert backward.sign_p == pytest.approx(forward.sign_p)
    assert backward.p_value == pytest.approx(forward.p_value)
    assert forward.macro_f1_low <= forward.macro_f1_high

    shuffled = compared(baseline.sample(frac=1, random_state=1), augmented.sample(frac=1, random_state=2))
    assert shuffled.macro_f1_low == pytest.approx(forward.macro_f1_low)
    assert shuffled.macro_f1_high == pytest.approx(forward.macro_f1_high)
    assert shuffled.sentence == forward.sentence

    same = compared(baseline, baseline)
    assert (same.macro_f1_difference, same.macro_f1_low, same.macro_f1_high, same.sign_p) == (0, 0, 0, 1)
    assert (same.accuracy_low, same.accuracy_high, same.detectable) == (0, 0, None)
    assert same.verdict == "no detectable difference"
    assert same.sentence.endswith("). " + detectable_text(None))


def test_the_sentence_says_everything() -> None:
    rng = np.random.default_rng(5)
    table = truth(120, rng).assign(group=lambda t: t["image_id"])
    result = compared(arm(table, 0.6, rng), arm(table, 0.95, rng))
    assert result.verdict == "helps"
    assert result.sentence == (
        f"VGG16, by itself: helps. Macro F1 changed by {points(result.macro_f1_difference)} points (95 % interval "
        f"{points(result.macro_f1_low)} to {points(result.macro_f1_high)}; 120 test images from 120 groups; "
        "sign test p < 0.001). Four of five such tests would find a true difference of about "
        f"{100 * result.detectable:.1f} points."
    )
    assert PairComparison.model_validate(result.model_dump(mode="json")) == result


def test_the_sentence_names_arms_that_have_names(pair) -> None:
    result = compared(*pair, baseline_arm="classical", augmented_arm="both")
    assert (result.baseline_arm, result.augmented_arm) == ("classical", "both")
    assert f"changed by {points(result.macro_f1_difference)} points from classical to both (95 %" in result.sentence
    assert "disagreed too rarely" in detectable_text(1.4)


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
