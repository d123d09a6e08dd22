"""What class tables say of an image is found under the image's name, as text, whatever program wrote the table."""

from pathlib import Path

import pandas as pd
import pytest
from openpyxl import Workbook

from cxr_tasks.data.metadata import (
    METADATA_COLUMNS,
    OTHER_HOSTS,
    SMALLEST_HOST,
    ClassTable,
    check_tables,
    collections,
    join_tables,
    read_table,
    say_of_images,
    silence_of,
)
from cxr_tasks.errors import DataError

Rows = list[list[object]]


def read_metadata(tables: list[tuple[str, Path]]) -> pd.DataFrame:
    return join_tables([ClassTable(path.name, label, read_table(label, path)) for label, path in tables])


def csv(folder: Path, text: str, name: str = "COVID.metadata.csv") -> tuple[str, Path]:
    (folder / name).write_text(text, encoding="utf-8")
    return name.split(".")[0], folder / name


def xlsx(folder: Path, rows: Rows, name: str = "COVID.metadata.xlsx") -> tuple[str, Path]:
    book = Workbook()
    assert book.active is not None
    for row in rows:
        book.active.append(row)
    book.save(folder / name)
    return name.split(".")[0], folder / name


def patients(table: pd.DataFrame) -> dict[str, str]:
    return dict(zip(table["name"].str.casefold(), table["patient"], strict=True))


def sentence(table: tuple[str, Path]) -> str:
    with pytest.raises(DataError) as raised:
        read_metadata([table])
    return str(raised.value)


def test_tables_of_both_kinds_are_read_into_one(tmp_path: Path) -> None:
    tables = [
        xlsx(tmp_path, [["FILE NAME", "FORMAT", "SIZE", "URL"], ["COVID-1", "PNG", "256*256", "sirm"]]),
        csv(tmp_path, "FILE NAME,URL,PATIENT\nNormal-1,x,P1\nNormal-2,,\n", "Normal.metadata.csv"),
    ]

    table = read_metadata(tables)

    assert table.columns.tolist() == METADATA_COLUMNS
    assert table.to_numpy().tolist() == [
        ["COVID", "COVID-1", "sirm", ""],
        ["Normal", "Normal-1", "x", "P1"],
        ["Normal", "Normal-2", "", ""],
    ]


@pytest.mark.parametrize(
    ("address", "collection"),
    [
        ("https://github.com/ml-workgroup/covid-19-image-repository/tree/master/png", "ml-workgroup"),
        ("https://GitHub.com/ml-workgroup/covid-19-image-repository/blob/main/Viral%20Pneumonia/1.png", "ml-workgroup"),
        ("https://www.kaggle.com/c/rsna-pneumonia-detection-challenge/data", "rsna"),
        ("https://www.kaggle.com/paultimothymooney/chest-xray-pneumonia", "paul"),
        ("http://kaggle.com/datasets/paultimothymooney/chest-xray-pneumonia?select=train", "paul"),
        ("http://[", "http://["),
        ("ftp://a.b/c", "ftp://a.b/c"),
        ("phantom-collection-a", "phantom-collection-a"),
        ("", ""),
    ],
)
def test_an_address_stands_for_its_repository_and_other_texts_for_themselves(address: str, collection: str) -> None:
    names = {
        "ml-workgroup": "github.com/ml-workgroup/covid-19-image-repository",
        "rsna": "kaggle.com/c/rsna-pneumonia-detection-challenge",
        "paul": "kaggle.com/paultimothymooney/chest-xray-pneumonia",
    }

    assert collections(pd.Series([address])).tolist() == [names.get(collection, collection)]


def test_websites_of_few_images_are_one_collection() -> None:
    many = [f"https://www.sirm.org/2020/05/20/covid-19-caso-{n}/" for n in range(SMALLEST_HOST)]
    few = [f"https://radiopaedia.org/cases/{n}" for n in range(SMALLEST_HOST - 1)]
    sources = pd.Series([*many, *few, "https://github.com/a/b/1.png", "here"])

    assert collections(sources).value_counts().to_dict() == {
        "sirm.org": SMALLEST_HOST,
        OTHER_HOSTS: SMALLEST_HOST - 1,
        "github.com/a/b": 1,
        "here": 1,
    }


def test_no_tables_give_an_empty_one() -> None:
    table = read_metadata([])

    assert table.empty
    assert table.columns.tolist() == METADATA_COLUMNS


