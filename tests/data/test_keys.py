"""A table with a row a study says the class of all images of that study, and no identifier gets out of it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cxr_tasks.config import DataSettings
from cxr_tasks.data.keys import pair_keys
from cxr_tasks.data.split import split_manifest
from cxr_tasks.errors import DataError, SettingsError
from tests.data.labelled import layout_in, scanned, table_settings, write
from tests.data.test_dicom_sources import read_all, write_all, xray

# Accession numbers as the archive has them, and as a spreadsheet writes them.
ACCESSIONS = {"0071001": "71001", "0071002": "71002.0", "a-71003": "A-71003", "0071004": "0071004"}
LABELS = dict(zip(ACCESSIONS, ("COVID", "COVID", "Normal", "Normal"), strict=True))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))


def keyed(matches: str, **more: Any) -> DataSettings:
    return table_settings(path=None, key={"column": "Accession No.", "matches": matches}, **more)


def elements(number: int, accession: str) -> dict[str, str | None]:
    study = {"AccessionNumber": accession, "StudyInstanceUID": f"1.2.9.{number}", "StudyID": f"ST{number}"}
    return {**study, "SOPInstanceUID": f"1.2.9.{number}.1", "PatientID": None}


def studies(folder: Path, images: int = 2) -> Path:
    """A folder a study, with files whose names are the same in each; of no patient that is named."""
    files = {"readme.md": b"", "0000/IM0009": xray(900, AccessionNumber="1200000")}
    for number, accession in enumerate(ACCESSIONS):
        for image in range(images):
            told = elements(number, accession)
            files[f"{number:04}/IM{image + 1:04}"] = xray(10 * number + image, **told)
    return write_all(folder, files)


def table_of(folder: Path, keys: list[str]) -> None:
    lines = "".join(f"{key},{label}\n" for key, label in zip(keys, LABELS.values(), strict=True))
    (folder / "labels.csv").write_text("Accession No.,label\n" + lines)


@pytest.mark.parametrize("matches", ["AccessionNumber", "StudyInstanceUID", "StudyID", "SOPInstanceUID"])
def test_rows_find_all_images_by_an_element_of_the_header(tmp_path: Path, matches: str) -> None:
    source = studies(tmp_path / "source", 1 if matches == "SOPInstanceUID" else 2)
    written = list(ACCESSIONS.values())
    keys = {
        "AccessionNumber": written,
        **{name: [str(elements(number, "")[name]) for number in range(4)] for name in ("StudyInstanceUID", "StudyID")},
        "SOPInstanceUID": [f"1.2.9.{number}.1" for number in range(4)],
    }
    table_of(source, keys[matches])

    rows, told = read_all(source, tmp_path / "work", keyed(matches))

    found = rows.groupby(rows["path"].str[:4])["label"].agg(set).to_dict()
    assert found == {f"{number:04}": {label} for number, label in enumerate(LABELS.values())}
    assert "0000/IM0009" not in set(rows["path"]) and told == []
    if matches != "SOPInstanceUID":
        assert len(rows) == 8 and rows["study"].nunique() == 4


def test_images_of_a_study_whose_patient_nobody_names_lie_in_one_split(tmp_path: Path) -> None:
    source = studies(tmp_path / "source")
    table_of(source, list(ACCESSIONS.values()))
    settings = keyed("AccessionNumber")

    rows, _ = read_all(source, tmp_path / "work", settings)
    split = split_manifest(rows, settings.split, 0)

    of_study = rows.groupby("study")
    assert of_study["group"].nunique().tolist() == [1] * 4 and rows["group"].nunique() == 4
    assert split.groupby("study")[["split", "group"]].nunique().to_numpy().tolist() == [[1, 1]] * 4


def test_rows_find_images_of_any_kind_by_the_folder_they_lie_in(tmp_path: Path) -> None:
    files = [f"{accession}/series/IM{image:04}.png" for accession in ACCESSIONS for image in (1, 2)]
    source = write(tmp_path, [*files, "1200000/series/IM0001.png"])
    table_of(source, list(ACCESSIONS.values()))

    rows = scanned(source, keyed("folder"))

    assert {path: rows.at[path, "label"] for path in files} == {path: LABELS[path.split("/")[0]] for path in files}
    assert len(rows) == 8 and rows["study"].nunique() == 4
    assert scanned(source, keyed("folder", study="label"))["study"].nunique() == 2


def test_several_rows_for_a_study_are_put_together(tmp_path: Path) -> None:
    source = write(tmp_path, [f"{study}/IM{image}.png" for study in "abc" for image in (1, 2)])
    (source / "labels.csv").write_text("Accession No.,label\na,COVID\nA,COVID\nb,Normal\nc,COVID\nc,Normal\n")

    layout = layout_in(source, keyed("folder"))

    assert [(label, entry.path[0]) for label, entry in layout.images] == [("COVID", "a")] * 2 + [("Normal", "b")] * 2
    assert any("2 images have several rows that say different things" in note for note in layout.notes)


def test_nothing_that_is_told_quotes_a_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    source = studies(tmp_path / "source")
    table_of(source, [*list(ACCESSIONS.values())[:3], "9988776"])
    settings = keyed("AccessionNumber", labels={"Normal": "Normal"})

    layout = layout_in(source, settings)

    told = [*layout.told, *layout.notes]
    assert any("1 of 4 rows name no image, such as 'row 4'" in sentence for sentence in told)
    assert any("3 images are in no row of it" in sentence for sentence in told)
    kept = scanned(source, settings)
    everything = " ".join([*told, caplog.text, kept.to_csv()])
    for secret in ("9988776", *ACCESSIONS, *ACCESSIONS.values(), "1200000"):
        assert secret not in everything


@pytest.mark.parametrize(
    ("matches", "keys"), [("StudyID", list(ACCESSIONS)), ("folder", list(ACCESSIONS)), ("AccessionNumber", [""] * 4)]
)
def test_a_key_that_no_image_has_stops_the_scan_in_one_sentence_without_it(
    tmp_path: Path, matches: str, keys: list[str]
) -> None:
    source = studies(tmp_path / "source")
    table_of(source, keys)

    with pytest.raises(DataError) as told:
        layout_in(source, keyed(matches))

    sentence = str(told.value)
    assert "does not match the images: 0 of its 4 rows name one of the 9 images. Rows are 'row 1', 'row 2'" in sentence
    assert f"holds what data.table.key.matches says of the images ({matches})" in sentence
    assert not any(secret in sentence for secret in (*ACCESSIONS, *ACCESSIONS.values()))


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"path": None}, "name either the column of image files in path, or that of studies in key"),
        ({"key": {"column": "a", "matches": "folder"}}, "name either the column of image files in path"),
        ({"path": None, "key": {"column": "a", "matches": "PatientName"}}, "data.table.key.matches"),
    ],
)
def test_settings_of_keys_that_cannot_be_meant_are_refused(table: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        table_settings(**table)


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    source = write(tmp_path, ["a/1.png"])
    (source / "labels.csv").write_text("accession,label\na,COVID\n")

    with pytest.raises(SettingsError, match=r"has no column 'Accession No\.', which data\.table\.key\.column names"):
        layout_in(source, keyed("folder"))


@pytest.mark.parametrize(
    ("names", "keys", "pairs"),
    [
        (["7"], [["007"], ["07"]], []),
        (["7", "07"], [["007"]], []),
        (["7", "007"], [["007"], ["7"]], [(0, 1), (1, 0)]),
        (["7", "07"], [["7"], ["007"]], [(0, 0), (1, 1)]),
        (["", "0"], [[""], ["00"], []], []),
        (["x", "X"], [["a", "x"], ["X", "x"]], [(0, 0), (0, 1), (1, 0), (1, 1)]),
    ],
)
def test_zeros_are_left_out_only_where_no_doubt_is_left(
    names: list[str], keys: list[list[str]], pairs: list[tuple[int, int]]
) -> None:
    found = pair_keys(names, keys)

    assert sorted(zip(found.rows.tolist(), found.images.tolist(), strict=True)) == pairs
    assert found.lost.tolist() == [row not in {one for one, _ in pairs} for row in range(len(names))]
    assert found.named == len({image for _, image in pairs}) and (found.of_rows, found.of_images) == (
        len(names),
        len(keys),
    )


def test_studies_tie_images_only_where_no_patient_is_named() -> None:
    rows = pd.DataFrame(
        {
            "image_id": list("abcdef"),
            "label": "COVID",
            "patient": ["", "", "p", "q", "", ""],
            "study": ["1", "1", "1", "1", "", ""],
            "status": "used",
            "reason": "",
            "split": "",
            "group": "",
        }
    )

    split = split_manifest(rows, table_settings().split, 0)

    assert split["group"].tolist() == ["a", "a", "p", "q", "e", "f"]
    # An image of a study that is divided already joins nothing.
    kept = {"a": "train", "b": "test"}
    again = split_manifest(rows, table_settings().split, 0, kept)
    assert again["status"].tolist()[:2] == ["used", "set aside"] and np.unique(again["group"]).size == 6
