"""Reads a table from any kind of file, everything as text: a patient number 007 is not 7."""

from __future__ import annotations

import bz2
import csv
import gzip
import lzma
import zipfile
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any, cast

import pandas as pd

from cxr_tasks.errors import DataError, shown
from cxr_tasks.names import composed

DELIMITERS = (",", ";", "\t", "|")
PACKED: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def read_text_table(path: Path, columns: Sequence[str] = (), delimiter: str = "") -> pd.DataFrame:
    """The table at ``path``, each cell text without blanks at its ends, '' where it is empty.

    Args:
        path: A ``.parquet`` or ``.xlsx`` file, or text, which may be packed (``.csv.gz``).
        columns: Names of the columns of a text file without a line of names. A line with more cells than names keeps
            the middle ones together in the second column, as a file name with blanks has them.
        delimiter: What stands between cells of a text file; it is found where this is empty.

    Raises:
        DataError: The table cannot be read.
    """
    try:
        table = _read_kind(path, columns, delimiter)
    except Exception as error:  # openpyxl, pyarrow and zipfile raise what they like on a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"The table {shown(path.name)} cannot be read ({reason}): mend it or take it away.") from error
    table.columns = [composed(str(name)).strip() for name in table.columns]
    table = table.loc[:, ~table.columns.duplicated()]
    return table.apply(lambda column: column.str.strip())


def read_list(path: Path) -> list[str]:
    """The lines of a list of files that are not empty.

    Raises:
        DataError: The list cannot be read.
    """
    try:
        with _lines(path) as lines:
            return [line.strip() for line in lines if line.strip()]
    except (OSError, UnicodeError) as error:
        raise DataError(f"The list {shown(path.name)} cannot be read ({error}): mend it or take it away.") from error


def _read_kind(path: Path, columns: Sequence[str], delimiter: str) -> pd.DataFrame:
    name = path.name.lower()
    if name.endswith(".xlsx"):
        return pd.read_excel(path, dtype=str, keep_default_na=False)
    if name.endswith(".parquet"):
        table = pd.read_parquet(path)
        return pd.DataFrame({column: table[column].map(_as_text) for column in table.columns}, dtype=str)
    if columns and delimiter.isspace() and "\t" not in delimiter:
        with _lines(path) as lines:
            return pd.DataFrame([_cells(line, len(columns)) for line in lines if line.strip()], columns=list(columns))
    with _lines(path) as lines:
        first = next((line for line in lines if line.strip()), "")
    sep = delimiter or _delimiter(first)
    with _lines(path) as lines:
        # With an index column, rows that end in a comma too many would shift all columns by one.
        return pd.read_csv(
            lines,
            dtype=str,
            keep_default_na=False,
            index_col=False,
            sep=r"\s+" if sep == " " else sep,
            names=list(columns) or None,
            header=None if columns else "infer",
        )


def _cells(line: str, count: int) -> list[str]:
    cells = line.split()
    if len(cells) > count:
        more = len(cells) - count
        cells = [cells[0], " ".join(cells[1 : 2 + more]), *cells[2 + more :]]
    return cells + [""] * (count - len(cells))


def _delimiter(line: str) -> str:
    """The sign that cuts the line of names into most cells."""
    return max(DELIMITERS, key=lambda sign: len(next(csv.reader([line], delimiter=sign), [])))


def _as_text(value: Any) -> str:
    """A cell of a typed table as text; a list as Python writes it."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        return repr(value)
    return "" if value is None or value != value else str(value)


def _lines(path: Path) -> TextIOWrapper:
    """The text file, unpacked; UTF-16 where its first bytes say so, else UTF-8."""
    with _open(path) as stream:
        start = stream.read(2)
    encoding = "utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    return TextIOWrapper(_open(path), encoding=encoding)


def _open(path: Path) -> IO[bytes]:
    if path.suffix.lower() == ".zip":
        archive = zipfile.ZipFile(path)
        (member,) = archive.namelist()
        return archive.open(member)
    return cast("IO[bytes]", PACKED.get(path.suffix.lower(), open)(path, "rb"))
