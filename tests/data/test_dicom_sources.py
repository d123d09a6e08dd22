"""DICOM as it is handed over: studies zipped or not, with lists of files and viewers, or beside a table of labels."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydicom import uid

from cxr_tasks.config import DataSettings
from cxr_tasks.data.contradictions import tell_contradictions
from cxr_tasks.data.decode import KEY_OF_THIS_PROCESS, HowToRead
from cxr_tasks.data.ingest import USED, join_shards, read_shard
from cxr_tasks.data.patients import pseudonym, with_pseudonyms
from cxr_tasks.data.scan import entries_of
from cxr_tasks.data.sources import open_source
from tests.data.dicom_files import dicom
from tests.data.labelled import layout_settings, table_settings
from tests.data.reading import data_settings, scan_folder
from tests.data.test_layouts import MINIATURES, build

CLASSES = ("COVID", "Normal")
SETTINGS = data_settings(classes=list(CLASSES), folders={})


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))


def xray(number: int, **changed: Any) -> bytes:
    """One of many different pictures, with a patient and UIDs of its own."""
    values = np.random.default_rng(number).integers(0, 4096, (64, 64), np.uint16)
    ids = {"PatientID": f"P{number}", "StudyInstanceUID": f"1.2.3.{number}", "SOPInstanceUID": f"1.2.3.{number}.1"}
    return dicom(values, **ids | changed)


def disk(number: int) -> dict[str, bytes]:
    """What a patient's disk holds: two images without endings, a lateral, the list of files and a viewer."""
    folder = f"DICOM/ST{number:06}/SE000001"
    kind = {"SOPClassUID": uid.MediaStorageDirectoryStorage, "PixelData": None, "Modality": None}
    return {
        f"{folder}/IM000001": xray(10 * number),
        f"{folder}/IM000002": xray(10 * number + 1, PatientID=f"P{10 * number}"),
        f"{folder}/IM000003": xray(10 * number + 2, PatientID=f"P{10 * number}", ViewPosition="LL"),
        "DICOMDIR": dicom(**kind),
        "autorun.inf": b"[autorun]",
        "VIEWER/viewer.exe": b"MZ" + bytes(100),
        "VIEWER/libs/core.dll": b"MZ" + bytes(100),
        "README.TXT": b"Insert the disk.",
    }


