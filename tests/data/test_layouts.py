"""Each public layout: a miniature with its columns and quirks is read right, and what is wrong with it is said."""

import gzip
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr_tasks.config import profile_names, resolve
from cxr_tasks.data.ingest import USED
from cxr_tasks.errors import DataError, SettingsError
from cxr_tasks.layouts import layout_names, read_layout
from tests.data.labelled import layout_in, layout_settings, scanned, write
from tests.data.reading import read_folder

Row = dict[str, Any]


@dataclass(frozen=True)
class Miniature:
    """A public data set in small.

    Attributes:
        files: Images and others, by their paths.
        tables: By their paths, as text.
        rows: What must come of it: ``label`` and facts of each image that is used, by its path.
        notes: What must be said.
        columns: Columns without which it cannot be read.
    """

    files: tuple[str, ...]
    tables: Mapping[str, str]
    rows: Mapping[str, Row]
    notes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


NIH_COLUMNS = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
CHEXPERT = [
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
]
MIMIC = sorted(CHEXPERT)
VINDR = [
    "Aortic enlargement",
    "Atelectasis",
    "Calcification",
    "Cardiomegaly",
    "Clavicle fracture",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Enlarged PA",
    "ILD",
    "Infiltration",
    "Lung Opacity",
    "Lung cavity",
    "Lung cyst",
    "Mediastinal shift",
    "Nodule/Mass",
    "Pleural effusion",
    "Pleural thickening",
    "Pneumothorax",
    "Pulmonary fibrosis",
    "Rib fracture",
    "Other lesion",
    "COPD",
    "Lung tumor",
    "Pneumonia",
    "Tuberculosis",
    "Other diseases",
    "No finding",
]
PADCHEST = (
    ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,Projection,Pediatric,"
    "Manufacturer_DICOM,MethodLabel,Labels"
)
COVID_COLUMNS = (
    "patientid,offset,sex,age,finding,RT_PCR_positive,survival,view,modality,date,location,folder,filename,doi,url,"
    "license,clinical_notes,other_notes"
)


def signs(columns: list[str], **values: str) -> str:
    """A line of findings; a column's name has ``_`` for its blanks."""
    named = {name.replace("_", " "): value for name, value in values.items()}
    assert named.keys() <= set(columns)
    return ",".join(named.get(column, "") for column in columns)


def marks(*present: str, columns: list[str] = VINDR) -> str:
    return ",".join(str(int(column in present)) for column in columns)


MIMIC_TABLES = {
    "mimic-cxr-2.0.0-chexpert.csv.gz": "subject_id,study_id,"
    + ",".join(MIMIC)
    + "\n"
    + f"10000032,50414267,{signs(MIMIC, No_Finding='1.0')}\n"
    + f"10000764,57375967,{signs(MIMIC, Pneumonia='1.0', Lung_Opacity='1.0')}\n"
    + f"19999987,55368167,{signs(MIMIC, Pleural_Effusion='1.0', Pneumonia='0.0', Edema='-1.0')}\n",
    "mimic-cxr-2.0.0-split.csv.gz": "dicom_id,study_id,subject_id,split\n02aa804e,50414267,10000032,train\n"
    "174413ec,50414267,10000032,train\n096052b7,57375967,10000764,validate\n58766883,55368167,19999987,test\n",
}