@pytest.mark.parametrize("patient", ["PATIENT", "patient", " Patient ID ", "PatientID", "patient_id"])
@pytest.mark.parametrize("source", ["URL", "Source", "collection"])
def test_columns_are_found_whatever_their_case(tmp_path: Path, patient: str, source: str) -> None:
    rows: Rows = [[source, patient, "File Name"], ["here", "P1", "COVID-1"]]
    text = "\n".join(",".join(map(str, row)) for row in rows)

    for table in (csv(tmp_path, text), xlsx(tmp_path, rows)):
        assert read_metadata([table]).to_dict("records") == [
            {"label": "COVID", "name": "COVID-1", "source": "here", "patient": "P1"}
        ]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("COVID-1", "COVID/images/COVID-1.png"),
        ("covid-1.PNG", "COVID/images/COVID-1.png"),
        (" COVID-1.jpeg ", "COVID/COVID-1.jpg"),
        ("COVID(12)", "COVID/COVID(12).png"),
        ("1.2.840.113", "1.2.840.113.png"),
        ("1.2.840.113.jpg", "1.2.840.113.png"),
        ("Röntgen 1", "röntgen 1.PNG"),
    ],
)
def test_a_name_in_a_table_finds_its_file(tmp_path: Path, name: str, path: str) -> None:
    label, table = csv(tmp_path, f"FILE NAME,PATIENT\n{name},P1\n")
    files = pd.DataFrame({"path": ["COVID/other.png", path], "label": "COVID"})

    said = say_of_images(files, [ClassTable(table.name, label, read_table(label, table))])

    assert said["patient"].tolist() == ["", "P1"]


def test_numbers_stay_as_they_are_written(tmp_path: Path) -> None:
    text = csv(tmp_path, "FILE NAME,PATIENT\n001,007\n002,7\n003,1e5\n004,NA\n005,7.0\n")
    book = xlsx(tmp_path, [["FILE NAME", "PATIENT"], ["001", "007"], [2, 7], [3, None], ["004", "NA"]])

    assert patients(read_metadata([text])) == {"001": "007", "002": "7", "003": "1e5", "004": "", "005": "7.0"}
    assert patients(read_metadata([book])) == {"001": "007", "2": "7", "3": "", "004": ""}


def test_of_rows_for_one_image_the_first_counts(tmp_path: Path) -> None:
    one = csv(tmp_path, "FILE NAME,PATIENT\nCOVID-1,P1\ncovid-1.png,P2\nCOVID-2,P3\n")
    other = xlsx(tmp_path, [["FILE NAME", "PATIENT"], ["COVID-1", "P4"], ["COVID-3", "P5"]])

    read = [ClassTable(path.name, label, read_table(label, path)) for label, path in (one, other)]
    files = pd.DataFrame({"path": [f"COVID/COVID-{n}.png" for n in (1, 2, 3)], "label": "COVID"})
    assert say_of_images(files, read)["patient"].tolist() == ["P1", "P3", "P5"]


def test_images_of_two_classes_may_have_one_name(tmp_path: Path) -> None:
    tables = [
        csv(tmp_path, f"FILE NAME,PATIENT\n1,{label}-P\n", f"{label}.metadata.csv") for label in ("COVID", "Normal")
    ]

    assert read_metadata(tables)[["label", "patient"]].to_numpy().tolist() == [
        ["COVID", "COVID-P"],
        ["Normal", "Normal-P"],
    ]


@pytest.mark.filterwarnings("ignore::pandas.errors.ParserWarning")
def test_commas_at_the_ends_of_rows_shift_no_column(tmp_path: Path) -> None:
    table = read_metadata([csv(tmp_path, "FILE NAME,URL,PATIENT\nCOVID-1,x,P1,\nCOVID-2,x,P2,\n")])

    assert patients(table) == {"covid-1": "P1", "covid-2": "P2"}


def test_of_columns_that_differ_in_case_only_the_first_counts(tmp_path: Path) -> None:
    table = read_metadata([csv(tmp_path, "FILE NAME,Patient,PATIENT\nCOVID-1,P1,P2\n")])

    assert patients(table) == {"covid-1": "P1"}


def test_blanks_around_words_are_no_part_of_them(tmp_path: Path) -> None:
    assert patients(read_metadata([csv(tmp_path, "FILE NAME , PATIENT\nCOVID-1 , P1 \n")])) == {"covid-1": "P1"}


def test_a_mark_of_windows_before_the_first_column_is_no_part_of_it(tmp_path: Path) -> None:
    assert patients(read_metadata([csv(tmp_path, "\ufeffFILE NAME,PATIENT\nCOVID-1,P1\n")])) == {"covid-1": "P1"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("COVID.metadata.csv", b""),
        ("COVID.metadata.csv", b"FILE NAME\n\x81\x8d\n"),
        ("COVID.metadata.xlsx", b""),
        ("COVID.metadata.xlsx", b"FILE NAME\nCOVID-1\n"),
        ("COVID.metadata.xlsx", b"PK\x03\x04 no workbook"),
    ],
)
def test_damaged_table_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)

    said = sentence(("COVID", tmp_path / name))

    assert said.startswith(f"The metadata file {name} cannot be read (")
    assert said.endswith("): mend it or take it away.")


def test_half_a_workbook_is_named(tmp_path: Path) -> None:
    label, path = xlsx(tmp_path, [["FILE NAME"], *([f"COVID-{n}"] for n in range(500))])
    path.write_bytes(path.read_bytes()[:-2000])

    assert sentence((label, path)).startswith("The metadata file COVID.metadata.xlsx cannot be read (")


def test_vanished_table_is_named(tmp_path: Path) -> None:
    assert "COVID.metadata.csv cannot be read (" in sentence(("COVID", tmp_path / "COVID.metadata.csv"))


