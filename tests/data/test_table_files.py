"""Tables of every kind are read as text, packed or not, whatever stands between their cells."""

import gzip
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from cxr_tasks.data.table_files import read_list, read_text_table
from cxr_tasks.errors import DataError

TEXT = "name,number\n a ,007\nb,\n"


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
def test_what_stands_between_cells_is_found(tmp_path: Path, sign: str) -> None:
    (tmp_path / "t.txt").write_text(TEXT.replace(",", sign))

    assert read_text_table(tmp_path / "t.txt").to_numpy().tolist() == [["a", "007"], ["b", ""]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_any_unicode_is_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "t.csv").write_text("Röntgen,nr\nü,1\n", encoding=encoding)

    assert read_text_table(tmp_path / "t.csv").to_dict("list") == {"Röntgen": ["ü"], "nr": ["1"]}


def test_packed_tables_are_read(tmp_path: Path) -> None:
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(TEXT.encode()))
    with zipfile.ZipFile(tmp_path / "t.csv.zip", "w") as archive:
        archive.writestr("t.csv", TEXT)

    assert read_text_table(tmp_path / "t.csv.gz").equals(read_text_table(tmp_path / "t.csv.zip"))


def test_typed_cells_become_text(tmp_path: Path) -> None:
    table = pd.DataFrame({"age": [1.5, None], "labels": [["a", "b"], None], "there": [True, False], "id": [7, 8]})
    table.to_parquet(tmp_path / "t.parquet")

    assert read_text_table(tmp_path / "t.parquet").to_numpy().tolist() == [
        ["1.5", "['a', 'b']", "True", "7"],
        ["", "", "False", "8"],
    ]


def test_a_line_of_blanks_may_lack_cells_and_have_blanks_in_a_file_name(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("1 a.png normal rsna\n\n2  b.png normal\n3 c (1).png normal rsna\n")

    rows = read_text_table(tmp_path / "t.txt", ["patient", "file", "label", "source"], " ").to_numpy().tolist()

    assert rows == [
        ["1", "a.png", "normal", "rsna"],
        ["2", "b.png", "normal", ""],
        ["3", "c (1).png", "normal", "rsna"],
    ]


def test_rows_that_end_in_a_comma_too_many_are_not_shifted(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b[x,y],\n1,2,3,\n")

    assert read_text_table(tmp_path / "t.csv")["a"].tolist() == ["1"]


@pytest.mark.parametrize("name", ["t.parquet", "t.xlsx", "t.csv.gz", "t.csv.zip"])
def test_a_damaged_table_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no table at all")

    with pytest.raises(DataError, match=rf"The table {name} cannot be read \(") as told:
        read_text_table(tmp_path / name)
    assert "\n" not in str(told.value)


def test_lists_are_read_by_lines(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.png\n\n b.png \r\nc.png")

    assert read_list(tmp_path / "list.txt") == ["a.png", "b.png", "c.png"]
    with pytest.raises(DataError, match=r"The list none\.txt cannot be read"):
        read_list(tmp_path / "none.txt")