MINIATURES = {
    "radiography": Miniature(
        (
            *("COVID/images/COVID-1.png", "COVID/masks/COVID-1.png", "Normal/images/Normal-1.png"),
            *("Viral Pneumonia/images/Viral Pneumonia-1.png", "Lung_Opacity/images/Lung_Opacity-1.png"),
        ),
        {"COVID.metadata.csv": "FILE NAME,FORMAT,SIZE,URL\nCOVID-1,PNG,256*256,https://github.com/a/b\n"},
        {
            "COVID/images/COVID-1.png": {"label": "COVID", "source": "github.com/a/b"},
            "Normal/images/Normal-1.png": {"label": "Normal"},
            "Viral Pneumonia/images/Viral Pneumonia-1.png": {"label": "Viral Pneumonia"},
        },
    ),
    "covid-qu-ex": Miniature(
        tuple(
            f"{kind} Segmentation Data/{kind} Segmentation Data/{split}/{label}/{folder}/{label}_{split}.png"
            for kind, folders in (("Lung", ("images", "lung masks")), ("Infection", ("images", "infection masks")))
            for folder in folders
            for split in ("Train", "Val", "Test")
            for label in ("COVID-19", "Non-COVID", "Normal")
        ),
        {},
        {
            f"Lung Segmentation Data/Lung Segmentation Data/{split}/{label}/images/{label}_{split}.png": {
                "label": label,
                "given": given,
                "mask": f"Lung Segmentation Data/Lung Segmentation Data/{split}/{label}/lung masks/{label}_{split}.png",
            }
            for split, given in (("Train", "train"), ("Val", "validation"), ("Test", "test"))
            for label in ("COVID-19", "Non-COVID", "Normal")
        },
        ("9 images in the folder 'Infection Segmentation Data' lie in the folder of no class and are not used",),
    ),
    "covidx": Miniature(
        ("train/a.png", "train/nejmc2001573_f1a.jpeg", "train/n.png", "test/MIDRC-8.458-0.png", "test/p.png"),
        {
            "train.txt": "1 a.png pneumonia rsna\n4 nejmc2001573_f1a.jpeg COVID-19 cohen\n7 n.png normal\n",
            "test.txt": "440808-000020 MIDRC-8.458-0.png COVID-19 ricord\n1 p.png normal rsna\n9 no.png normal rsna\n",
        },
        {
            "train/a.png": {"label": "Pneumonia", "given": "train", "patient": "1", "source": "rsna"},
            "train/nejmc2001573_f1a.jpeg": {"label": "COVID-19", "given": "train", "source": "cohen"},
            "train/n.png": {"label": "Normal", "given": "train", "source": ""},
            "test/MIDRC-8.458-0.png": {"label": "COVID-19", "given": "test", "patient": "440808-000020"},
            "test/p.png": {"label": "Normal", "given": "test", "patient": "1"},
        },
        ("1 of 6 rows name no image, such as 'no.png'",),
    ),
    "covid-chestxray": Miniature(
        ("images/a.jpg", "images/b.jpeg", "images/c.png", "images/d.png", "images/e.jpg", "volumes/v.nii.gz"),
        {
            "metadata.csv": f"{COVID_COLUMNS}\n"
            '2,0,M,65,Pneumonia/Viral/COVID-19,Y,Y,PA,X-ray,2020,,images,a.jpg,,https://example.org/1,,,"one, two"\n'
            "3,,F,,Pneumonia/Bacterial/Klebsiella,,,AP Supine,X-ray,2019,,images,b.jpeg,,,,,\n"
            "4,,,,No Finding,,,AP,X-ray,2019,,images,c.png,,,,,\n"
            "2,5,M,65,Pneumonia/Viral/COVID-19,Y,Y,L,X-ray,2020,,images,d.png,,,,,\n"
            "5,,M,40,Pneumonia/Viral/COVID-19,Y,,Axial,CT,2020,,images,e.jpg,,,,,\n"
            "6,,M,40,Pneumonia/Viral/COVID-19,Y,,Coronal,CT,2020,,volumes,v.nii.gz,,,,,\n"
        },
        {
            "images/a.jpg": {"label": "COVID-19", "patient": "2", "view": "PA", "age": 65.0, "sex": "M"},
            "images/b.jpeg": {"label": "Pneumonia", "patient": "3", "view": "AP SUPINE", "sex": "F"},
        },
        (
            "1 of 6 rows name no image, such as 'v.nii.gz'",
            "'volumes/v.nii.gz': an archive of this kind is not read inside a data source",
            "1 images have no label that is a class (data.table.labels) and are not used, such as 'images/c.png'",
            "1 images have a view that is not among data.table.views and are not used, such as 'images/d.png': "
            "'LATERAL' (1)",
            "1 images are left out by data.table.keep and are not used, such as 'images/e.jpg'",
        ),
        ("filename", "finding", "modality", "view"),
    ),
    "nih": Miniature(
        tuple(
            f"images_{folder}/images/{name}.png"
            for folder, name in (
                *(("001", f"0000000{number}_000") for number in (1, 2, 3)),
                *(("012", f"0003080{number}_000") for number in (4, 5, 6)),
            )
        ),
        {
            "Data_Entry_2017.csv": f"{NIH_COLUMNS}\n"
            "00000001_000.png,Atelectasis,0,1,058Y,M,PA,2682,2749,0.143,0.143,\n"
            "00000002_000.png,Effusion|Infiltration,0,2,81,M,PA,2500,2048,0.171,0.171,\n"
            "00000003_000.png,No Finding,0,3,411,F,AP,2500,2048,0.168,0.168,\n"
            "00030804_000.png,Infiltration,0,30804,30,F,PA,2048,2500,0.168,0.168,\n"
            "00030805_000.png,Effusion,0,30805,27,M,PA,2048,2500,0.171,0.171,\n"
            "00030806_000.png,Hernia,0,30806,40,M,PA,2048,2500,0.171,0.171,\n",
            "train_val_list.txt": "00000001_000.png\n00000002_000.png\n00000003_000.png\n00030806_000.png\n",
            "test_list.txt": "00030804_000.png\n00030805_000.png",
        },
        {
            "images_001/images/00000001_000.png": {
                **{"label": "Atelectasis", "given": "train", "patient": "1", "age": 58.0, "sex": "M", "view": "PA"}
            },
            "images_001/images/00000003_000.png": {"label": "No Finding", "given": "train", "view": "AP", "sex": "F"},
            "images_012/images/00030804_000.png": {"label": "Infiltration", "given": "test", "age": 30.0},
            "images_012/images/00030805_000.png": {"label": "Effusion", "given": "test", "patient": "30805"},
        },
        (
            "1 images are of several classes (data.table.rule) and are not used",
            "images_012/images/00030806_000.png': 'Hernia' (1)",
        ),
        ("Image Index", "Finding Labels", "Patient ID", "View Position", "Patient Age", "Patient Gender"),
    ),
    "chexpert": Miniature(
        (
            *(f"train/patient0000{number}/study1/view1_frontal.jpg" for number in (1, 2, 3, 4)),
            *("train/patient00001/study1/view2_lateral.jpg", "train/patient00001/study2/view1_frontal.jpg"),
            "valid/patient64541/study1/view1_frontal.jpg",
        ),
        {
            "train.csv": "Path,Sex,Age,Frontal/Lateral,AP/PA,"
            + ",".join(CHEXPERT)
            + "\n"
            + "".join(
                f"CheXpert-v1.0-small/train/{line}\n"
                for line in (
                    "patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,"
                    + signs(CHEXPERT, No_Finding="1.0", Support_Devices="1.0"),
                    "patient00001/study1/view2_lateral.jpg,Female,68,Lateral,," + signs(CHEXPERT, No_Finding="1.0"),
                    "patient00001/study2/view1_frontal.jpg,Female,68,Frontal,PA,"
                    + signs(CHEXPERT, Pneumonia="1.0", Lung_Opacity="1.0", Edema="-1.0"),
                    "patient00002/study1/view1_frontal.jpg,Male,87,Frontal,AP," + signs(CHEXPERT, Pneumonia="-1.0"),
                    "patient00003/study1/view1_frontal.jpg,Male,41,Frontal,AP,"
                    + signs(CHEXPERT, Pneumonia="1.0", Pleural_Effusion="1.0"),
                    "patient00004/study1/view1_frontal.jpg,Unknown,0,Frontal,RL," + signs(CHEXPERT, No_Finding="1.0"),
                )
            ),
            "valid.csv": "Path,Sex,Age,Frontal/Lateral,AP/PA," + ",".join(CHEXPERT) + "\n"
            "CheXpert-v1.0-small/valid/patient64541/study1/view1_frontal.jpg,Male,73,Frontal,AP,"
            + signs(CHEXPERT, Pleural_Effusion="1.0", No_Finding="0.0")
            + "\n",
        },
        {
            "train/patient00001/study1/view1_frontal.jpg": {
                **{"label": "No Finding", "given": "train", "patient": "patient00001", "sex": "F", "age": 68.0},
                **{"study": "patient00001/study1", "view": "AP"},
            },
            "train/patient00001/study2/view1_frontal.jpg": {"label": "Pneumonia", "view": "PA"},
            "valid/patient64541/study1/view1_frontal.jpg": {"label": "Pleural Effusion", "given": "validation"},
        },
        (
            "2 images have a view that is not among data.table.views and are not used, such as "
            "'train/patient00001/study1/view2_lateral.jpg': 'LATERAL' (2)",
            "1 images have a finding that nobody is sure of (data.table.uncertain_is)",
            "1 images are of several classes (data.table.rule)",
        ),
        ("Path", "Pneumonia", "No Finding", "Age", "Sex"),
    ),
    "padchest": Miniature(
        tuple(
            f"{folder}/{name}.png"
            for folder, name in (
                (0, "2168_00-1"),
                (0, "2168_00-2"),
                (14, "3_04-3"),
                (14, "4_04-4"),
                (54, "5_04-5"),
                (54, "6_04-6"),
            )
        ),
        {
            "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv": f"{PADCHEST}\n"
            "0,2168_00-1.png,0,20140915,2053,8395,1930.0,M,PA,No,ImagingDynamicsCompanyLtd,Physician,"
            "\"['pneumonia', 'unchanged']\"\n"
            "1,2168_00-2.png,0,20140915,2053,8395,1930.0,M,L,No,ImagingDynamicsCompanyLtd,Physician,['pneumonia']\n"
            "2,3_04-3.png,14,20120101,2054,8396,1950.0,F,PA,No,PhilipsMedicalSystems,RNN_model,['normal']\n"
            "3,4_04-4.png,14,20120101,2055,8397,,,PA,No,PhilipsMedicalSystems,RNN_model,"
            "\"['cardiomegaly', ' ', 'pacemaker']\"\n"
            "4,5_04-5.png,54,20120101,2056,8398,1970.0,F,PA,No,PhilipsMedicalSystems,Physician,['cardiomegaly ']\n"
            "5,6_04-6.png,54,20120101,2057,8399,1970.0,F,PA,No,PhilipsMedicalSystems,Physician,\n"
        },
        {
            "0/2168_00-1.png": {"label": "pneumonia", "patient": "8395", "study": "2053", "view": "PA", "sex": "M"},
            "14/3_04-3.png": {"label": "normal", "source": "PhilipsMedicalSystems"},
            "54/5_04-5.png": {"label": "cardiomegaly", "sex": "F"},
        },
        (
            "1 images have a view that is not among data.table.views",
            "1 images show other findings beside their class (data.table.rule) and are not used, such as "
            "'14/4_04-4.png'",
            "1 images have no label that is a class (data.table.labels) and are not used, such as '54/6_04-6.png': "
            "none (1)",
        ),
        ("ImageID", "Labels", "PatientID", "Projection"),
    ),
    "rsna": Miniature(
        (
            *("stage_2_train_images/0004cfab-14fd.dcm", "stage_2_train_images/00313ee0-9eaa.dcm"),
            *("stage_2_train_images/00322d4d-1c29.dcm", "stage_2_test_images/0000a175-0e68.dcm"),
        ),
        {
            "stage_2_detailed_class_info.csv": "patientId,class\n0004cfab-14fd,Lung Opacity\n"
            "0004cfab-14fd,Lung Opacity\n00313ee0-9eaa,Normal\n00322d4d-1c29,No Lung Opacity / Not Normal\n",
            "stage_2_train_labels.csv": "patientId,x,y,width,height,Target\n0004cfab-14fd,264,152,213,379,1\n"
            "0004cfab-14fd,562,152,256,453,1\n00313ee0-9eaa,,,,,0\n00322d4d-1c29,,,,,0\n",
        },
        {
            "stage_2_train_images/0004cfab-14fd.dcm": {"label": "Lung Opacity", "patient": "0004cfab-14fd"},
            "stage_2_train_images/00313ee0-9eaa.dcm": {"label": "Normal", "patient": "00313ee0-9eaa"},
        },
        (
            "1 images are in no row of it and are not used, such as 'stage_2_test_images/0000a175-0e68.dcm'",
            "'No Lung Opacity / Not Normal' (1)",
        ),
        ("patientId", "class"),
    ),
    "vindr": Miniature(
        tuple(f"{path}.dicom" for path in ("train/50a4", "train/21a1", "train/9a52", "test/002a", "test/0040")),
        {
            "annotations/image_labels_train.csv": "image_id,rad_id," + ",".join(VINDR) + "\n"
            f"50a4,R10,{marks('No finding')}\n50a4,R2,{marks('Pneumonia')}\n50a4,R9,{marks('No finding')}\n"
            f"21a1,R9,{marks('Pneumonia', 'Lung Opacity')}\n21a1,R8,{marks('Pneumonia')}\n21a1,R10,{marks('ILD')}\n"
            f"9a52,R1,{marks('Pneumonia')}\n9a52,R2,{marks('COPD')}\n9a52,R3,{marks('No finding')}\n",
            "annotations/image_labels_test.csv": "image_id," + ",".join(VINDR).replace("diseases", "disease") + "\n"
            f"002a,{marks('Pleural effusion', 'Cardiomegaly')}\n0040,{marks('Other diseases')}\n",
        },
        {
            "train/50a4.dicom": {"label": "No finding", "given": "train"},
            "train/21a1.dicom": {"label": "Pneumonia", "given": "train"},
            "test/002a.dicom": {"label": "Pleural effusion", "given": "test"},
        },
        ("2 images have no label that is a class (data.table.labels)",),
        ("image_id", "No finding", "Other diseases"),
    ),
    "mimic-cxr": Miniature(
        (
            *(f"files/p10/p10000032/s50414267/{name}.dcm" for name in ("02aa804e", "174413ec")),
            *("files/p10/p10000764/s57375967/096052b7.dcm", "files/p19/p19999987/s55368167/58766883.dcm"),
        ),
        {
            "cxr-record-list.csv.gz": "subject_id,study_id,dicom_id,path\n"
            + "".join(
                f"{subject},{study},{dicom},files/p{subject[:2]}/p{subject}/s{study}/{dicom}.dcm\n"
                for subject, study, dicom in (
                    *(("10000032", "50414267", "02aa804e"), ("10000032", "50414267", "174413ec")),
                    *(("10000764", "57375967", "096052b7"), ("19999987", "55368167", "58766883")),
                )
            ),
            **MIMIC_TABLES,
        },
        {
            "files/p10/p10000032/s50414267/02aa804e.dcm": {
                **{"label": "No Finding", "given": "train", "patient": "10000032", "study": "50414267"}
            },
            "files/p10/p10000032/s50414267/174413ec.dcm": {"label": "No Finding", "given": "train"},
            "files/p10/p10000764/s57375967/096052b7.dcm": {"label": "Pneumonia", "given": "validation"},
            "files/p19/p19999987/s55368167/58766883.dcm": {"label": "Pleural Effusion", "given": "test"},
        },
        (),
        ("dicom_id", "subject_id", "path", "Pneumonia", "split"),
    ),
    "mimic-cxr-jpg": Miniature(
        (
            *(f"files/p10/p10000032/s50414267/{name}.jpg" for name in ("02aa804e", "174413ec")),
            *("files/p10/p10000764/s57375967/096052b7.jpg", "files/p19/p19999987/s55368167/58766883.jpg"),
        ),
        {
            "mimic-cxr-2.0.0-metadata.csv.gz": "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,"
            "ViewPosition,Rows,Columns,StudyDate,StudyTime\n"
            "02aa804e,10000032,50414267,CHEST (PA AND LAT),PA,3056,2544,21800506,213014.531\n"
            "174413ec,10000032,50414267,CHEST (PA AND LAT),LATERAL,3056,2544,21800506,213014.531\n"
            "096052b7,10000764,57375967,CHEST PORTABLE,AP,3056,2544,21800506,213014.531\n"
            "58766883,19999987,55368167,CHEST PORTABLE,AP,3056,2544,21800506,213014.531\n",
            **MIMIC_TABLES,
        },
        {
            "files/p10/p10000032/s50414267/02aa804e.jpg": {
                **{"label": "No Finding", "given": "train", "patient": "10000032", "study": "50414267", "view": "PA"}
            },
            "files/p10/p10000764/s57375967/096052b7.jpg": {"label": "Pneumonia", "given": "validation"},
            "files/p19/p19999987/s55368167/58766883.jpg": {"label": "Pleural Effusion", "given": "test"},
        },
        ("1 images have a view that is not among data.table.views",),
        ("dicom_id", "subject_id", "ViewPosition", "Pneumonia", "split"),
    ),
}
TABLED = [name for name, miniature in MINIATURES.items() if miniature.columns]


