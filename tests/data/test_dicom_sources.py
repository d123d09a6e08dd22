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
from cxr_tasks.data.decode import KEY_OF_THIS_PROCESS, HowToRead
from cxr_tasks.data.ingest import USED, join_shards, read_shard
from cxr_tasks.data.patients import with_pseudonyms
from cxr_tasks.data.scan import entries_of
from cxr_tasks.data.sources import open_source
from tests.data.dicom_files import dicom
from tests.data.reading import data_settings, scan_folder

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


def manifest_of(source: Path, work: Path, settings: DataSettings = SETTINGS) -> pd.DataFrame:
    """The manifest as steps make it: switches and pseudonyms included."""
    for name in ("shard", "manifest"):
        (work / name).mkdir(parents=True)
    files = with_pseudonyms(scan_folder(source, settings), KEY_OF_THIS_PROCESS)
    root = open_source(str(source)).fetch(entries_of(files))
    read_shard(root, files, (), work / "shard", HowToRead.of(settings))
    return join_shards([work / "shard"], files, settings.near_duplicates, work / "manifest")[0]


@pytest.mark.parametrize("export", [as_folder, as_zips_in_zip])
def test_a_disk_of_each_patient_is_read_zipped_or_not(tmp_path: Path, export: Callable[[Path], Path]) -> None:
    rows = manifest_of(export(tmp_path / "source"), tmp_path / "work")

    assert rows["status"].value_counts().to_dict() == {USED: 8, "left out": 4}, rows[["path", "reason"]]
    used = rows[rows["status"] == USED]
    assert used["label"].value_counts().to_dict() == {"COVID": 4, "Normal": 4}
    assert used["patient"].nunique() == 4 and used["study"].nunique() == 8 and (used["patient"] != "").all()
    assert (used.groupby("patient")["group"].nunique() == 1).all()


def test_a_list_of_files_is_no_image_whatever_it_is_called(tmp_path: Path) -> None:
    lists = dict.fromkeys(["DICOMDIR", "dicomdir", "DICOMDIR;1", "DICOMDIR.", "LIST"], disk(1)["DICOMDIR"])
    write_all(tmp_path / "source/COVID", {"IM1": xray(1), **lists})
    write_all(tmp_path / "source/Normal", {"IM1": xray(2)})

    rows = manifest_of(tmp_path / "source", tmp_path / "work")

    assert sorted(rows["path"]) == ["COVID/IM1", "COVID/LIST", "Normal/IM1"]
    (listed,) = rows[rows["status"] != USED].itertuples()
    assert (listed.status, listed.reason) == ("left out", "the DICOM file is of a kind that holds no radiograph")