def test_table_that_names_no_files_says_what_it_has(tmp_path: Path) -> None:
    assert sentence(csv(tmp_path, "word;url\n1;x\n")) == (
        "The metadata file COVID.metadata.csv has no column 'FILE NAME', only 'WORD;URL': add it or take the file away."
    )
    assert "has no column 'FILE NAME', only 'PATIENT'" in sentence(xlsx(tmp_path, [["patient"], ["P1"]]))


def test_rows_are_counted_that_name_an_image_of_their_class(tmp_path: Path) -> None:
    label, path = csv(tmp_path, "FILE NAME,PATIENT\n1,P1\n1.PNG,P1\n2,P1\n3,P1\n4,P1\n")
    table = ClassTable("COVID.metadata.csv", label, read_table(label, path))
    files = pd.DataFrame({"path": ["COVID/1.png", "a/2.jpeg", "Normal/3.png"], "label": ["COVID", "COVID", "Normal"]})

    assert len(table.rows) == 5
    assert table.matched(files) == 3
    assert table.matched(files.iloc[:0]) == 0


def table_of(names: list[str], label: str = "COVID", patient: str = "P1") -> ClassTable:
    rows = pd.DataFrame({"label": label, "name": names, "source": "", "patient": patient})
    return ClassTable("COVID.metadata.csv", label, rows[METADATA_COLUMNS])


def files_of(*paths: str) -> pd.DataFrame:
    return pd.DataFrame({"path": paths, "label": [path.split("/")[0] for path in paths]})


def test_a_table_that_names_no_image_stops_with_the_figures_and_names_of_both_sides() -> None:
    with pytest.raises(DataError) as raised:
        check_tables([table_of([f"case {n}" for n in range(5)])], files_of("COVID/a.png", "COVID/b.png"), 0.0)

    assert str(raised.value) == (
        "Tables do not match the images: COVID.metadata.csv: 0 of its 5 rows name an image of the class 'COVID', and 2 "
        "of 2 images are in no row. Rows are 'case 0', 'case 1', 'case 2', …, images 'COVID/a.png', 'COVID/b.png'. "
        "Write the names of the files into the column 'FILE NAME', or take the table away."
    )


def test_a_table_of_few_matches_stops_below_the_limit_and_is_told_above_it() -> None:
    table, files = table_of(["1", "2", "x", "y", "z"]), files_of(*(f"COVID/{n}.png" for n in range(1, 6)))

    with pytest.raises(DataError, match=r"2 of its 5 rows name .* and 3 of 5 images are in no row"):
        check_tables([table], files, 0.5)
    assert len(check_tables([table], files, 0.4)) == 1


@pytest.mark.parametrize(
    ("names", "paths"),
    [
        (["1", "2", "3", "4"], ["COVID/1.png"]),
        (["1"], ["COVID/1.png", "COVID/2.png", "COVID/3.png"]),
        ([], ["COVID/1.png"]),
    ],
)
def test_a_table_of_more_or_of_some_of_the_images_is_in_order(names: list[str], paths: list[str]) -> None:
    assert check_tables([table_of(names)], files_of(*paths), 0.9) == []


def test_a_table_of_all_classes_speaks_where_no_class_table_does() -> None:
    files = files_of("COVID/1.png", "COVID/2.png", "Normal/9.png")

    said = say_of_images(files, [table_of(["1", "2", "9"], label="", patient="all"), table_of(["1"], patient="own")])

    assert said["patient"].tolist() == ["own", "all", "all"]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_tables_are_read_whatever_separates_their_columns(tmp_path: Path, separator: str, encoding: str) -> None:
    path = tmp_path / "COVID.metadata.csv"
    path.write_text(separator.join(["filename", "patient_id"]) + "\n" + separator.join(["Ü-1", "P1"]), encoding)

    assert read_table("COVID", path)[["name", "patient"]].to_numpy().tolist() == [["Ü-1", "P1"]]


def test_a_table_of_western_excel_is_read(tmp_path: Path) -> None:
    path = tmp_path / "patients.csv"
    path.write_bytes("FILE NAME;PATIENT\nGröße-1.png;Müller\n".encode("cp1252"))

    assert silence_of(path) == ""
    assert read_table("COVID", path)[["name", "patient"]].to_numpy().tolist() == [["Größe-1.png", "Müller"]]


def test_a_table_that_cannot_be_read_says_so_and_not_that_it_lacks_columns(tmp_path: Path) -> None:
    path = tmp_path / "patients.xlsx"
    path.write_bytes(b"PK\x03\x04 broken")

    assert silence_of(path).startswith("it cannot be read (")


@pytest.mark.parametrize("column", ["SUBJECT", "MRN", "Case ID", "patient_name", "Patient UID"])
def test_further_columns_name_patients(tmp_path: Path, column: str) -> None:
    path = tmp_path / "patients.csv"
    path.write_text(f"FILE NAME,{column}\n1.png,A\n")

    assert read_table("COVID", path)["patient"].tolist() == ["A"]