def build(folder: Path, miniature: Miniature, change: Callable[[str], str] = str) -> Path:
    """Write a miniature, whose tables are changed before."""
    write(folder, miniature.files)
    for path, text in miniature.tables.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        content = change(text).encode()
        (folder / path).write_bytes(gzip.compress(content) if path.endswith(".gz") else content)
    return folder


@pytest.mark.parametrize("name", MINIATURES)
def test_a_miniature_of_images_becomes_the_right_manifest(tmp_path: Path, name: str) -> None:
    """Images are PNG whatever their name says; content decides how a file is read."""
    miniature = MINIATURES[name]
    build(tmp_path / "source", miniature)
    chance = np.random.default_rng(0)
    for path in miniature.files:
        gray = chance.integers(0, 256, (64, 64), np.uint8)
        Image.fromarray(np.where(gray > 127, 255, 0).astype(np.uint8) if "masks" in path else gray).save(
            tmp_path / "source" / path, "png"
        )

    manifest = read_folder(tmp_path / "source", tmp_path / "work", layout_settings(name)).manifest.set_index("path")

    assert set(manifest.index) == set(miniature.rows) and set(manifest["status"]) == {USED}, manifest["reason"]
    for path, row in miniature.rows.items():
        facts = {fact: manifest.at[path, fact] for fact in row if fact != "mask"}
        assert facts == {fact: value for fact, value in row.items() if fact != "mask"}, path
        assert manifest.at[path, "mask"] == ("mask" in row or path == "COVID/images/COVID-1.png")
    # Images of one patient are one group, whatever their classes.
    groups = manifest[manifest["patient"] != ""].groupby("patient")["group"].nunique()
    assert (groups == 1).all()


