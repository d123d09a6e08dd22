"""Tables are found wherever they lie and however they are called; those that are not used are named."""

from pathlib import Path

import pytest

from cxr_tasks.data.found_tables import ANY_CLASS, class_of_table
from cxr_tasks.data.scan import Tables, read_tables, scan_files
from cxr_tasks.data.sources import open_source
from cxr_tasks.errors import DataError
from tests.data.reading import data_settings, layout_of

SETTINGS = data_settings(classes=["COVID", "Viral Pneumonia"])
NAMES = ["COVID-1", "COVID-2"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for path in ("COVID/images/COVID-1.png", "COVID/images/COVID-2.png", "Viral Pneumonia/images/v-1.png"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    return tmp_path


def put(source: Path, path: str, text: str = "FILE NAME,PATIENT\nCOVID-1,P1\nCOVID-2,P1\n") -> None:
    (source / path).parent.mkdir(parents=True, exist_ok=True)
    (source / path).write_text(text, encoding="utf-8")


def tables_of(source: Path) -> Tables:
    return read_tables(open_source(str(source)), layout_of(source, SETTINGS), SETTINGS.min_table_match)


def patients(source: Path) -> list[str]:
    return scan_files(open_source(str(source)), layout_of(source, SETTINGS), {})["patient"].tolist()


@pytest.mark.parametrize(
    "path",
    [
        *(
            "COVID.metadata.csv",
            "covid.metadata.csv",
            "COVID-19.metadata.csv",
            "COVID.matadata.csv",
            "covid_metadata.csv",
        ),
        *("COVID metadata.CSV", "COVID.csv", "metadata.csv", "labels.csv", "COVID/metadata.csv", "COVID/covid.csv"),
        *("COVID/images/metadata.csv", "metadata_COVID.csv", "Covid-Metadata.csv"),
    ],
)
def test_a_table_is_found_by_its_name_or_its_columns(source: Path, path: str) -> None:
    put(source, path)

    assert patients(source) == ["P1", "P1", ""]
    assert tables_of(source).warnings == ()


def test_tables_by_tabs_and_the_wrong_word_of_older_releases_are_read(source: Path) -> None:
    put(source, "Viral Pneumonia.matadata.tsv", "FILE NAME\tPATIENT\nv-1\tP7\n")

    assert patients(source) == ["", "", "P7"]


@pytest.mark.parametrize(
    "path", ["COVID.metadata.xls", "metadata.ods", "train.txt", "COVID/metadata.xls", "metadata.parquet"]
)
def test_a_table_that_nothing_can_read_is_named_with_what_to_do(source: Path, path: str) -> None:
    put(source, path, "?")

    assert tables_of(source).warnings == (
        f"{path} looks like a table and is not used: save it as .csv or .xlsx, with a column 'FILE NAME'",
    )
    assert patients(source) == ["", "", ""]


LACKS = "it has no column of file names"


@pytest.mark.parametrize(
    ("text", "why"), [("a,b\n1,2\n", LACKS), ("", "it cannot be read ("), ("FILE NAME\nCOVID-1\n", LACKS)]
)
def test_another_table_beside_the_classes_is_named(source: Path, text: str, why: str) -> None:
    put(source, "prices.csv", text)

    (warning,) = tables_of(source).warnings
    assert warning.startswith(f"prices.csv looks like a table and is not used: {why}")


def test_a_table_of_a_folder_that_is_no_class_is_left_alone(source: Path) -> None:
    put(source, "Lung_Opacity/images/1.png", "x")
    put(source, "Lung_Opacity.metadata.csv")

    assert tables_of(source) == Tables([], ())


def test_a_table_of_a_class_in_its_folder_must_match_too(source: Path) -> None:
    put(source, "COVID/metadata.csv", "FILE NAME,PATIENT\nscan 9,P1\n")

    with pytest.raises(DataError, match=r"COVID/metadata.csv: 0 of its 1 rows name an image of the class 'COVID'"):
        tables_of(source)


def test_a_folder_whose_name_has_no_letter_takes_no_table_away(source: Path) -> None:
    put(source, "_/x.png")
    put(source, "metadata.csv")

    assert patients(source) == ["P1", "P1", ""]


def test_names_without_a_letter_are_not_one() -> None:
    assert class_of_table("😷.metadata.csv", {"😷": "mask", "COVID": "COVID"}) == ("mask", True)
    assert class_of_table("😀.metadata.csv", {"😷": "mask", "COVID": "COVID"}) == (ANY_CLASS, True)


def test_two_images_whose_names_differ_in_their_ending_alone_have_a_patient_each(source: Path) -> None:
    put(source, "COVID/images/COVID-1.jpg", "another image")
    put(source, "COVID.metadata.csv", "FILE NAME,PATIENT\nCOVID-1.png,P1\nCOVID-1.jpg,P2\nCOVID-2,P3\n")

    assert patients(source) == ["P2", "P1", "P3", ""]
    assert tables_of(source).warnings == ()
