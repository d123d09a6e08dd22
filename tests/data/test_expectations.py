"""Data that may not be trained on fail with a sentence that names the fault; oddities only warn."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr_tasks.config import DataSettings, resolve
from cxr_tasks.data.expectations import DOCS_PAGE, Validation, validate
from cxr_tasks.data.ingest import REJECT_COLUMNS

pytestmark = pytest.mark.slow

CLASSES = ("COVID", "Normal", "Viral Pneumonia")


@pytest.fixture
def manifest() -> pd.DataFrame:
    count = 3 * 40
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "image_id": [f"{n:064x}" for n in range(count)],
            "path": [f"{CLASSES[n % 3]}/images/{n}.png" for n in range(count)],
            "label": [CLASSES[n % 3] for n in range(count)],
            "width": 299,
            "height": 299,
            "mode": "L",
            "mean": rng.uniform(90, 160, count),
            "contrast": rng.uniform(40, 70, count),
            "source": "",
            "patient": "",
            "group": [f"P{n}" for n in range(count)],
            "provenance": "real",
        }
    )


def rejects(*reasons: str, label: str = "COVID") -> pd.DataFrame:
    rows = [(f"{label}/images/bad-{n}.png", label, reason) for n, reason in enumerate(reasons)]
    return pd.DataFrame(rows, columns=REJECT_COLUMNS)


def outcome(folder: Path, manifest: pd.DataFrame, rejected: pd.DataFrame, **overrides: object) -> Validation:
    settings: DataSettings = resolve("quick", {"data": overrides}).data
    for name, table in (("manifest", manifest), ("rejects", rejected)):
        table.to_parquet(folder / f"{name}.parquet", index=False)
    # Read back, as the step does: an empty table comes back with other column types.
    return validate(
        pd.read_parquet(folder / "manifest.parquet"), pd.read_parquet(folder / "rejects.parquet"), settings, folder
    )


def test_good_data_pass_and_leave_a_page(manifest: pd.DataFrame, tmp_path: Path) -> None:
    result = outcome(tmp_path, manifest, rejects())

    assert (result.failures, result.warnings) == ([], [])
    assert result.expectations > 15
    assert "manifest" in (tmp_path / DOCS_PAGE).read_text(encoding="utf-8")
    assert len(list((tmp_path / "data-docs" / "validations").rglob("*.html"))) == 2


def test_every_fault_of_the_manifest_is_named_at_once(manifest: pd.DataFrame, tmp_path: Path) -> None:
    manifest.loc[0, "provenance"] = "synthetic"
    manifest.loc[1, "label"] = "Lung_Opacity"
    manifest.loc[2, "width"] = 20
    manifest.loc[3, "group"] = None
    manifest.loc[4, "image_id"] = manifest.loc[5, "image_id"]
    manifest.loc[6, "mean"] = 2.5
    manifest.loc[7, "contrast"] = 1.25

    result = outcome(tmp_path, manifest, rejects())

    twice = manifest.loc[5, "image_id"]
    assert sorted(result.failures) == [
        "group: expected no missing value, found missing values (1 of 120)",
        f"image_id: expected no value twice, found {twice}, {twice} (2 of 120)",
        "label: expected one of COVID, Normal, Viral Pneumonia, found Lung_Opacity (1 of 120)",
        "provenance: expected one of real, found synthetic (1 of 120)",
        "width: expected 64 to 8192, found 20 (1 of 120)",
    ]
    assert sorted(result.warnings) == [
        "contrast: expected at least 8, found 1.25 (1 of 120)",
        "mean: expected 10 to 245, found 2.5 (1 of 120)",
    ]
    assert (tmp_path / DOCS_PAGE).is_file()


def test_every_fault_of_the_counts_is_named_at_once(manifest: pd.DataFrame, tmp_path: Path) -> None:
    conflict = "identical images carry different classes: a.png, b.png"
    few = manifest[(manifest["label"] != "COVID") | (manifest.index < 30)]

    result = outcome(tmp_path, few, rejects(conflict, conflict, *["damaged"] * 8), expected_counts={"Normal": 41})

    assert sorted(result.failures) == [
        "images of COVID: expected at least 30, found 10",
        "images under two classes: expected at most 0, found 2",
        "rejected fraction: expected at most 0.05, found 0.1",
    ]
    assert result.warnings == ["images of Normal: expected 41, found 40"]


def test_a_few_rejects_and_the_expected_counts_pass(manifest: pd.DataFrame, tmp_path: Path) -> None:
    result = outcome(tmp_path, manifest, rejects("damaged", "damaged"), expected_counts=dict.fromkeys(CLASSES, 40))

    assert (result.failures, result.warnings) == ([], [])
