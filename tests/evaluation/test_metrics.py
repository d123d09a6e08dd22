"""Metrics against scikit-learn called plainly, and what a prediction table may not be."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import classification_report, log_loss, roc_auc_score

from cxr_tasks.errors import DataError
from cxr_tasks.evaluation.metrics import (
    check_predictions,
    classification_metrics,
    confusion,
    expected_calibration_error,
    per_class_table,
    slug,
)

# Not in sorted order, so that a mix-up of columns and sorted labels shows.
CLASSES = ["Normal", "COVID", "Viral Pneumonia"]


def predictions(n: int = 200, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    y = rng.integers(len(CLASSES), size=n)
    logits = rng.normal(size=(n, len(CLASSES)))
    logits[np.arange(n), y] += 1.0
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    table = pd.DataFrame(probabilities.astype(np.float32), columns=CLASSES)
    return table.assign(
        image_id=[f"image-{i}" for i in range(n)],
        split="test",
        group=[f"patient-{i // 2}" for i in range(n)],
        label=[CLASSES[i] for i in y],
    )


def test_metrics_agree_with_scikit_learn() -> None:
    table = predictions()
    probabilities = table[CLASSES].to_numpy(dtype=float)
    predicted = [CLASSES[i] for i in probabilities.argmax(axis=1)]
    reference = classification_report(table["label"], predicted, labels=CLASSES, output_dict=True)

    metrics = classification_metrics(table, CLASSES)

    assert metrics["accuracy"] == pytest.approx(reference["accuracy"])
    for ours, theirs in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
        assert metrics[f"macro_{ours}"] == pytest.approx(reference["macro avg"][theirs])
        for name in CLASSES:
            assert metrics[f"{ours}_{slug(name)}"] == pytest.approx(reference[name][theirs])
    # scikit-learn's log loss wants its columns in sorted order of the labels.
    in_order = table[sorted(CLASSES)].to_numpy(dtype=float)
    expected = log_loss(table["label"], in_order / in_order.sum(axis=1, keepdims=True))
    assert metrics["nll"] == pytest.approx(expected, rel=1e-5)
    one_hot = (table["label"].to_numpy()[:, None] == np.array(CLASSES)).astype(float)
    assert metrics["brier"] == pytest.approx(((probabilities - one_hot) ** 2).sum(axis=1).mean(), rel=1e-5)


def test_auroc_is_scikit_learns_and_left_out_where_there_is_none() -> None:
    table = predictions()
    metrics = classification_metrics(table, CLASSES)
    in_order = table[sorted(CLASSES)].to_numpy(dtype=float)
    in_order = in_order / in_order.sum(axis=1, keepdims=True)
    reference = roc_auc_score(table["label"], in_order, multi_class="ovr", average=None, labels=sorted(CLASSES))
    for name, value in zip(sorted(CLASSES), reference, strict=True):
        assert metrics[f"auroc_{slug(name)}"] == pytest.approx(value)
    assert metrics["macro_auroc"] == pytest.approx(np.mean(reference))

    two = classification_metrics(table[table["label"] != "COVID"], CLASSES)
    assert {key for key in two if "auroc" in key} == {"auroc_Normal", "auroc_Viral_Pneumonia"}
    one = classification_metrics(table[table["label"] == "COVID"], CLASSES)
    assert not {key for key in one if "auroc" in key}


def test_counts_per_class_add_up() -> None:
    table = predictions()
    counts = confusion(table, CLASSES)
    by_class = per_class_table(table, CLASSES)

    assert list(by_class.index) == CLASSES
    assert (by_class[["TP", "TN", "FP", "FN"]].sum(axis=1) == len(table)).all()
    assert (by_class["TP"] + by_class["FN"] == by_class["support"]).all()
    assert by_class["TP"].sum() == counts.trace()
    assert (counts.sum(axis=1) == by_class["support"]).all()
    assert set(classification_metrics(table, CLASSES)) >= {"tp_Viral_Pneumonia", "fn_COVID", "support_Normal"}


def test_the_source_reports_table_follows_from_its_true_positives() -> None:
    """VGG16 in the source report: TP 333, 998, 113; FP 11, 58, 3 of 380, 1012 and 124 test images."""
    classes = ["COVID", "Normal", "Viral Pneumonia"]
    # Off the diagonal only the margins are published; this is the one matrix of whole numbers that has them
    # with no COVID image taken for Viral Pneumonia.
    counts = np.array([[333, 47, 0], [11, 998, 3], [0, 11, 113]])
    rows = [(classes[i], np.eye(3)[j]) for i in range(3) for j in range(3) for _ in range(int(counts[i, j]))]
    table = pd.DataFrame([row[1] for row in rows], columns=classes).assign(
        image_id=[str(i) for i in range(len(rows))], split="test", group="g", label=[row[0] for row in rows]
    )
    by_class = per_class_table(table, classes)
    assert by_class.loc["COVID", ["TP", "TN", "FP", "FN"]].tolist() == [333, 1125, 11, 47]
    assert by_class.loc["Normal", ["TP", "TN", "FP", "FN"]].tolist() == [998, 446, 58, 14]
    assert by_class.loc["Viral Pneumonia", ["TP", "TN", "FP", "FN"]].tolist() == [113, 1389, 3, 11]
    assert 100 * classification_metrics(table, classes)["accuracy"] == pytest.approx(95.25, abs=0.005)


def test_calibration_error_of_known_cases() -> None:
    truth = np.array([0, 0, 0, 1])
    sure = np.tile([0.75, 0.25], (4, 1))
    assert expected_calibration_error(truth, sure) == pytest.approx(0.0)
    assert expected_calibration_error(truth, np.tile([1.0, 0.0], (4, 1))) == pytest.approx(0.25)
    # Too timid at 0.6 and too sure at 1.0: the two bins must not make up for each other.
    mixed = np.array([[0.6, 0.4], [0.6, 0.4], [1.0, 0.0], [1.0, 0.0]])
    assert expected_calibration_error(truth, mixed) == pytest.approx(0.5 * 0.4 + 0.5 * 0.5)


def test_a_class_that_is_absent_counts_as_zero() -> None:
    table = predictions(20)
    table = table[table["label"] != "COVID"]
    metrics = classification_metrics(table, CLASSES)
    assert metrics["support_COVID"] == metrics["recall_COVID"] == metrics["f1_COVID"] == 0.0
    assert np.isfinite(list(metrics.values())).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_order_of_rows_and_columns_changes_nothing(seed: int) -> None:
    table = predictions(60, seed)
    shuffled = table.sample(frac=1, random_state=seed % 1000)[sorted(table.columns)]
    assert classification_metrics(shuffled, CLASSES) == pytest.approx(classification_metrics(table, CLASSES))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda t: t.drop(columns="group"), "lacks the columns"),
        (lambda t: t.drop(columns="COVID"), "COVID"),
        (lambda t: t.iloc[:0], "no rows"),
        (lambda t: t.assign(image_id="same"), "more than once"),
        (lambda t: t.assign(split="training"), "training"),
        (lambda t: t.assign(label="Lung_Opacity"), "Lung_Opacity"),
        (lambda t: t.assign(group=None), "without group"),
        (lambda t: t.assign(COVID=np.nan), "200 rows"),
        (lambda t: t.assign(COVID=t["COVID"] + 0.1), "200 rows"),
        (lambda t: t.assign(COVID="high"), "not numbers"),
    ],
)
def test_a_bad_table_is_refused_in_words(spoil: Callable[[pd.DataFrame], pd.DataFrame], words: str) -> None:
    with pytest.raises(DataError, match=words):
        check_predictions(spoil(predictions()), CLASSES)


def test_classes_that_would_share_a_metric_name_are_refused() -> None:
    with pytest.raises(DataError, match="distinguishable"):
        check_predictions(predictions(), ["Viral Pneumonia", "Viral_Pneumonia"])
