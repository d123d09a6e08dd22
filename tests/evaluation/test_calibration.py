"""Temperature scaling and thresholds: known temperatures, scikit-learn's, laws, and the diagram's marks read back."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

from cxr_tasks.errors import DataError
from cxr_tasks.evaluation.calibration import (
    LEAST_PROBABILITY,
    TEMPERATURES,
    calibrate,
    fit_temperature,
    operating_points,
    reliability_bins,
    scale,
)
from cxr_tasks.evaluation.metrics import expected_calibration_error
from cxr_tasks.evaluation.plots import png_bytes
from cxr_tasks.evaluation.plots_calibration import reliability_diagrams

CLASSES = ["Normal", "COVID", "Viral Pneumonia"]


def honest(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from the very probabilities that come with them."""
    rng = np.random.default_rng(seed)
    probabilities = softmax(2 * rng.normal(size=(n, 3)), axis=1)
    return (rng.random((n, 1)) > probabilities.cumsum(axis=1)).sum(axis=1).clip(max=2), probabilities


def table(n: int, seed: int, sharpened: float = 1.0) -> pd.DataFrame:
    y, probabilities = honest(n, seed)
    return pd.DataFrame(scale(probabilities, 1 / sharpened), columns=CLASSES).assign(
        image_id=[f"image-{i}" for i in range(n)],
        split=["validation", "test"] * (n // 2),
        group=[f"patient-{i}" for i in range(n)],
        label=[CLASSES[i] for i in y],
    )


@pytest.mark.parametrize("sharpened", [0.5, 1.0, 2.5])
def test_the_temperature_undoes_what_made_the_probabilities_too_sure(sharpened: float) -> None:
    y, probabilities = honest(20_000, 0)
    assert fit_temperature(y, scale(probabilities, 1 / sharpened)) == pytest.approx(sharpened, rel=0.05)


class SavedLogits(ClassifierMixin, BaseEstimator):
    """A classifier whose input is its own output."""

    def fit(self, logits: np.ndarray, y: np.ndarray) -> "SavedLogits":
        self.classes_ = np.unique(y)
        return self

    def decision_function(self, logits: np.ndarray) -> np.ndarray:
        return logits

    def predict(self, logits: np.ndarray) -> np.ndarray:
        return self.classes_[logits.argmax(axis=1)]


@pytest.mark.parametrize(("n", "sharpened"), [(60, 0.3), (300, 1.0), (2_000, 2.5), (2_000, 6.0)])
def test_the_temperature_is_scikit_learns(n: int, sharpened: float) -> None:
    y, probabilities = honest(n, 7)
    probabilities = scale(probabilities, 1 / sharpened)
    logits = np.log(np.maximum(probabilities, LEAST_PROBABILITY))
    saved = FrozenEstimator(SavedLogits().fit(logits, y))
    reference = CalibratedClassifierCV(saved, method="temperature", cv=2).fit(logits, y).predict_proba(logits)
    # scikit-learn does not publish the temperature, but all log odds shrink by it.
    odds = np.log(reference[:, 0]) - np.log(reference[:, 1])
    theirs = np.abs(logits[:, 0] - logits[:, 1]).sum() / np.abs(odds).sum()

    ours = fit_temperature(y, probabilities)

    assert ours == pytest.approx(theirs, abs=1e-3)
    assert scale(probabilities, ours) == pytest.approx(reference, abs=1e-4)


def test_scaling_mends_the_calibration_of_test_images() -> None:
    result = calibrate(table(8_000, 1, sharpened=3.0), CLASSES)
    assert result.ece_after < 0.03 < 0.1 < result.ece_before
    assert result.nll_after < result.nll_before
    # The validation rows alone decide: the test rows' labels may be anything.
    predictions = table(400, 2)
    other = predictions.assign(label=predictions["label"].where(predictions["split"] == "validation", "COVID"))
    assert calibrate(other, CLASSES).temperature == calibrate(predictions, CLASSES).temperature


def test_a_flawless_validation_set_does_not_send_the_temperature_to_zero() -> None:
    assert fit_temperature(np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]])) == pytest.approx(
        TEMPERATURES[0], rel=0.01
    )
    certain = fit_temperature(np.array([0, 1]), np.array([[1.0, 0.0], [1.0, 0.0]]))
    assert np.isfinite(certain) and certain > 1


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(*TEMPERATURES), st.floats(0.1, 30))
def test_scaling_changes_no_prediction_and_leaves_a_distribution(seed: int, temperature: float, sure: float) -> None:
    logits = sure * np.random.default_rng(seed).normal(size=(50, 4))
    probabilities = softmax(logits, axis=1).astype(np.float32).astype(np.float64)
    scaled = scale(probabilities, temperature)
    assert (scaled.argmax(axis=1) == probabilities.argmax(axis=1)).all()
    assert scaled.sum(axis=1) == pytest.approx(1)
    assert scale(scaled, 1.0) == pytest.approx(scaled, abs=1e-9)


