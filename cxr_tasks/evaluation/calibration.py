"""Whether an arm's probabilities can be taken at their word, and where to cut them.

Everything is fitted on validation images and measured on test images. Works on prediction tables as
``metrics`` describes them; drawing is in ``figures_calibration``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.metrics import log_loss

from cxr_tasks.errors import DataError
from cxr_tasks.evaluation.metrics import ECE_BINS, check_predictions, encode, expected_calibration_error

# Sharper or flatter than this no classifier is by accident; validation images that are all classified right would
# otherwise send the temperature to 0.
TEMPERATURES = (0.05, 20.0)

# log 0 is not finite; a probability that underflowed counts as this one.
LEAST_PROBABILITY = 1e-12

SENSITIVITY = 0.95


class ReliabilityBin(BaseModel):
    """Test images whose top probability lies in (low, high]; accuracy and mean confidence are None without any."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: float
    high: float
    images: int
    accuracy: float | None
    confidence: float | None


class Calibration(BaseModel):
    """Temperature scaling of one arm: ``temperature`` is fitted on validation images, the rest is about test images.

    A temperature above 1 says that the arm was too sure of itself. ECE is 0 to 1, NLL in nats. ``bins`` are
    the arm's own probabilities, before scaling.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float
    ece_before: float
    ece_after: float
    nll_before: float
    nll_after: float
    bins: list[ReliabilityBin]


class OperatingPoint(BaseModel):
    """One class against the rest, called present where its probability is at least ``threshold``.

    Sensitivity and specificity are 0 to 1; those of the test set are None where it has no image of the class,
    or none outside it. ``positives`` and ``negatives`` count images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

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

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2. The NLL is convex in 1/T,
    so that a bounded search in log T finds its only minimum.
    """

    def nll(log_temperature: float) -> float:
        return _nll(y_true, scale(probabilities, np.exp(log_temperature)))

    return float(np.exp(minimize_scalar(nll, bounds=np.log(TEMPERATURES), method="bounded").x))


def scale(probabilities: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Probabilities (n, classes) at another temperature; the predicted class stays the same.

    The softmax of log p / T: logits are the log probabilities but for a constant, which softmax takes out.
    """
    return softmax(np.log(np.maximum(probabilities, LEAST_PROBABILITY)) / temperature, axis=1)


def calibrate(table: pd.DataFrame, classes: Sequence[str]) -> Calibration:
    """Fit the temperature on the validation rows and say what it does to the test rows.

    Raises
    ------
    DataError
        If ``table`` is not a prediction table with both validation and test rows.
    """
    (y_valid, _, p_valid), (y_test, _, p_test) = _splits(table, classes)
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
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
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
    """For each class the largest threshold that finds at least the share ``sensitivity`` of its validation images.

    A class without validation images gets no threshold and is left out.

    Raises
    ------
    DataError
        If ``table`` is not a prediction table with both validation and test rows.
    ValueError
        If ``sensitivity`` is not above 0 and at most 1.
    """
    if not 0 < sensitivity <= 1:
        raise ValueError(f"a sensitivity lies above 0 and at most at 1; got {sensitivity}")
    (y_valid, _, p_valid), (y_test, _, p_test) = _splits(table, classes)
    points = []
    for index, name in enumerate(classes):
        positive = np.sort(p_valid[y_valid == index, index])
        if not len(positive):
            continue
        # The largest threshold is a positive's own score: of n, at most (1 - sensitivity) n may lie below it. The
        # small term takes back what floating point adds to the product.
        threshold = float(positive[int((1 - sensitivity) * len(positive) + 1e-9)])
        called, present = p_test[:, index] >= threshold, y_test == index
        points.append(
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
    return points


Encoded = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]


def _splits(table: pd.DataFrame, classes: Sequence[str]) -> tuple[Encoded, Encoded]:
    """``metrics.encode`` of the validation and of the test rows."""
    check_predictions(table, classes)
    validation, test = (table[table["split"] == split] for split in ("validation", "test"))
    if validation.empty or test.empty:
        raise DataError("Calibration needs both validation and test images.")
    return encode(validation, classes), encode(test, classes)


def _nll(y_true: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    return float(log_loss(y_true, probabilities, labels=range(probabilities.shape[1])))
