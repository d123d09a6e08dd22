"""Measures one arm from its saved predictions, and checks prediction tables.

``comparison`` compares two arms, and ``plots`` draws.

A prediction table has one row an image: ``image_id``, ``split`` ("validation" or "test"), ``group`` (patient or
duplicate cluster), ``label``, and one probability column for each class, named as the class. Classes keep the order in
which they are passed. The predicted class is the class of highest probability, and the first of them on a tie.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
    roc_auc_score,
)

from cxr_tasks.errors import DataError
from cxr_tasks.names import slug

PREDICTED_SPLITS = ("validation", "test")
KEY_COLUMNS = ("image_id", "split", "group", "label")
ECE_BINS = 15

# A softmax computed in half precision sums to 1 within about this much.
PROBABILITY_TOLERANCE = 1e-2


def check_predictions(table: pd.DataFrame, classes: Sequence[str]) -> None:
    """Raise if ``table`` is not a prediction table for ``classes``.

    Raises:
        DataError: The message names the first fault found: a missing column, no rows, a missing value, an image listed
            twice, an unknown split or label, or probabilities that are not a distribution.
    """
    if len({slug(name) for name in classes}) != len(classes) or len(classes) < 2:
        raise DataError(f"At least two classes with distinguishable names are needed, not {list(classes)}.")
    missing = [column for column in (*KEY_COLUMNS, *classes) if column not in table.columns]
    if missing:
        raise DataError(f"The prediction table lacks the columns {missing}.")
    if table.empty:
        raise DataError("The prediction table has no rows.")
    for column in KEY_COLUMNS:
        if table[column].isna().any():
            empty = int(table[column].isna().sum())
            raise DataError(f"The prediction table has {empty} rows without {column}.")
    repeated = int(table["image_id"].duplicated().sum())
    if repeated:
        raise DataError(f"The prediction table lists {repeated} images more than once.")
    for column, allowed in (("split", PREDICTED_SPLITS), ("label", tuple(classes))):
        unknown = sorted(set(table[column]) - set(allowed))
        if unknown:
            raise DataError(f"The {column}s {unknown[:5]} are not among {list(allowed)}.")
    _check_probabilities(table, classes)


def _check_probabilities(table: pd.DataFrame, classes: Sequence[str]) -> None:
    """Raise if a row's class probabilities are not a distribution."""
    not_numeric = [name for name in classes if not pd.api.types.is_numeric_dtype(table[name])]
    if not_numeric:
        raise DataError(f"The probabilities in the columns {not_numeric} are not numbers.")
    probabilities = table[list(classes)].to_numpy(dtype=np.float64)
    # Written so that NaN, for which every comparison is false, counts as bad.
    good = (probabilities >= 0).all(axis=1) & (np.abs(probabilities.sum(axis=1) - 1) <= PROBABILITY_TOLERANCE)
    if not good.all():
        bad = int((~good).sum())
        raise DataError(f"In {bad} rows the class probabilities are not numbers from 0 to 1 that sum to 1.")


def encode(
    table: pd.DataFrame, classes: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Turn a table that ``check_predictions`` accepts into arrays.

    Returns:
        True classes (n,) and predicted classes (n,) as indices, and probabilities (n, classes) that sum to 1.
    """
    index = {name: position for position, name in enumerate(classes)}
    y_true = np.array([index[label] for label in table["label"]], dtype=np.int64)
    raw = table[list(classes)].to_numpy(dtype=np.float64)
    return y_true, raw.argmax(axis=1), raw / raw.sum(axis=1, keepdims=True)


def confusion(table: pd.DataFrame, classes: Sequence[str]) -> NDArray[np.int64]:
    """Confusion counts (classes, classes), true classes as rows, both axes in the order of ``classes``."""
    check_predictions(table, classes)
    y_true, y_pred, _ = encode(table, classes)
    return confusion_matrix(y_true, y_pred, labels=range(len(classes)))


def per_class_table(table: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Precision, recall, f1 (0 to 1), support, TP, TN, FP and FN (images), one row a class, in order.

    A ratio whose denominator is 0 counts as 0.
    """
    check_predictions(table, classes)
    y_true, y_pred, _ = encode(table, classes)
    labels = range(len(classes))
    precision, recall, f1, support = precision_recall_fscore_support(y_true, y_pred, labels=labels, zero_division=0)
    counts = confusion_matrix(y_true, y_pred, labels=labels)
    true_positive = counts.diagonal()
    false_positive = counts.sum(axis=0) - true_positive
    false_negative = counts.sum(axis=1) - true_positive
    return pd.DataFrame(
        {
            "precision": precision,
            "recall": recall,
            "f1": f1,
            "support": support,
            "TP": true_positive,
            "TN": counts.sum() - true_positive - false_positive - false_negative,
            "FP": false_positive,
            "FN": false_negative,
        },
        index=pd.Index(classes, name="class"),
    )


def confidence_bins(confidence: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """The bin (n,) of each confidence (n,) among ``bins`` of equal width, open below and closed above."""
    return np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)


def expected_calibration_error(
    y_true: NDArray[np.int64], probabilities: NDArray[np.float64], bins: int = ECE_BINS
) -> float:
    """Mean gap between confidence and accuracy, 0 to 1, over bins of the predicted class's probability.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == y_true
    gaps = np.bincount(confidence_bins(confidence, bins), weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(y_true))


def classification_metrics(table: pd.DataFrame, classes: Sequence[str]) -> dict[str, float]:
    """All metrics of the rows in ``table``, with names that MLflow takes as they are.

    A ratio whose denominator is 0 counts as 0. A class that no image or every image belongs to has no AUROC. The key
    of that class is then missing, and so is ``macro_auroc``.

    Returns:
        ``accuracy``, ``macro_precision``, ``macro_recall``, ``macro_f1`` (0 to 1); ``nll`` (mean negative log
        likelihood, nats); ``brier`` (Brier 1950, summed over classes: 0 to 2); ``ece`` (0 to 1, 15 bins);
        ``macro_auroc`` (0 to 1, the mean over classes). For each class, followed by its ``slug``: ``auroc_`` (the class
        against the rest), ``precision_``, ``recall_``, ``f1_`` (0 to 1), ``support_``, ``tp_``, ``tn_``, ``fp_``,
        ``fn_`` (images).

    Raises:
        DataError: ``table`` is not a prediction table for ``classes``.
    """
    by_class = per_class_table(table, classes)
    y_true, y_pred, probabilities = encode(table, classes)
    # Indices, not names: scikit-learn takes probability columns to be in sorted order of the labels.
    labels = range(len(classes))
    metrics = {
        "accuracy": float(accuracy_score(y_true, y_pred)),
        "macro_precision": float(by_class["precision"].mean()),
        "macro_recall": float(by_class["recall"].mean()),
        "macro_f1": float(by_class["f1"].mean()),
        "nll": float(log_loss(y_true, probabilities, labels=labels)),
        "brier": float(brier_score_loss(y_true, probabilities, labels=labels, scale_by_half=False)),
        "ece": expected_calibration_error(y_true, probabilities),
    }
    aurocs = {
        f"auroc_{slug(name)}": float(roc_auc_score(y_true == index, probabilities[:, index]))
        for index, name in enumerate(classes)
        if 0 < (y_true == index).sum() < len(y_true)
    }
    metrics |= aurocs
    if len(aurocs) == len(classes):
        metrics["macro_auroc"] = float(np.mean(list(aurocs.values())))
    for column in by_class.columns:
        for name in classes:
            metrics[f"{column.lower()}_{slug(name)}"] = float(by_class.loc[name, column])
    return metrics
