"""Data that may not be trained on fail with a sentence that names the fault; oddities only warn."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr_tasks.data.data_docs import DOCS_PAGE
from cxr_tasks.data.duplicates import CLASH
from cxr_tasks.data.expectations import ManifestCheck, check_manifest
from cxr_tasks.data.ingest import MANIFEST, SET_ASIDE
from cxr_tasks.data.inverted import YES
from tests.data.bad_files import write_bad_files
from tests.data.reading import data_settings, read_folder
from tests.hostile import MARKUP, run_in_page

pytestmark = pytest.mark.slow

CLASSES = ("COVID", "Normal", "Viral Pneumonia")


@pytest.fixture
def manifest() -> pd.DataFrame:
    count = 3 * 40
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "image_id": [f"{n:064x}" for n in range(count)],
            "site": "",
            "path": [f"{CLASSES[n % 3]}/images/{n}.png" for n in range(count)],
            "label": [CLASSES[n % 3] for n in range(count)],
            "source": "",
            "patient": "",
            "group": [f"P{n}" for n in range(count)],
            "width": 299,
            "height": 299,
            "mode": "L",
            "mean": rng.uniform(90, 160, count),
            "contrast": rng.uniform(40, 70, count),
            "dhash": [f"{n:016x}" for n in range(count)],
            "split": "",
            "provenance": "real",
            "status": "used",
            "reason": "",
            "shard": 0,
            "row": range(count),
        }
    )
    return table.astype({"width": "Int32", "height": "Int32"})


def with_rejects(manifest: pd.DataFrame, *reasons: str, label: str = "COVID") -> pd.DataFrame:
    """``manifest`` with files that were set aside, of which only a few things are known."""
    rejects = pd.DataFrame({"reason": reasons, "label": label, "status": SET_ASIDE, "provenance": "real"})
    rejects["path"] = [f"{label}/images/bad-{n}.png" for n in range(len(reasons))]
    # The same unreadable file twice is no fault.
    return pd.concat([manifest, rejects.assign(image_id="", group="")], ignore_index=True)


def outcome(folder: Path, manifest: pd.DataFrame, **overrides: object) -> ManifestCheck:
    manifest.to_parquet(folder / MANIFEST, index=False)
    # Read back, as the step does.
    return check_manifest(pd.read_parquet(folder / MANIFEST), data_settings(**overrides), folder)


def test_good_data_pass_and_leave_a_page(manifest: pd.DataFrame, tmp_path: Path) -> None:
    result = outcome(tmp_path, manifest)

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

    result = outcome(tmp_path, manifest)

    twice = manifest.loc[5, "image_id"]
    assert sorted(result.failures) == [
        "group: expected no missing value, found missing values (1 of 120)",
        f"image_id: expected no value twice, found {twice}, {twice} (2 of 120)",
        "label: expected one of COVID, Normal, Viral Pneumonia, found Lung_Opacity (1 of 120)",
        "provenance: expected one of real, found synthetic (1 of 120)",
        "width: expected at least 64, found 20 (1 of 120)",
    ]
    assert sorted(result.warnings) == [
        "contrast: expected at least 8, found 1.25 (1 of 120)",
        "mean: expected 10 to 245, found 2.5 (1 of 120)",
    ]
    assert (tmp_path / DOCS_PAGE).is_file()


def test_every_fault_of_the_counts_is_named_at_once(manifest: pd.DataFrame, tmp_path: Path) -> None:
    clash = f"{CLASH}: a.png, b.png"
    few = manifest[(manifest["label"] != "COVID") | (manifest.index < 30)]

    result = outcome(
        tmp_path,
        with_rejects(few, clash, clash, *["damaged"] * 8),
        expected_counts={"Normal": 41, "COVID": 10, "Viral Pneumonia": 40},
    )

    assert sorted(result.failures) == [
        "files of COVID: expected 10, found 20",
        "files of Normal: expected 41, found 40",
        "images of COVID: expected at least 30, found 10",
        "images under two classes: expected at most 0, found 2",
        "rejected fraction: expected at most 0.05, found 0.1",
    ]
    assert result.warnings == []


def test_expected_counts_are_of_files_and_a_few_may_be_bad(manifest: pd.DataFrame, tmp_path: Path) -> None:
    whole = with_rejects(manifest, "damaged", f"identical to {manifest['path'][0]}")

    result = outcome(tmp_path, whole, expected_counts={"COVID": 42, "Normal": 40, "Viral Pneumonia": 40})

    assert (result.failures, result.warnings) == ([], [])


def test_phantoms_among_bad_files_fail_for_the_bad_files_alone(phantoms: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for label in CLASSES:
        (source / label).mkdir()
        for image in (phantoms / label / "images").iterdir():
            (source / label / image.name).symlink_to(image)
    bad = len(write_bad_files(source / "Normal"))
    manifest = read_folder(source, tmp_path / "work", data_settings()).manifest

    strict, lenient = (tmp_path / name for name in ("strict", "lenient"))
    for folder in (strict, lenient):
        folder.mkdir()
    fraction = f"{bad / (136 + bad):.6g}"

    assert outcome(strict, manifest).failures == [f"rejected fraction: expected at most 0.05, found {fraction}"]
    assert outcome(lenient, manifest, max_rejected_fraction=0.5).failures == []


def test_no_usable_image_at_all_fails_with_sentences(manifest: pd.DataFrame, tmp_path: Path) -> None:
    nothing = with_rejects(manifest.iloc[:0], *["damaged"] * 5)

    assert sorted(outcome(tmp_path, nothing).failures) == [
        *(f"images of {label}: expected at least 30, found 0" for label in CLASSES),
        "rejected fraction: expected at most 0.05, found 1",
    ]


def test_names_that_are_markup_run_nothing_in_the_pages_and_are_said_as_they_are(
    manifest: pd.DataFrame, tmp_path: Path
) -> None:
    harmful = [text for text in MARKUP if "/" not in text]
    manifest["label"] = manifest["label"].map(dict(zip(CLASSES, harmful, strict=True)))
    manifest["path"] = [f"{label}/{label}-{n}.png" for n, label in enumerate(manifest["label"])]
    manifest["group"] = manifest["path"]
    manifest["inverted"] = YES
    manifest.loc[0, "label"] = MARKUP[2]

    result = outcome(tmp_path, manifest, classes=harmful, min_images_per_class=400, expected_counts={harmful[0]: 3})

    pages = [path.read_text(encoding="utf-8") for path in (tmp_path / "data-docs").rglob("*.html")]
    assert len(pages) > 4 and any("&lt;script&gt;alert" in page for page in pages)
    assert [run_in_page(page) for page in pages] == [[]] * len(pages)
    assert f"files of {harmful[0]}: expected 3, found 39" in result.failures
    assert f"label: expected one of {', '.join(harmful)}, found {MARKUP[2]} (1 of 120)" in result.failures
    assert [words.startswith(f"40 of 40 images of {harmful[1]} are inverted") for words in result.warnings].count(
        True
    ) == 1
