"""Figures by subgroup against scikit-learn and the whole, their intervals against simulated tests, gaps and changes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, recall_score

from cxr_tasks.config import EvaluationSettings, resolve
from cxr_tasks.errors import DataError
from cxr_tasks.evaluation.metrics import classification_metrics
from cxr_tasks.evaluation.subgroups import subgroup_changes, subgroup_findings

CLASSES = ["COVID", "Normal", "Viral Pneumonia"]
SETTINGS = resolve("quick", {"evaluation": {"bootstrap_samples": 200}}).evaluation


def table(right: float | np.ndarray, n: int = 120, seed: int = 0, per_group: int = 1) -> pd.DataFrame:
    """Predictions of test images, of which a share of ``right`` is classified right."""
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % 3
    said = np.where(rng.random(n) < right, truth, (truth + rng.integers(1, 3, size=n)) % 3)
    rows = pd.DataFrame(np.eye(3)[said] * 0.7 + 0.1, columns=CLASSES)
    ids = [f"{i:05}" for i in range(n)]
    groups = [f"{i // (3 * per_group)}-{i % 3}" for i in range(n)] if per_group > 1 else ids
    return rows.assign(image_id=ids, split="test", group=groups, label=np.array(CLASSES)[truth])


def divided(rows: pd.DataFrame, **attributes: object) -> pd.DataFrame:
    """The subgroups of images, as the manifest gives them."""
    found = pd.DataFrame(attributes, index=pd.Index(rows["image_id"], name="image_id"))
    return found.replace("", np.nan).astype("category")


def sexes(n: int = 120) -> np.ndarray:
    """F and M for images that are of each class in turn."""
    return np.where(np.arange(n) // 3 % 2 == 0, "F", "M")


def with_least(groups: int) -> EvaluationSettings:
    return SETTINGS.model_copy(update={"subgroups": SETTINGS.subgroups.model_copy(update={"min_groups": groups})})


def said(rows: pd.DataFrame) -> pd.Series:
    return rows[CLASSES].idxmax(axis=1)


def test_figures_are_those_of_scikit_learn_on_the_images_of_the_subgroup() -> None:
    rows = table(0.7)
    found = subgroup_findings([rows], divided(rows, sex=sexes()), CLASSES, SETTINGS, 0)

    assert found is not None and [row.subgroup for row in found.attributes[0].rows] == ["F", "M"]
    for row, inside in zip(found.attributes[0].rows, (rows[sexes() == "F"], rows[sexes() == "M"]), strict=True):
        assert (row.images, row.groups, row.by_class) == (60, 60, dict.fromkeys(CLASSES, 20))
        assert row.balanced_accuracy.value == pytest.approx(balanced_accuracy_score(inside["label"], said(inside)))
        assert row.accuracy.value == pytest.approx(accuracy_score(inside["label"], said(inside)))
        assert row.macro_f1 == pytest.approx(f1_score(inside["label"], said(inside), average="macro"))
        recalls = recall_score(inside["label"], said(inside), average=None, labels=CLASSES)
        assert [row.sensitivity[label].value for label in CLASSES] == pytest.approx(recalls)
        assert row.balanced_accuracy.low < row.balanced_accuracy.value < row.balanced_accuracy.high


def test_a_subgroup_without_a_class_is_measured_on_the_others() -> None:
    rows = table(0.7)
    sites = np.where(rows["label"] == "Normal", "A", np.where(sexes() == "F", "A", "B"))
    found = subgroup_findings([rows], divided(rows, site=sites), CLASSES, SETTINGS, 0)

    assert found is not None and found.gap is not None
    inside, row = rows[sites == "B"], found.attributes[0].rows[1]
    assert row.by_class["Normal"] == 0 and "Normal" not in row.sensitivity
    recalls = recall_score(inside["label"], said(inside), average=None, labels=["COVID", "Viral Pneumonia"])
    assert row.balanced_accuracy.value == pytest.approx(recalls.mean())
    f1 = f1_score(inside["label"], said(inside), average=None, labels=["COVID", "Viral Pneumonia"])
    assert row.macro_f1 == pytest.approx(f1.mean())
    assert found.gap.classes == ["COVID", "Viral Pneumonia"]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.sampled_from([0.4, 0.8, 1.0]))
def test_the_figures_of_a_subgroup_of_all_are_those_of_the_whole(seed: int, per_group: int, right: float) -> None:
    rows = table(right, seed=seed, per_group=per_group)
    found = subgroup_findings([rows], divided(rows, sex=["F"] * len(rows)), CLASSES, SETTINGS, 0)

    assert found is not None and found.gap is None
    (row,), overall = found.attributes[0].rows, classification_metrics(rows, CLASSES)
    assert row == found.whole.model_copy(update={"subgroup": "F"})
    assert row.accuracy.value == pytest.approx(overall["accuracy"])
    assert row.macro_f1 == pytest.approx(overall["macro_f1"])
    assert row.balanced_accuracy.value == pytest.approx(overall["macro_recall"])


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_the_order_of_images_does_not_matter(seed: int) -> None:
    rows = table(0.7, seed=seed)
    told = divided(rows, sex=sexes(), site=["A", "B", "", "C"] * 30)
    rng = np.random.default_rng(seed)
    mixed = rows.sample(frac=1, random_state=rng), told.sample(frac=1, random_state=rng)

    found = subgroup_findings([rows], told, CLASSES, SETTINGS, 0)

    assert found == subgroup_findings([mixed[0]], mixed[1], CLASSES, SETTINGS, 0)


def test_several_models_are_a_mean() -> None:
    one, other = table(0.6), table(0.9, seed=1)
    told = divided(one, sex=sexes())

    alone = [subgroup_findings([each], told, CLASSES, SETTINGS, 0) for each in (one, other)]
    both = subgroup_findings([one, other], told, CLASSES, SETTINGS, 0)

    values = [found.attributes[0].rows[0].balanced_accuracy.value for found in (*alone, both) if found]
    assert values[2] == pytest.approx((values[0] + values[1]) / 2)


def test_small_and_unknown_subgroups_are_counted_and_not_measured() -> None:
    rows = table(0.7)
    sex = np.array(["F"] * 60 + ["M"] * 41 + ["O"] * 9 + [""] * 10)

    found = subgroup_findings([rows], divided(rows, sex=sex), CLASSES, SETTINGS, 0)

    assert found is not None
    (of_sex,) = found.attributes
    assert [row.subgroup for row in of_sex.rows] == ["F", "M"]
    assert (of_sex.small, of_sex.small_images, of_sex.unknown_images) == (1, 9, 10)
    assert "O" not in [row.subgroup for row in of_sex.rows] and "O" not in found.model_dump_json().split('"')


def test_many_images_of_few_patients_are_too_few() -> None:
    rows = table(0.7).assign(group=lambda all: [f"p{n % 9}" for n in range(len(all))])

    assert subgroup_findings([rows], divided(rows, sex=sexes()), CLASSES, SETTINGS, 0) is None
    found = subgroup_findings([rows], divided(rows, sex=sexes()), CLASSES, with_least(9), 0)
    assert found is not None and found.attributes[0].rows[0].groups == 9


def test_nothing_is_measured_where_nothing_is_known() -> None:
    rows = table(0.7)

    assert subgroup_findings([rows], divided(rows), CLASSES, SETTINGS, 0) is None
    assert subgroup_findings([rows], divided(rows, sex=[""] * len(rows)), CLASSES, SETTINGS, 0) is None
    with pytest.raises(DataError, match="lacks the columns"):
        subgroup_findings([rows.drop(columns="COVID")], divided(rows, sex=sexes()), CLASSES, SETTINGS, 0)


def test_a_large_gap_is_certain_and_one_by_chance_is_not() -> None:
    apart = table(np.where(sexes(300) == "F", 0.95, 0.5), 300)
    alike = table(0.8, 300)

    large, small = (
        subgroup_findings([rows], divided(rows, sex=sexes(300)), CLASSES, SETTINGS, 0) for rows in (apart, alike)
    )

    assert large is not None and large.gap is not None and small is not None and small.gap is not None
    assert large.gap.is_certain and (large.gap.better, large.gap.worse, large.gap.pairs) == ("F", "M", 1)
    first, second = large.attributes[0].rows
    between = first.balanced_accuracy.value - second.balanced_accuracy.value
    assert large.gap.difference.value == pytest.approx(between)
    assert not small.gap.is_certain and small.gap.difference.value >= 0


def test_the_gap_is_corrected_for_all_pairs_and_all_that_stands_beside_it() -> None:
    rows = table(0.8, 300)
    told = divided(rows, sex=sexes(300), site=["A", "B", "C", "C", "B"] * 60)

    one = subgroup_findings([rows], told[["sex"]], CLASSES, SETTINGS, 0)
    four = subgroup_findings([rows], told, CLASSES, SETTINGS, 0)
    eight = subgroup_findings([rows], told, CLASSES, SETTINGS, 0, told_together=2)

    assert [found.gap.pairs for found in (one, four, eight) if found and found.gap] == [1, 4, 8]
    assert four is not None and eight is not None and four.gap is not None and eight.gap is not None
    assert eight.gap.difference.low < four.gap.difference.low


@pytest.mark.parametrize(("n", "right"), [(30, 0.97), (60, 0.9)])
def test_intervals_of_small_subgroups_hold_the_truth_at_least_as_often_as_they_say(n: int, right: float) -> None:
    held = 0
    for seed in range(100):
        rows = table(right, n, seed)
        found = subgroup_findings([rows], divided(rows, sex=["F"] * n), CLASSES, SETTINGS, 0)
        figure = found.whole.balanced_accuracy if found else None
        held += figure is not None and figure.low <= right <= figure.high

    assert held >= 95


def test_changes_are_differences_of_balanced_accuracy_with_the_paired_interval() -> None:
    sex = sexes(300)
    before = table(0.6, 300)
    after = table(np.where(sex == "F", 0.95, 0.6), 300, seed=1)
    after[sex == "M"] = before[sex == "M"]
    told = divided(before, sex=sex)

    female, male = subgroup_changes([(before, after)], told, CLASSES, SETTINGS, 0)

    inside = [rows[sex == "F"] for rows in (before, after)]
    expected = np.diff([balanced_accuracy_score(rows["label"], said(rows)) for rows in inside])[0]
    assert (female.attribute, female.subgroup, male.subgroup) == ("sex", "F", "M")
    assert female.change is not None and female.change.value == pytest.approx(expected)
    assert 0 < female.change.low < female.change.value < female.change.high
    assert male.change is None


def test_changes_over_several_pairs_are_their_mean() -> None:
    tables = [table(0.6, seed=n) for n in range(4)]
    told = divided(tables[0], sex=sexes())
    pairs = [(tables[0], tables[1]), (tables[2], tables[3])]

    singly = [subgroup_changes([pair], told, CLASSES, SETTINGS, 0)[0].change for pair in pairs]
    both = subgroup_changes(pairs, told, CLASSES, SETTINGS, 0)[0].change

    assert both is not None
    assert both.value == pytest.approx(np.mean([change.value for change in singly if change]))