def test_bins_add_up_to_the_calibration_error() -> None:
    y, probabilities = honest(500, 3)
    bins = [each for each in reliability_bins(y, probabilities) if each.images]
    assert sum(each.images for each in bins) == 500
    assert all(each.low < each.confidence <= each.high for each in bins)
    error = sum(each.images * abs(each.accuracy - each.confidence) for each in bins) / 500
    assert error == pytest.approx(expected_calibration_error(y, probabilities))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 60), st.sampled_from([0.5, 0.8, 0.9, 0.95, 1.0]), st.booleans())
def test_a_threshold_is_the_largest_that_is_sensitive_enough(seed: int, n: int, target: float, ties: bool) -> None:
    predictions = table(2 * n, seed)
    if ties:
        predictions[CLASSES] = np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]])[np.arange(2 * n) % 3 % 2]
    points = operating_points(predictions, CLASSES, target)
    validation = predictions[predictions["split"] == "validation"]
    assert {point.class_name for point in points} == set(validation["label"])
    for point in points:
        scores = validation.loc[validation["label"] == point.class_name, point.class_name].to_numpy()
        scores = scores / validation.loc[validation["label"] == point.class_name, CLASSES].sum(axis=1).to_numpy()
        assert point.validation_sensitivity >= target
        assert point.validation_sensitivity == (scores >= point.threshold).mean()
        assert (scores >= np.nextafter(point.threshold, 2)).mean() < target


def test_operating_points_of_a_worked_example() -> None:
    names = ["sick", "well"]
    sick = [0.9, 0.8, 0.7, 0.2, 0.4, 0.1, 0.85, 0.75, 0.3, 0.72]
    label = ["sick"] * 4 + ["well"] * 2 + ["sick"] * 2 + ["well"] * 2
    predictions = pd.DataFrame({"sick": sick, "well": 1 - np.array(sick), "label": label}).assign(
        image_id=range(10), group=range(10), split=["validation"] * 6 + ["test"] * 4
    )
    point = operating_points(predictions, names, 0.75)[0]
    assert (point.threshold, point.validation_sensitivity, point.validation_positives) == (0.7, 0.75, 4)
    assert (point.test_sensitivity, point.test_specificity) == (1.0, 0.5)
    assert (point.test_positives, point.test_negatives) == (2, 2)
    only_sick = predictions[(predictions["split"] == "validation") | (predictions["label"] == "sick")]
    assert operating_points(only_sick, names, 0.75)[0].test_specificity is None
    with pytest.raises(ValueError, match="sensitivity"):
        operating_points(predictions, names, 0)
    with pytest.raises(DataError, match="both validation and test"):
        operating_points(predictions[predictions["split"] == "test"], names)


def test_the_diagram_shows_each_arm_with_its_errors() -> None:
    sure, calm = (calibrate(table(600, seed, sharpened), CLASSES) for seed, sharpened in ((4, 3.0), (5, 1.0)))
    figure = reliability_diagrams(sure, calm, "VGG16", ("classical", "both"))
    texts = [text.get_text() for text in figure.findobj(matplotlib.text.Text)]
    for arm, calibration in (("classical", sure), ("both", calm)):
        (heading,) = (text for text in texts if text.startswith(arm + "\n"))
        assert f"ECE {100 * calibration.ece_before:.1f} points; {100 * calibration.ece_after:.1f} after" in heading
    heights = [bar.get_height() for bar in figure.axes[2].patches]
    assert heights == [each.images for each in sure.bins]
    accuracies = [each.accuracy for each in sure.bins if each.images]
    assert [bar.get_height() for bar in figure.axes[0].containers[0]] == pytest.approx(accuracies)
    assert png_bytes(figure) == png_bytes(reliability_diagrams(sure, calm, "VGG16", ("classical", "both")))
