"""A model that needs the lungs and one that does not."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score

from cxr_tasks.errors import DataError
from cxr_tasks.evaluation.shortcuts import BlankedLungs, blanked_lungs

CLASSES = ["COVID", "Normal", "Viral Pneumonia"]


def table(accuracy: float, n: int = 300, seed: int = 0, classes: int = 3) -> pd.DataFrame:
    """Test images of which this share is classified right, the others as any class but the right one."""
    y = np.random.default_rng(1).integers(classes, size=n)
    rng = np.random.default_rng([seed, int(1000 * accuracy)])
    predicted = np.where(rng.permutation(n) < accuracy * n, y, (y + rng.integers(1, 3, size=n)) % 3)
    return pd.DataFrame(np.eye(3)[predicted], columns=CLASSES).assign(
        image_id=[f"image-{i}" for i in range(n)],
        split="test",
        group=[f"patient-{i // 2}" for i in range(n)],
        label=[CLASSES[i] for i in y],
    )


def judged(full: float, lungs_blanked: float, **changes) -> BlankedLungs:
    tables = [table(accuracy, **changes) for accuracy in (full, lungs_blanked, 0.8)]
    return blanked_lungs(*tables, CLASSES, bootstrap_samples=300, confidence=0.95, seed=3)


def test_a_model_that_does_not_need_the_lungs_is_warned_of() -> None:
    result = judged(0.95, 0.75)
    full, blanked = table(0.95), table(0.75)
    for score, predictions in ((result.full, full), (result.lungs_blanked, blanked)):
        expected = balanced_accuracy_score(predictions["label"], predictions[CLASSES].idxmax(axis=1))
        assert score.balanced_accuracy == pytest.approx(expected)
        assert 0 <= score.low < expected < score.high <= 1
    assert result.chance == pytest.approx(1 / 3)
    assert result.kept == pytest.approx(0.65, abs=0.1)
    assert result.warning is not None and "with the lungs blanked" in result.warning
    assert f"{100 * result.lungs_blanked.balanced_accuracy:.1f} %" in result.warning
    assert (result.images, result.groups) == (300, 150)


@pytest.mark.parametrize(
    ("full", "blanked", "why"),
    [
        (0.95, 1 / 3, "chance"),
        (0.95, 0.50, "above chance, but less than half is kept"),
        (0.42, 0.40, "most is kept, but it may be chance"),
        (0.10, 0.40, "the full images give nothing"),
    ],
)
def test_no_warning_without_need(full: float, blanked: float, why: str) -> None:
    images = 300 if blanked == 0.5 else 60
    assert judged(full, blanked, n=images).warning is None, why


def test_chance_is_about_the_classes_that_are_there() -> None:
    assert judged(0.9, 0.5, classes=2).chance == 0.5


def test_tables_of_other_images_are_refused() -> None:
    whole = table(0.9)
    with pytest.raises(DataError, match="1 images are in only one"):
        blanked_lungs(whole, whole.iloc[1:], whole, CLASSES, bootstrap_samples=10, confidence=0.9, seed=0)
    validation = whole.assign(split="validation")
    with pytest.raises(DataError, match="has none"):
        blanked_lungs(*[validation] * 3, CLASSES, bootstrap_samples=10, confidence=0.9, seed=0)
