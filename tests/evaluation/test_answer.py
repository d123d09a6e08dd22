"""The answer is a few short sentences that use corrected verdicts alone, whatever was compared."""

import pytest

from cxr_tasks.arms import ARMS, Arm
from cxr_tasks.evaluation.answer import answer, treatment
from cxr_tasks.evaluation.claims import Claim, Joint, verdict_of_claim


def joint(mean: float, low: float, high: float) -> Joint:
    return Joint(mean=mean, low=low, high=high, p_value=0.5)


def claim(
    name: str, first: Joint, second: Joint | None = None, arm: str = "synthetic", control: str = "oversample", **changes
) -> Claim:
    values = {
        "name": name,
        "arm": arm,
        "baseline": "none",
        "control": control,
        "seeds": 1,
        "against_baseline": first,
        "against_control": second,
        "detectable": 0.023,
        "claims": 3,
        "confidence": 0.95,
        "verdict": verdict_of_claim(first, second),
    }
    return Claim.model_validate(values | changes)


NULL, GAIN, LOSS = joint(-0.004, -0.02, 0.01), joint(0.03, 0.01, 0.05), joint(-0.02, -0.03, -0.01)
CORRECTED = (
    "3 comparisons were asked. The verdicts and intervals are corrected for all of them (Bonferroni): the chance that "
    "any verdict about these trained models is false is at most 5 %."
)
ONCE = "On these test images, with each arm trained once, "


def test_one_classifier_and_no_difference() -> None:
    assert answer([claim("ResNet50", NULL, NULL, claims=1)], {}) == (
        f"{ONCE}synthetic augmentation makes no detectable difference to ResNet50 (-0.4 points of macro F1, interval "
        "-2.0 to +1.0). One comparison was asked. The verdict about these trained models is false with a chance of at "
        "most 5 %. Four of five such tests would find a true difference of about 2.3 points."
    )


def test_each_verdict_names_its_classifiers_and_what_is_not_confirmed() -> None:
    claims = [
        claim("CNN", GAIN, joint(0.02, 0.005, 0.04)),
        claim("VGG16", LOSS, NULL),
        claim("ResNet50", joint(0, -0.01, 0.01), NULL, detectable=None),
    ]

    assert answer(claims, {"synthetic": ["CNN"]}) == (
        f"{ONCE}synthetic augmentation helps CNN (+3.0 points of macro F1, interval +1.0 to +5.0; beyond oversample "
        "+2.0, +0.5 to +4.0). Synthetic augmentation hurts VGG16 (-2.0, -3.0 to -1.0). Synthetic augmentation makes no "
        "detectable difference to ResNet50 (0.0, -1.0 to +1.0). “Helps” means: better than the arm none, and better "
        "than the arm oversample, which shows as many real images over again. "
        "The exact sign test, corrected alike, does not confirm the verdict for CNN. "
        f"{CORRECTED}"
    )


def test_a_gain_that_more_real_images_give_too_is_not_called_help() -> None:
    said = answer([claim("CNN", GAIN, NULL)], {})

    assert said == (
        f"{ONCE}synthetic augmentation does better than the arm none on CNN (+3.0 points of macro F1, interval +1.0 to "
        "+5.0; beyond oversample -0.4, -2.0 to +1.0), but not detectably better than showing real images over again "
        "does. "
        f"{CORRECTED}"
    )
    assert "helps" not in said


def test_a_run_without_its_control_says_what_it_cannot_tell() -> None:
    assert answer([claim("CNN", GAIN)], {}) == (
        f"{ONCE}synthetic augmentation helps CNN (+3.0 points of macro F1, interval +1.0 to +5.0). This run did not "
        "train the control oversample. So the run cannot tell whether synthetic augmentation does more than showing as "
        f"many real images over again. {CORRECTED}"
    )


def test_each_arm_has_sentences_of_its_own() -> None:
    said = answer([claim("CNN", GAIN, GAIN), claim("CNN", GAIN, arm="classical", control="")], {})

    assert "Classical augmentation helps CNN (+3.0, +1.0 to +5.0)." in said
    assert said.count("On these test images") == said.count("comparisons were asked") == 1


def test_many_are_counted_and_not_named() -> None:
    said = answer([claim(f"network {i}", LOSS, LOSS, claims=9) for i in range(9)], {})

    assert said.startswith(
        f"{ONCE}synthetic augmentation hurts 9 of 9 classifiers (-2.0 points of macro F1 on average)"
    )
    assert "9 comparisons were asked" in said and "network" not in said


def test_a_range_of_what_could_have_been_found() -> None:
    wide = joint(0, -1, 1)
    null = [
        claim("CNN", wide, wide),
        claim("VGG16", wide, wide, detectable=0.05),
        claim("A", wide, wide, detectable=7.0),
    ]

    assert answer(null, {}).endswith("Four of five such tests would find a true difference of about 2.3 to 5.0 points.")


def test_several_seeds_are_said_and_speak_of_more_than_these_models() -> None:
    said = answer([claim("CNN", GAIN, GAIN, seeds=2)], {})

    assert said.startswith("On these test images, over 2 seeds, synthetic augmentation helps CNN")
    assert "these trained models" not in said and "the chance that any verdict is false is at most 5 %" in said


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


def test_who_lacks_the_control_is_named_beside_who_has_it() -> None:
    claims = [claim("VGG16", GAIN, joint(0.02, 0.005, 0.04)), claim("CNN", GAIN)]

    told = answer(claims, {})

    assert "“Helps” for VGG16 means: better than the arm none, and better than the arm oversample" in told
    assert "For CNN the control oversample is missing: whether synthetic augmentation does more there" in told


def test_a_gain_without_its_control_is_not_hidden_by_another_verdict() -> None:
    told = answer([claim("VGG16", NULL, NULL), claim("CNN", GAIN)], {})

    assert "“Helps”" not in told and "For CNN the control oversample is missing" in told


def test_seeds_that_failed_are_not_counted_for_all() -> None:
    told = answer([claim("VGG16", NULL, NULL, seeds=5), claim("CNN", NULL, NULL, seeds=1)], {})

    assert told.startswith("On these test images, over 1 to 5 seeds, ")
    assert "any verdict (of CNN: about the models that were trained) is false" in told