def test_every_layout_has_a_miniature_and_says_what_it_is() -> None:
    assert layout_names() == sorted(MINIATURES)
    for name in layout_names():
        assert read_layout(name)["description"].endswith(".")
        for profile in profile_names():
            assert resolve(profile, {"data": {"layout": name}}).data.layout == name


@pytest.mark.parametrize("name", MINIATURES)
def test_a_miniature_is_read_into_the_right_rows(tmp_path: Path, name: str) -> None:
    miniature = MINIATURES[name]
    settings = layout_settings(name)
    build(tmp_path, miniature)

    rows = scanned(tmp_path, settings)

    assert set(rows.index) == set(miniature.rows)
    for path, row in miniature.rows.items():
        assert {fact: rows.at[path, fact] for fact in row} == row, path
    found = layout_in(tmp_path, settings)
    for note in miniature.notes:
        assert any(note in said for said in found.notes), (note, found.notes)
    assert len(found.notes) == len(miniature.notes)


@pytest.mark.parametrize("name", [*TABLED, "covidx"])
def test_a_table_that_is_not_there_is_asked_for(tmp_path: Path, name: str) -> None:
    write(tmp_path, MINIATURES[name].files, {"notes.csv": "a,b\n"})

    with pytest.raises(DataError, match=r"holds no file .*, which data.table.file.* names: its tables are 'notes.csv'"):
        layout_in(tmp_path, layout_settings(name))


