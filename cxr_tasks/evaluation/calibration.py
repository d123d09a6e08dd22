"""Asks whether an arm's probabilities can be trusted, and where to cut them.

Validation images fit every parameter, and test images measure the result. Both come in a prediction table, which
``metrics`` describes. ``plots_calibration`` draws the result.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.metrics import log_loss

from cxr_tasks.errors import DataError
from cxr_tasks.evaluation.metrics import (
    ECE_BINS,
    check_predictions,
    confidence_bins,
    encode,
    expected_calibration_error,
)
from cxr_tasks.strict import Strict

# No classifier needs a temperature beyond these. Without the limits, validation images that are all classified right
# would send the temperature to 0.
TEMPERATURES = (0.05, 20.0)

# log 0 is not finite; a probability that underflowed counts as this one.
LEAST_PROBABILITY = 1e-12

SENSITIVITY = 0.95

# What ``metrics.encode`` returns: true classes, predicted classes and probabilities.
Encoded = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]


class ReliabilityBin(Strict):
    """The test images whose highest probability lies in (low, high].

    Attributes:
        accuracy: The share classified right, 0 to 1; None without images.
        confidence: The mean of the highest probabilities, 0 to 1; None without images.
    """

    low: float
    high: float
    images: int
    accuracy: float | None
    confidence: float | None


class Calibration(Strict):
    """Temperature scaling of one arm. Validation images fit the temperature; all other figures are about test images.

    Attributes:
        temperature: Above 1 where the arm was too sure of itself.
        ece_before: Expected calibration error of the arm's own probabilities, 0 to 1.
        ece_after: Expected calibration error of the scaled probabilities, 0 to 1.
        nll_before: Mean negative log likelihood of the arm's own probabilities, in nats.
        nll_after: Mean negative log likelihood of the scaled probabilities, in nats.
        bins: The arm's own probabilities, before scaling.
    """

    temperature: float
    ece_before: float
    ece_after: float
    nll_before: float
    nll_after: float
    bins: list[ReliabilityBin]


class OperatingPoint(Strict):
    """One class against the rest, called present where its probability is at least ``threshold``.

    Attributes:
        validation_sensitivity: The share of the class's validation images that the threshold finds, 0 to 1.
        validation_positives: Validation images of the class.
        test_sensitivity: The share of the class's test images that the threshold finds; None where there are none.
        test_specificity: The share of the other test images that the threshold leaves; None where there are none.
        test_positives: Test images of the class.
        test_negatives: Test images of the other classes.
    """

    class_name: str
    threshold: float
    validation_sensitivity: float
    validation_positives: int
    test_sensitivity: float | None
    test_specificity: float | None
    test_positives: int
    test_negatives: int


def fit_temperature(y_true: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    """The temperature, 0.05 to 20, of least negative log likelihood.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2. The likelihood's negative logarithm
    is convex in 1/T, so a bounded search in log T finds the only minimum. scikit-learn's ``CalibratedClassifierCV``
    finds the same temperature, but needs a classifier, at least two images of each class, and knows no bounds.

    Args:
        y_true: True classes (n,), as indices.
        probabilities: Class probabilities (n, classes).
    """

    def nll(log_temperature: float) -> float:
        return _nll(y_true, scale(probabilities, np.exp(log_temperature)))

    return float(np.exp(minimize_scalar(nll, bounds=np.log(TEMPERATURES), method="bounded").x))


def scale(probabilities: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Probabilities (n, classes) at another temperature. The predicted class stays the same.

    The result is the softmax of log p / T. Log probabilities differ from logits by a constant, which softmax takes out.
    """
    return softmax(np.log(np.maximum(probabilities, LEAST_PROBABILITY)) / temperature, axis=1)


def calibrate(table: pd.DataFrame, classes: Sequence[str]) -> Calibration:
    """Fit the temperature on the validation rows, and measure what scaling does to the test rows.

    Raises:
        DataError: ``table`` is not a prediction table with both validation and test rows.
    """
    (y_valid, _, p_valid), (y_test, _, p_test) = _validation_and_test(table, classes)
    temperature = fit_temperature(y_valid, p_valid)
    scaled = scale(p_test, temperature)
    return Calibration(
        temperature=temperature,
        ece_before=expected_calibration_error(y_test, p_test),
        ece_after=expected_calibration_error(y_test, scaled),
        nll_before=_nll(y_test, p_test),
        nll_after=_nll(y_test, scaled),
        bins=reliability_bins(y_test, p_test),
    )


def reliability_bins(
    y_true: NDArray[np.int64], probabilities: NDArray[np.float64], bins: int = ECE_BINS
) -> list[ReliabilityBin]:
    """The bins over which ``metrics.expected_calibration_error`` sums, in order."""
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == y_true
    bin_of = confidence_bins(confidence, bins)
    rows = []
    for index in range(bins):
        inside = bin_of == index
        rows.append(
            ReliabilityBin(
                low=index / bins,
                high=(index + 1) / bins,
                images=int(inside.sum()),
                accuracy=float(correct[inside].mean()) if inside.any() else None,
                confidence=float(confidence[inside].mean()) if inside.any() else None,
            )
        )
    return rows


def operating_points(
    table: pd.DataFrame, classes: Sequence[str], sensitivity: float = SENSITIVITY
) -> list[OperatingPoint]:
    """The largest threshold of each class that finds the share ``sensitivity`` of its validation images.

    A class without validation images gets no threshold and is left out.

    Raises:
        DataError: ``table`` is not a prediction table with both validation and test rows.
        ValueError: ``sensitivity`` is not above 0 and at most 1.
    """
    if not 0 < sensitivity <= 1:
        raise ValueError(f"a sensitivity lies above 0 and at most at 1; got {sensitivity}")
    (y_valid, _, p_valid), (y_test, _, p_test) = _validation_and_test(table, classes)
    found = []
    for index, name in enumerate(classes):
        positive = np.sort(p_valid[y_valid == index, index])
        if not len(positive):
            continue
        # The largest threshold is the score of one of the n positives; at most (1 - sensitivity) n may lie below.
        # The small term makes up for the product's rounding error.
        threshold = float(positive[int((1 - sensitivity) * len(positive) + 1e-9)])
        called, present = p_test[:, index] >= threshold, y_test == index
        found.append(
            OperatingPoint(
                class_name=name,
                threshold=threshold,
                validation_sensitivity=float((positive >= threshold).mean()),
                validation_positives=len(positive),
                test_sensitivity=float(called[present].mean()) if present.any() else None,
                test_specificity=float((~called[~present]).mean()) if not present.all() else None,
                test_positives=int(present.sum()),
                test_negatives=int((~present).sum()),
            )
        )
    return found


def _validation_and_test(table: pd.DataFrame, classes: Sequence[str]) -> tuple[Encoded, Encoded]:
    """The validation rows and the test rows, encoded."""
    check_predictions(table, classes)
    validation, test = (table[table["split"] == split] for split in ("validation", "test"))
    if validation.empty or test.empty:
        raise DataError("Calibration needs both validation and test images.")
    return encode(validation, classes), encode(test, classes)


def _nll(y_true: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    """Mean negative log likelihood, in nats."""
    return float(log_loss(y_true, probabilities, labels=range(probabilities.shape[1])))
