"""The tables by subgroup: who is measured, who is counted, and what is warned of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from cxr_tasks.artifacts import Training
from cxr_tasks.config import Settings, resolve
from cxr_tasks.report.subgroup_tables import subgroup_tables

CLASSES = ["COVID", "Normal", "Viral Pneumonia"]
SETTINGS = resolve("quick", {"evaluation": {"bootstrap_samples": 100}})
N = 240


class Arm:
    """A trained arm whose predictions are known."""

    def __init__(self, name: str, table: pd.DataFrame, classifier: str = "cnn", seed: int = 0) -> None:
        self.training = Training(classifier=classifier, arm=name, seed=seed)
        self.model = self
        self.table = table

    def predictions(self) -> pd.DataFrame:
        return self.table


@pytest.fixture
def manifest() -> pd.DataFrame:
    """Used images of three classes: women and men, some unknown, a few of another sex; all children are one class."""
    number = np.arange(N)
    labels = np.array(CLASSES)[number % 3]
    sex = np.where(number < 100, "F", np.where(number < 200, "M", np.where(number < 230, "", "O")))
    rows = pd.DataFrame({"image_id": [f"{n:05}" for n in number], "label": labels, "sex": sex})
    ages = np.where(labels == "Viral Pneumonia", 6.0, 50.0)
    return rows.assign(group=rows["image_id"], age=ages, view="", status="used", split="test")


def predicted(manifest: pd.DataFrame, right: float | np.ndarray, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    truth = np.arange(N) % 3
    said = np.where(rng.random(N) < right, truth, (truth + 1) % 3)
    table = pd.DataFrame(np.eye(3)[said], columns=CLASSES)
    return pd.concat([manifest[["image_id", "split", "group", "label"]], table], axis=1)


def tables_of(manifest: pd.DataFrame, *arms: Any, settings: Settings = SETTINGS) -> tuple[dict[str, Any], Any, Any]:
    tables, told, gaps = subgroup_tables(manifest, arms, settings)
    return {table.title: table for table in tables}, told, gaps


def test_a_run_has_a_table_for_each_attribute_that_is_known(manifest: pd.DataFrame) -> None:
    tables, told, _ = tables_of(
        manifest, Arm("none", predicted(manifest, 0.7)), Arm("synthetic", predicted(manifest, 0.8, 1))
    )

    assert list(tables) == [
        "Classes by subgroup",
        "By age",
        "By sex",
        "By subgroup: change from none",
        "Largest gap between subgroups",
    ]
    by_sex = tables["By sex"]
    assert by_sex.columns == ["Subgroup", "Test images", "Groups", *CLASSES, "none", "synthetic"]
    assert [row[:2] for row in by_sex.rows] == [
        ["F", "100"],
        ["M", "100"],
        ["O", "10"],
        ["unknown", "30"],
        ["all test images", "240"],
    ]
    assert by_sex.rows[3][2:] == ["–"] * 6
    assert told[0] == (
        "All 80 images of Viral Pneumonia are of age under 18, and so is none of the 160 others: a model can tell the "
        "class by the age."
    )
    # Both bands of age, each with the classes of the other missing: nothing is compared.
    assert [row[1] for row in tables["Largest gap between subgroups"].rows] == ["sex", "sex"]
    assert all(len(row) == len(table.columns) for table in tables.values() for row in table.rows)


def test_subgroups_of_few_patients_are_counted_together_without_a_name(manifest: pd.DataFrame) -> None:
    manifest.loc[manifest.index[-1], "sex"] = "M"
    manifest["site"] = [f"site {n % 40}" if n % 40 > 1 else "large" for n in range(N)]

    tables, *_ = tables_of(manifest, Arm("none", predicted(manifest, 0.7)))

    assert tables["By sex"].rows[2] == ["1 smaller subgroup", "9", *"––––", "too few"]
    assert tables["By site"].rows[1] == ["38 smaller subgroups together", "228", *"––––", "too few"]
    assert tables["Classes by subgroup"].rows[-1] == ["site: smaller ones together", "76", "76", "76"]
    cells = [cell for table in tables.values() for row in table.rows for cell in row]
    assert "O" not in cells and not any("site 7" in cell for cell in cells)


def test_a_certain_gap_is_warned_of_with_its_interval(manifest: pd.DataFrame) -> None:
    worse = np.where(manifest["sex"] == "F", 0.3, 0.95)

    tables, _, gaps = tables_of(manifest, Arm("none", predicted(manifest, worse)))
    assert len(gaps) == 1 and gaps[0].startswith("The arm none does worse on sex F than on sex")
    assert "joint interval" in gaps[0] and tables["Largest gap between subgroups"].rows[0][-1] == "yes"

    tables, _, gaps = tables_of(manifest, Arm("none", predicted(manifest, 0.8)))
    assert gaps == [] and tables["Largest gap between subgroups"].rows[0][-1] == "no"


def test_changes_are_of_the_trainings_that_both_arms_have(manifest: pd.DataFrame) -> None:
    before, after = predicted(manifest, 0.6), predicted(manifest, 0.9, 1)
    arms = [Arm("none", before), Arm("synthetic", after), Arm("synthetic", before, "vgg16")]

    tables, *_ = tables_of(manifest, *arms)

    (changes,) = [table for title, table in tables.items() if title.startswith("By subgroup")]
    assert changes.columns == ["Subgroup", "synthetic"] and changes.rows[2][0] == "sex F"
    assert changes.rows[2][1].startswith("+") and "intervals are not corrected" in changes.note
    same = tables_of(manifest, Arm("none", before), Arm("synthetic", before))[0]["By subgroup: change from none"]
    assert {row[1] for row in same.rows} == {"no disagreement"}


def test_without_the_baseline_or_any_arm_what_is_there_is_told(manifest: pd.DataFrame) -> None:
    alone, *_ = tables_of(manifest, Arm("synthetic", predicted(manifest, 0.7)))
    nothing, told, _ = tables_of(manifest)

    assert "By sex" in alone and not any(title.startswith("By subgroup") for title in alone)
    assert list(nothing) == ["Classes by subgroup"] and len(told) == 1


def test_nothing_is_told_where_nothing_is_known_or_asked_for(manifest: pd.DataFrame) -> None:
    off = resolve("quick", {"evaluation": {"subgroups": {"attributes": []}}})

    assert tables_of(manifest, Arm("none", predicted(manifest, 0.7)), settings=off) == ({}, [], [])
    unknown = manifest.assign(sex="", age=np.nan)
    assert tables_of(unknown, Arm("none", predicted(manifest, 0.7))) == ({}, [], [])