def write_all(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def zip_all(path: Path, files: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def disks() -> dict[str, dict[str, bytes]]:
    return {f"{label}/patient {number}": disk(number) for label in CLASSES for number in (len(label), 2 * len(label))}


def as_folder(place: Path) -> Path:
    for name, files in disks().items():
        write_all(place / name, files)
    return place


def as_zips(place: Path) -> Path:
    for name, files in disks().items():
        zip_all(place / f"{name}.zip", files)
    return place


def as_zips_in_zip(place: Path) -> Path:
    as_zips(place / "loose")
    inside = {str(path.relative_to(place / "loose")): path.read_bytes() for path in (place / "loose").rglob("*.zip")}
    return zip_all(place / "export.zip", inside)


def read_all(source: Path, work: Path, settings: DataSettings) -> tuple[pd.DataFrame, list[str]]:
    """The manifest as steps make it, with switches and pseudonyms; and where tables and headers contradict."""
    for name in ("shard", "manifest"):
        (work / name).mkdir(parents=True)
    files = with_pseudonyms(scan_folder(source, settings), KEY_OF_THIS_PROCESS)
    root = open_source(str(source)).fetch(entries_of(files))
    rows = read_shard(root, files, (), work / "shard", HowToRead.of(settings))
    manifest, _ = join_shards([work / "shard"], files, settings.near_duplicates, work / "manifest")
    return manifest, tell_contradictions(rows, files)


@pytest.mark.parametrize("export", [as_folder, as_zips_in_zip])
def test_a_disk_of_each_patient_is_read_zipped_or_not(tmp_path: Path, export: Callable[[Path], Path]) -> None:
    rows, contradictions = read_all(export(tmp_path / "source"), tmp_path / "work", SETTINGS)

    assert rows["status"].value_counts().to_dict() == {USED: 8, "left out": 4}, rows[["path", "reason"]]
    used = rows[rows["status"] == USED]
    assert used["label"].value_counts().to_dict() == {"COVID": 4, "Normal": 4}
    assert used["patient"].nunique() == 4 and used["study"].nunique() == 8 and (used["patient"] != "").all()
    assert (used.groupby("patient")["group"].nunique() == 1).all()
    assert contradictions == []


def test_a_list_of_files_is_no_image_whatever_it_is_called(tmp_path: Path) -> None:
    lists = dict.fromkeys(["DICOMDIR", "dicomdir", "DICOMDIR;1", "DICOMDIR.", "LIST"], disk(1)["DICOMDIR"])
    write_all(tmp_path / "source/COVID", {"IM1": xray(1), **lists})
    write_all(tmp_path / "source/Normal", {"IM1": xray(2)})

    rows, _ = read_all(tmp_path / "source", tmp_path / "work", SETTINGS)

    assert sorted(rows["path"]) == ["COVID/IM1", "COVID/LIST", "Normal/IM1"]
    (listed,) = rows[rows["status"] != USED].itertuples()
    assert (listed.status, listed.reason) == ("left out", "the DICOM file is of a kind that holds no radiograph")


@pytest.mark.parametrize("layout", ["rsna", "vindr", "mimic-cxr"])
def test_labels_of_a_public_table_join_what_the_dicom_files_say(tmp_path: Path, layout: str) -> None:
    miniature = MINIATURES[layout]
    build(tmp_path / "source", miniature)
    packed = {"vindr": {"syntax": uid.JPEG2000Lossless}, "mimic-cxr": {"BodyPartExamined": None}}.get(layout, {})
    # RSNA and MIMIC-CXR have the patient of the table in the file, VinDr-CXR has none.
    patient_of = {"rsna": lambda path: Path(path).stem, "vindr": str, "mimic-cxr": lambda path: path.split("/")[2][1:]}
    patients = {path: "" if layout == "vindr" else patient_of[layout](path) for path in miniature.files}
    for number, path in enumerate(miniature.files):
        content = xray(number, PatientID=patients[path], PatientAge=f"{number + 20:03}Y", ViewPosition="AP", **packed)
        (tmp_path / "source" / path).write_bytes(content)

    rows, contradictions = read_all(tmp_path / "source", tmp_path / "work", layout_settings(layout))

    rows = rows.set_index("path")
    assert set(rows.index) == set(miniature.rows) and set(rows["status"]) == {USED}, rows["reason"]
    for path, said in miniature.rows.items():
        row = rows.loc[path]
        assert (row["label"], row["given"]) == (said["label"], said.get("given", ""))
        assert (row["view"], row["sex"], row["age"]) == ("AP", "F", 20 + miniature.files.index(path))
        assert row["patient"] == pseudonym(KEY_OF_THIS_PROCESS, "patient", patients[path])
    assert contradictions == []


def test_boxes_of_one_image_are_one_image(tmp_path: Path) -> None:
    """The other table of RSNA has a row for each box, and says the label by a number."""
    build(tmp_path / "source", MINIATURES["rsna"])
    for number, path in enumerate(MINIATURES["rsna"].files):
        (tmp_path / "source" / path).write_bytes(xray(number))
    labels = {"1": "COVID", "0": "Normal"}
    settings = table_settings(file="stage_2_train_labels.csv", path="patientId", label="Target", labels=labels)

    rows, _ = read_all(tmp_path / "source", tmp_path / "work", settings)

    assert rows["label"].value_counts().to_dict() == {"COVID": 1, "Normal": 2}


def test_the_table_counts_where_a_file_says_something_else_and_that_is_told(tmp_path: Path) -> None:
    files = {
        "a.dcm": xray(1, ViewPosition="PA", PatientAge="040Y", PatientSex="F", PatientID="X"),
        "b.dcm": xray(2, ViewPosition="PA", PatientAge="041Y", PatientSex="M", PatientID="X"),
        "c.dcm": xray(3, ViewPosition="LL", PatientAge="050Y", PatientSex="M", PatientID="Y"),
        "d.dcm": xray(4, ViewPosition="", PatientAge="", PatientSex="", PatientID=""),
        "e.dcm": xray(5, ViewPosition="AP", PatientAge="060Y", PatientSex="F", PatientID="Z"),
    }
    write_all(tmp_path / "source", files)
    (tmp_path / "source/labels.csv").write_text(
        "file,label,view,age,sex,patient\n"
        "a,COVID,AP,40,F,1\nb,Normal,PA,51,F,2\nc,Normal,PA,50,M,3\nd,COVID,PA,7,M,4\ne,Normal,AP SUPINE,,,4\n"
    )
    facts = {name: name for name in ("view", "age", "sex", "patient")}

    rows, told = read_all(tmp_path / "source", tmp_path / "work", table_settings(**facts))

    rows = rows.set_index("path").sort_index()
    assert rows["view"].to_dict() == {
        **{"a.dcm": "AP", "b.dcm": "PA", "c.dcm": "PA", "d.dcm": "PA", "e.dcm": "AP SUPINE"}
    }
    assert rows["age"].tolist() == [40, 51, 50, 7, 60] and rows["sex"].tolist() == ["F", "F", "M", "M", "F"]
    assert rows.at["d.dcm", "patient"] == rows.at["e.dcm", "patient"] != rows.at["a.dcm", "patient"]
    assert rows.index[rows["status"] != USED].tolist() == ["c.dcm"]
    look = "the table counts. Look whether its rows belong to these images"
    assert told == [
        f"Of 1 images the table and the DICOM file say different views, such as 'a.dcm': {look}",
        f"Of 1 images the table and the DICOM file say different ages, such as 'b.dcm': {look}",
        f"Of 1 images the table and the DICOM file say different sexes, such as 'b.dcm': {look}",
        "1 DICOM files are left out for the view that they name themselves (data.dicom.views), and the table names "
        "another, such as PA for 'c.dcm'",
        "1 patients by their DICOM files (PatientID) are several patients in the table: the table counts, and says "
        "which images must lie in one split",
    ]
