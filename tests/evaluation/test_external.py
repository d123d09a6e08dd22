"""A model on another source: figures against scikit-learn, and the interval of the drop against simulated tests."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score

from cxr_tasks.errors import DataError
from cxr_tasks.evaluation.external import external_findings

CLASSES = ["COVID", "Normal", "Viral Pneumonia"]
HOW = {"bootstrap_samples": 300, "confidence": 0.95, "seed": 0}


def table(seed: int, images: int, right: float, classes=CLASSES) -> pd.DataFrame:
    """Predictions of which the share ``right`` is, two images a patient."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(len(classes), size=images)
    truth = np.array([CLASSES.index(classes[each]) for each in truth])
    said = np.where(rng.random(images) < right, truth, (truth + rng.integers(1, 3, size=images)) % 3)
    rows = pd.DataFrame({"image_id": [f"{seed}-{n}" for n in range(images)], "split": "test"})
    rows["group"] = [f"{seed}-{n // 2}" for n in range(images)]
    rows["label"] = np.array(CLASSES)[truth]
    rows[CLASSES] = np.eye(3)[said] * 0.8 + 0.2 / 3
    return rows


def said(rows: pd.DataFrame) -> list[str]:
    return rows[CLASSES].idxmax(axis=1).tolist()


def test_figures_are_those_of_scikit_learn_and_the_drop_is_their_difference():
    outside, inside = table(0, 80, 0.6), table(1, 120, 0.9)

    found = external_findings(outside, inside, CLASSES, **HOW)

    assert (found.images, found.groups, found.internal_images) == (80, 40, 120)
    assert found.macro_f1.value == pytest.approx(f1_score(outside["label"], said(outside), average="macro"))
    assert found.accuracy.value == pytest.approx(accuracy_score(outside["label"], said(outside)))
    inner = f1_score(inside["label"], said(inside), average="macro")
    assert found.internal_macro_f1.value == pytest.approx(inner)
    assert found.macro_f1_drop.value == pytest.approx(inner - found.macro_f1.value)
    assert 0 < found.macro_f1_drop.low < found.macro_f1_drop.value < found.macro_f1_drop.high
    assert found.accuracy_drop.low > 0 and found.metrics["macro_f1"] == pytest.approx(found.macro_f1.value)


def test_where_a_class_is_not_there_the_internal_test_is_of_the_others_too():
    outside, inside = table(0, 60, 0.8, CLASSES[:2]), table(1, 120, 0.9)
    beside = inside[inside["label"].isin(CLASSES[:2])]

    found = external_findings(outside, inside, CLASSES, **HOW)

    assert found.classes == CLASSES[:2] and found.internal_images == len(beside)
    scores = f1_score(beside["label"], said(beside), average=None, labels=CLASSES[:2])
    assert found.internal_macro_f1.value == pytest.approx(scores.mean())


def test_without_an_internal_test_there_is_no_drop():
    found = external_findings(table(0, 60, 0.8), None, CLASSES, **HOW)

    assert found.macro_f1_drop is None and found.internal_macro_f1 is None and found.internal_images == 0


def test_a_set_of_one_patient_has_no_interval():
    with pytest.raises(DataError, match="one group"):
        external_findings(table(0, 20, 0.8).assign(group="a"), None, CLASSES, **HOW)


def test_the_interval_of_the_drop_holds_the_truth_as_often_as_it_says():
    found = [external_findings(table(n, 100, 0.7), table(1000 + n, 100, 0.9), CLASSES, **HOW) for n in range(60)]

    held = sum(each.accuracy_drop.low <= 0.2 <= each.accuracy_drop.high for each in found)
    assert held >= 53
