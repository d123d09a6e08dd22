"""The answer is a few sentences, one an arm, whatever was compared."""

import pytest

from cxr_tasks.arms import ARMS, Arm
from cxr_tasks.evaluation.answer import answer, treatment
from cxr_tasks.evaluation.seeds import SeedsComparison


def summary(name: str, mean: float, low: float, high: float, arm: str = "synthetic", **changes) -> SeedsComparison:
    verdict = "helps" if low > 0 else "hurts" if high < 0 else "no detectable difference"
    values = {
        "name": name,
        "baseline_arm": "none",
        "augmented_arm": arm,
        "seeds": [0],
        "mean": mean,
        "sd": None,
        "least": mean,
        "most": mean,
        "low": low,
        "high": high,
        "detectable": 0.023,
        "confidence": 0.95,
        "verdict": verdict,
        "sentence": "",
    }
    return SeedsComparison.model_validate(values | changes)


def test_one_classifier_and_no_difference() -> None:
    assert answer([summary("ResNet50", -0.004, -0.02, 0.01)], {}) == (
        "On these test images synthetic augmentation makes no detectable difference to ResNet50 (-0.4 points of macro "
        "F1, 95 % interval -2.0 to +1.0). Four of five such tests would find a true difference of about 2.3 points."
    )


def test_each_verdict_names_its_classifiers_and_what_is_not_confirmed() -> None:
    summaries = [
        summary("CNN", 0.03, 0.01, 0.05),
        summary("VGG16", -0.02, -0.03, -0.01),
        summary("ResNet50", 0, -0.01, 0.01, detectable=None),
    ]

    assert answer(summaries, {"synthetic": ["CNN"]}) == (
        "On these test images synthetic augmentation helps CNN (+3.0 points of macro F1, 95 % interval +1.0 to "
        "+5.0), hurts VGG16 (-2.0, -3.0 to -1.0) and makes no detectable difference to ResNet50 (0.0, -1.0 to +1.0). "
        "McNemar's test, corrected for the number of pairs, does not confirm the verdict for CNN."
    )


def test_each_arm_has_a_sentence_of_its_own() -> None:
    said = answer([summary("CNN", 0.03, 0.01, 0.05), summary("CNN", 0.02, 0.01, 0.03, "oversample")], {})

    assert said == (
        "On these test images synthetic augmentation helps CNN (+3.0 points of macro F1, 95 % interval +1.0 to "
        "+5.0). On the same images showing real images over again helps CNN (+2.0, +1.0 to +3.0)."
    )


def test_many_are_counted_and_not_named() -> None:
    said = answer([summary(f"network {i}", -0.02, -0.03, -0.01) for i in range(9)], {})

    assert (
        said
        == "On these test images synthetic augmentation hurts 9 of 9 classifiers (-2.0 points of macro F1 on average)."
    )


def test_a_range_of_what_could_have_been_found() -> None:
    null = [
        summary("CNN", 0, -1, 1),
        summary("VGG16", 0, -1, 1, detectable=0.05),
        summary("A", 0, -1, 1, detectable=7.0),
    ]

    assert answer(null, {}).endswith("Four of five such tests would find a true difference of about 2.3 to 5.0 points.")


def test_several_seeds_are_said() -> None:
    assert answer([summary("CNN", 0.03, 0.01, 0.05, seeds=[0, 1])], {}).startswith(
        "On these test images, over 2 seeds, s"
    )


def test_nothing_compared_is_said() -> None:
    assert "cannot say" in answer([], {})


@pytest.mark.parametrize(
    ("baseline", "arm", "words"),
    [
        ("classical", "both", "synthetic augmentation"),
        ("none", "classical", "classical augmentation"),
        ("synthetic", "both", "classical augmentation"),
        ("classical", "synthetic", "synthetic in the place of classical augmentation"),
        ("none", "both", "the arm both in the place of none"),
        ("oversample", "synthetic", "the arm synthetic in the place of oversample"),
        ("none", "oversample", "showing real images over again"),
    ],
)
def test_a_treatment_is_what_one_arm_does_and_the_other_does_not(baseline: str, arm: str, words: str) -> None:
    assert treatment(baseline, arm) == words


def test_a_new_arm_brings_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    new = Arm(classical=True, extra="mixed", meaning="real and mixed images", treatment="mixing images")
    monkeypatch.setitem(ARMS, "mixed", new)
    assert treatment("classical", "mixed") == "mixing images"