@pytest.mark.parametrize(("name", "column"), [(name, column) for name in TABLED for column in MINIATURES[name].columns])
def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path: Path, name: str, column: str) -> None:
    def rename(text: str) -> str:
        head, _, rows = text.partition("\n")
        names = [f"other {one}" if one == column or one == column[:-1] else one for one in head.split(",")]
        return f"{','.join(names)}\n{rows}"

    build(tmp_path, MINIATURES[name], rename)

    with pytest.raises(
        SettingsError, match=rf"has no column '{column}', which data\.table\.\w+ names: it has "
    ) as told:
        layout_in(tmp_path, layout_settings(name))
    assert f"'other {column}" in str(told.value)


@pytest.mark.parametrize("name", [*TABLED, "covidx"])
def test_a_table_of_other_images_is_refused(tmp_path: Path, name: str) -> None:
    build(tmp_path, MINIATURES[name])
    for path in MINIATURES[name].files:
        (tmp_path / path).unlink()
    write(tmp_path, ["elsewhere/one.png", "elsewhere/two.png"])

    with pytest.raises(DataError, match=r"does not match the images: 0 of its .* rows name one of the 2 images"):
        layout_in(tmp_path, layout_settings(name))


@pytest.mark.parametrize("name", [*TABLED, "covidx"])
def test_a_class_that_no_label_means_is_named_with_the_labels(tmp_path: Path, name: str) -> None:
    build(tmp_path, MINIATURES[name])

    with pytest.raises(DataError, match=r"Class 'Cold' has no image in the table .*, whose labels are '") as told:
        layout_in(tmp_path, layout_settings(name, classes=["Cold", *layout_settings(name).classes]))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("name", "gone", "sentence"),
    [
        ("radiography", "COVID/images", "Folder 'COVID' in /data/xrays holds no image beside masks (1): put"),
        ("radiography", "Normal/images", "Class 'Normal' has no image: in /data/xrays there are files below"),
        ("radiography", "", "Class 'COVID' has no image: in /data/xrays there are files below no folder"),
        ("covid-qu-ex", "COVID-19", "Class 'COVID-19' has no image"),
        ("covid-qu-ex", "Normal", "Class 'Normal' has no image"),
        ("covid-qu-ex", "Non-COVID", "Class 'Non-COVID' has no image"),
    ],
)
def test_a_class_folder_that_is_not_there_is_asked_for(tmp_path: Path, name: str, gone: str, sentence: str) -> None:
    write(tmp_path, [path for path in MINIATURES[name].files if gone not in path])

    with pytest.raises(DataError, match=re.escape(sentence)) as told:
        layout_in(tmp_path, layout_settings(name))
    assert "\n" not in str(told.value)


