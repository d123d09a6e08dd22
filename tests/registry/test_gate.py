"""The gate: each reason to hold a challenger back, its sentence, and that chance makes no champion."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_tasks.config import resolve
from cxr_tasks.evaluation.metrics import classification_metrics
from cxr_tasks.registry.champions import Candidate, Standing
from cxr_tasks.registry.gate import Evidence, Gate, Ruling, latency_ms

CLASSES = ["COVID", "Normal", "Viral Pneumonia"]
OPEN: dict[str, Any] = {"margin": 0.0, "min_macro_f1": None, "min_recall": None}


def table(right: np.ndarray, sure: float = 1.0) -> pd.DataFrame:
    """Predictions of 20 images of each class, of which those where ``right`` (60,) is True are right."""
    truth = np.repeat(np.arange(3), 20)
    said = np.where(right, truth, (truth + 1) % 3)
    probabilities = np.full((60, 3), (1 - sure) / 2)
    probabilities[np.arange(60), said] = sure
    names = [f"{number:02}" for number in range(60)]
    known = {"image_id": names, "split": "validation", "group": names, "label": np.array(CLASSES)[truth]}
    return pd.DataFrame(known).join(pd.DataFrame(probabilities, columns=CLASSES))


def share(right: int, sure: float = 1.0) -> pd.DataFrame:
    """Predictions of which the first ``right`` of each class are right."""
    return table(np.tile(np.arange(20) < right, 3), sure)


def gate(**limits: Any) -> Gate:
    return Gate.of(resolve("quick", {"gate": {**OPEN, **limits}}))


def candidate(predictions: pd.DataFrame) -> Candidate:
    return Candidate(
        classifier="cnn",
        role="baseline",
        arm="none",
        seed=0,
        validation_macro_f1=classification_metrics(predictions, CLASSES)["macro_f1"],
        artifact="train_arm/a",
        weights_digest="a",
        dataset="split/a",
        classes="|".join(CLASSES),
        model_uri="",
    )


def standing(predictions: pd.DataFrame, **more: Any) -> Standing:
    return Standing(classification_metrics(predictions, CLASSES)["macro_f1"], predictions, **more)


def ruled(
    predictions: pd.DataFrame,
    champion: pd.DataFrame | Standing | None = None,
    evidence: dict[str, Any] | None = None,
    **limits: Any,
) -> Ruling:
    held = standing(champion) if isinstance(champion, pd.DataFrame) else champion
    version = "" if held is None else "3"
    return gate(**limits).rule(candidate(predictions), Evidence(predictions, **(evidence or {})), version, held)


def test_the_first_champion_passes_by_floors() -> None:
    ruling = ruled(share(16), min_macro_f1=0.8, min_recall=0.8, max_ece=0.2)

    assert ruling.passed
    assert ruling.words == "First champion: it meets every floor, and there was none to beat."
    abouts = ["macro F1", *(f"recall of {name}" for name in CLASSES), "calibration"]
    assert [condition.about for condition in ruling.conditions] == abouts


REFUSED = [
    ({"min_macro_f1": 0.9}, {}, "Macro F1 is 0.800, below the floor of 0.900."),
    ({"min_recall": {"COVID": 0.9}}, {}, "The recall of COVID is 0.800, below the floor of 0.900."),
    ({"max_ece": 0.1}, {}, "The expected calibration error is 0.200, above the limit of 0.100."),
    ({"max_latency_ms": 50}, {"latency_ms": 1234.5}, "The time for one image is 1,234 ms, above the limit of 50 ms."),
    ({"max_size_mb": 50}, {"size_mb": 528.0}, "The model's size is 528 MB, above the limit of 50 MB."),
    (
        {"max_external_drop": 0.1},
        {"external_drops": {"b": 0.25}},
        "The drop of macro F1 on the external set b is 0.250, above the limit of 0.100.",
    ),
    (
        {"max_external_drop": 0.1},
        {"external_drops": {"b": None}},
        "The drop of macro F1 on the external set b is not known, and a limit is set.",
    ),
]


@pytest.mark.parametrize(("limits", "evidence", "sentence"), REFUSED)
def test_each_floor_refuses_in_a_sentence(limits: dict[str, Any], evidence: dict[str, Any], sentence: str) -> None:
    first = ruled(share(16), None, evidence, **limits)
    later = ruled(share(16), share(2), evidence, **limits)

    assert (first.passed, first.words) == (False, f"{sentence} There is no champion yet.")
    # However much better than the champion it is.
    assert (later.passed, later.words) == (False, f"{sentence} Champion 3 stays.")
    assert [condition.words for condition in first.conditions if not condition.passed] == [sentence]


def test_all_reasons_are_told_together() -> None:
    ruling = ruled(share(10), share(16), min_macro_f1=0.9, min_recall=0.6)

    assert not ruling.passed
    assert "Chance may explain that" in ruling.words
    assert ruling.words.count("below the floor") == 4 and ruling.words.endswith("Champion 3 stays.")


def test_a_class_without_validation_images_has_no_recall_to_ask_for() -> None:
    without = share(20)[lambda rows: rows["label"] != "COVID"]

    assert ruled(without, min_recall=0.9).passed


def test_a_challenger_that_is_better_beyond_chance_is_champion() -> None:
    ruling = ruled(share(18), share(10), {"picked_from": 6})

    assert ruling.passed
    assert "Macro F1 is 0.900, and that of champion 3 0.500 on the same validation images: +40.0 points, 99.17 %" in (
        ruling.words
    )
    assert ruling.words.endswith("as the best of 6 candidates.")


@pytest.mark.parametrize(("challenger", "champion"), [(17, 16), (16, 16), (15, 16)])
def test_one_that_may_be_better_by_chance_is_not(challenger: int, champion: int) -> None:
    ruling = ruled(share(challenger), share(champion))

    assert not ruling.passed
    assert ruling.words.endswith("Chance may explain that, for the interval does not begin above 0. Champion 3 stays.")


def test_the_more_candidates_it_is_the_best_of_the_more_it_must_show() -> None:
    better, champion = share(13), share(10)

    assert ruled(better, champion).passed
    assert not ruled(better, champion, {"picked_from": 1000}).passed


def test_a_margin_must_be_passed_by_the_whole_interval() -> None:
    assert ruled(share(18), share(10), margin=0.2).passed
    ruling = ruled(share(18), share(10), margin=0.35)

    assert not ruling.passed and "does not begin above 35." in ruling.words


def test_images_of_one_patient_count_once() -> None:
    better, champion = share(13), share(10)
    assert ruled(better, champion).passed

    # The images that make the difference are of one patient a class.
    grouped = [each.assign(group=np.repeat(np.arange(12), 5).astype(str)) for each in (better, champion)]

    assert not ruled(*grouped).passed


def test_validation_images_of_one_patient_tell_nothing_and_the_champion_stays() -> None:
    one_patient = [each.assign(group="p") for each in (share(18), share(10))]

    ruling = ruled(*one_patient)

    assert not ruling.passed and "which cannot be compared: The images are all of one group" in ruling.words


def test_a_champion_of_which_only_a_figure_is_known_is_beaten_by_more_than_the_margin() -> None:
    recorded = Standing(score=0.7, remark="as recorded")

    assert ruled(share(16), recorded).passed
    ruling = ruled(share(16), recorded, margin=0.15)

    assert not ruling.passed and "not more than 15 points above it, and no interval is known" in ruling.words


def test_a_champion_that_cannot_be_compared_stays() -> None:
    ruling = ruled(share(20), Standing(remark="was trained on some of these images"))

    assert not ruling.passed
    assert ruling.words == (
        "Champion 3 was trained on some of these images, so the two are not compared. Champion 3 stays."
    )


@pytest.mark.parametrize(("right", "passes"), [(18, True), (11, False)])
def test_a_figure_that_is_not_clean_is_the_best_that_the_champion_can_have(right: int, passes: bool) -> None:
    ruling = ruled(share(right), standing(share(10), is_clean=False, remark="perhaps seen"))

    assert ruling.passed == passes and "perhaps seen" in ruling.words
    assert ("a person decides" in ruling.words) == (not passes)


@pytest.mark.parametrize("recorded", [None, 0.5, 0.8, 0.9])
def test_a_champion_that_cannot_be_loaded_never_stays_or_goes_without_a_word(recorded: float | None) -> None:
    ruling = ruled(share(16), Standing(is_lost=True, recorded=recorded, remark="its files are gone"))

    assert ruling.passed == (recorded != 0.9)
    assert "Champion 3 could not be scored: its files are gone" in ruling.words
    assert ("it is replaced" in ruling.words) == ruling.passed
    assert ("give the alias champion" in ruling.words) == (not ruling.passed)


rights = st.lists(st.booleans(), min_size=60, max_size=60).map(np.array)


@settings(max_examples=40, deadline=None)
@given(rights, rights)
def test_no_champion_gives_way_to_a_challenger_of_a_lower_figure(one: np.ndarray, other: np.ndarray) -> None:
    ruling = ruled(table(one), table(other))

    if ruling.passed:
        own, champions = (classification_metrics(table(each), CLASSES)["macro_f1"] for each in (one, other))
        assert own > champions
    assert all(condition.passed for condition in ruling.conditions) == ruling.passed


def test_latency_is_that_of_a_warm_model() -> None:
    asked = []

    def predict(image: np.ndarray) -> None:
        asked.append(image.shape)

    assert 0 <= latency_ms(predict, np.zeros((1, 8, 8, 1), np.float32), times=5) < 100
    assert asked == [(1, 8, 8, 1)] * 8


def test_floors_of_classes_that_are_not_there_are_refused() -> None:
    with pytest.raises(Exception, match=r"gate.min_recall names \['Flu'\], which are not among data.classes"):
        resolve("quick", {"gate": {"min_recall": {"Flu": 0.5}}})
