"""X-rays as hospitals hand them over, made from phantoms: disks of DICOM, or archives beside a table of labels.

``python -m tests.data.handed_over dicom|table FOLDER`` writes such a set, to run the whole pipeline on. Whatever may
identify somebody is planted from ``dicom_files.SECRETS``, so that a search can tell whether any of it went on.
"""

from __future__ import annotations

import csv
import io
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import uid

from tests.data.dicom_files import SECRETS, dicom

COUNTS = {"COVID": 45, "Normal": 60, "Viral Pneumonia": 45}
SIDE = 128
# What the profile of a table of labels says beside its own numbers.
TABLE = {
    "file": "labels*.csv",
    "path": "Image Index",
    "label": "Finding Labels",
    "separator": "|",
    "labels": {"covid 19": "COVID", "no finding": "Normal", "pneumonia, viral": "Viral Pneumonia"},
    "patient": "Patient ID",
    "view": "View Position",
    "views": ["PA", "AP"],
    "age": "Patient Age",
    "sex": "Patient Gender",
}


def write_dicom(folder: Path, phantoms: Path) -> None:
    """Write a disk of every patient below class folders, every third as a zip, and files that cannot be used."""
    for label, disk, images in _disks(phantoms):
        patient = f"{SECRETS['PatientID']}{disk}"
        files = {"DICOMDIR": dicom(PixelData=None, SOPClassUID=uid.MediaStorageDirectoryStorage, PatientID=patient)}
        files["VIEWER/viewer.exe"] = b"MZ" + SECRETS["PatientName"].encode()
        for number, path in enumerate(images):
            files[f"DICOM/ST{number:03}/IM{number:06}"] = _xray(path, patient, f"{disk}.{number}")
        if disk % 10 == 0:
            files["DICOM/ST900/IM000001"] = _xray(images[0], patient, f"{disk}.900", ViewPosition="LL")
            files["DICOM/ST901/IM000001"] = _xray(images[0], patient, f"{disk}.901", BodyPartExamined="HAND")
        if disk % 40 == 0:
            files["DICOM/ST902/IM000001"] = _xray(images[0], patient, f"{disk}.902")[:4000]
        place = folder / label / f"disk {disk:04}"
        if disk % 3:
            for name, content in files.items():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                (place / name).write_bytes(content)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            with zipfile.ZipFile(f"{place}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
                for name, content in files.items():
                    archive.writestr(name, content)


def write_table(folder: Path, phantoms: Path) -> None:
    """Write images in two archives beside a table of labels, whose rows name patients; half of the images is DICOM."""
    of_class = {label: name for name, label in TABLE["labels"].items()}  # type: ignore[attr-defined]
    folder.mkdir(parents=True)
    rows, parts = [], [dict[str, bytes](), dict[str, bytes]()]
    for label, disk, images in _disks(phantoms):
        patient = f"{SECRETS['PatientID']}{disk}"
        for number, path in enumerate(images):
            name = f"{disk:08}_{number:03}.{'png' if disk % 2 else 'dcm'}"
            content = path.read_bytes() if disk % 2 else _xray(path, patient, f"{disk}.{number}")
            parts[disk % 2 if number else len(rows) % 2][f"images/{name}"] = content
            rows.append(
                [name, of_class[label], patient, SECRETS["PatientName"], SECRETS["PatientBirthDate"], "57", "F"]
            )
    for number, files in enumerate(parts, start=1):
        with tarfile.open(folder / f"images_{number:03}.tar.gz", "w:gz") as archive:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    columns = ["Image Index", "Finding Labels", "Patient ID", "Name", "Born", "Patient Age", "Patient Gender"]
    with open(folder / "labels 2024.csv", "w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow([*columns, "View Position", "Accession"])
        # Laterals and other diseases are in the table too, with no image beside them.
        table.writerows([*row, "PA", SECRETS["AccessionNumber"]] for row in rows)
        table.writerow(["99999999_000.png", "no finding", "", "", "", "", "", "LATERAL", ""])


def _disks(phantoms: Path) -> Iterator[tuple[str, int, list[Path]]]:
    """Class, number and images of each patient."""
    disk = 0
    for label in COUNTS:
        patients: dict[str, list[Path]] = {}
        with open(phantoms / f"{label}.metadata.csv", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                path = phantoms / label / "images" / f"{row['FILE NAME']}.png"
                patients.setdefault(row["PATIENT"], []).append(path)
        for images in patients.values():
            disk += 1
            yield label, disk, images


def _xray(path: Path, patient: str, number: str, **changed: str) -> bytes:
    values = np.asarray(Image.open(path)).astype(np.uint16) * 16
    ids = {name: f"{SECRETS[name]}.{number}" for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")}
    return dicom(values, **{**ids, "PatientID": patient, "WindowCenter": 2048, "WindowWidth": 4096, **changed})


def main(kind: str, folder: str, counts: Mapping[str, int] = COUNTS) -> None:
    """Write the set; a table gets its profile beside it."""
    import yaml

    from cxr_tasks.config import resolve
    from cxr_tasks.data.phantoms import write_phantoms

    with tempfile.TemporaryDirectory() as scratch:
        phantoms = Path(scratch, "phantoms")
        write_phantoms(phantoms, counts, image_size=SIDE)
        {"dicom": write_dicom, "table": write_table}[kind](Path(folder), phantoms)
    if kind == "table":
        data = {"classes": list(counts), "folders": {}, "table": TABLE}
        text = resolve("quick", {"data": data}).to_yaml()
        assert yaml.safe_load(text)["data"]["table"]["path"] == TABLE["path"]
        Path(f"{folder}.yaml").write_text(text.replace("profile: quick\n", ""), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