def test_archives_in_the_place_of_images_are_named(tmp_path: Path) -> None:
    build(tmp_path, MINIATURES["nih"])
    for number in (1, 12):
        shutil.rmtree(tmp_path / f"images_{number:03d}")
    write(tmp_path, ["images_001.7z", "images_012.7z"])

    with pytest.raises(DataError, match=r"names no image.* Note 'images_001.7z' and 1 more: .* unpack it"):
        layout_in(tmp_path, layout_settings("nih"))


@pytest.mark.parametrize("inner", ["Lung Segmentation Data", "Lung Segmentation Data/Lung Segmentation Data"])
def test_the_segmentation_folder_of_covid_qu_ex_is_a_source_too(tmp_path: Path, inner: str) -> None:
    build(tmp_path, MINIATURES["covid-qu-ex"])

    rows = scanned(tmp_path / inner, layout_settings("covid-qu-ex"))

    assert len(rows) == 9 and set(rows["given"]) == {"train", "validation", "test"} and (rows["mask"] != "").all()


@pytest.mark.parametrize("folders", [("COVID-19", "NORMAL", "Viral Pneumonia"), ("COVID", "Normal", "Viral_Pneumonia")])
def test_older_releases_of_the_radiography_database_are_read(tmp_path: Path, folders: tuple[str, ...]) -> None:
    write(tmp_path, [f"COVID-19 Radiography Database/{folder}/{folder} (1).png" for folder in folders])

    rows = scanned(tmp_path, layout_settings("radiography"))

    assert rows["label"].tolist() == ["COVID", "Normal", "Viral Pneumonia"]


def test_binary_lists_of_covidx_have_their_own_classes(tmp_path: Path) -> None:
    write(tmp_path, ["train/a.png", "train/b.png", "test/c.png"])
    lists = {"train.txt": "1 a.png positive cohen\n2 b.png negative rsna\n", "test.txt": "3 c.png positive ricord\n"}
    write(tmp_path, tables=lists)

    rows = scanned(tmp_path, layout_settings("covidx", classes=["positive", "negative"]))

    assert rows["label"].to_dict() == {"train/a.png": "positive", "train/b.png": "negative", "test/c.png": "positive"}


def test_a_profile_that_names_a_layout_has_the_last_word(tmp_path: Path) -> None:
    text = resolve("quick", {"data": {"layout": "nih", "classes": ["Mass", "No Finding"]}}).to_yaml()
    (tmp_path / "mine.yaml").write_text(text.replace("profile: quick\n", ""))

    own = resolve(str(tmp_path / "mine.yaml"))
    other = resolve(str(tmp_path / "mine.yaml"), {"data": {"layout": "rsna"}})

    assert own.data.classes == ("Mass", "No Finding") and own.data.table is not None
    assert other.data.classes == ("Lung Opacity", "Normal")
    assert other.data.table is not None and other.data.table.path == "patientId"
    assert resolve("quick", {"data": {"layout": "radiography"}}).data.table is None


def test_ages_that_nobody_has_are_not_known(tmp_path: Path) -> None:
    build(tmp_path, MINIATURES["nih"])

    ages = scanned(tmp_path, layout_settings("nih"))["age"]

    assert pd.isna(ages["images_001/images/00000003_000.png"]) and ages.notna().sum() == 3
