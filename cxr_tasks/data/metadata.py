"""What the class tables (``<class>.metadata.csv`` or ``.xlsx``) say of each image: its collection and its patient."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import pandas as pd

from cxr_tasks.errors import DataError

COLUMNS = ["label", "stem", "source", "patient"]
NAME = "FILE NAME"
PATIENT = ("PATIENT", "PATIENT ID", "PATIENTID", "PATIENT_ID")
# Hosts of repositories, and how many parts of an address name one.
REPOSITORIES = {"github.com": 2, "gitlab.com": 2, "kaggle.com": 2, "huggingface.co": 2}
KAGGLE_KINDS = {"datasets"}
SMALLEST_HOST, OTHER_HOSTS = 20, "other websites"
SOURCE = ("URL", "SOURCE", "COLLECTION")


def read_metadata(tables: Sequence[tuple[str, Path]]) -> pd.DataFrame:
    """Read the tables of the classes into one.

    Args:
        tables: class and file; column names are matched whatever their case.

    Returns:
        The columns ``label``, ``stem`` (file name without its ending, upper case), ``source`` (see
        :func:`collections`) and ``patient``; text, empty where nothing is said. Of rows for one image the first counts.

    Raises:
        DataError: a table cannot be read or does not name files.
    """
    read = [pd.DataFrame(columns=COLUMNS, dtype=str), *(_read(label, path) for label, path in tables)]
    table = pd.concat(read, ignore_index=True).drop_duplicates(["label", "stem"], ignore_index=True)
    return table.assign(source=collections(table["source"]))


def collections(sources: pd.Series) -> pd.Series:
    """The collection that each image comes from, by what the tables say of its source.

    Most tables give the address of a page or a file for each image. Of an address what names a repository stays
    (``github.com/owner/name``), else its host (``radiopaedia.org``); hosts of fewer than ``SMALLEST_HOST`` images
    together are ``OTHER_HOSTS``, because figures of a handful of images say nothing. Other texts stay as they are.
    """
    named = sources.map({text: _collection(text) for text in sources.unique()})
    host = (named != sources) & ~named.str.contains("/")
    few = host & (named.groupby(named).transform("size") < SMALLEST_HOST)
    return named.mask(few, OTHER_HOSTS)


def _collection(text: str) -> str:
    try:
        address = urlsplit(text)
        host = (address.hostname or "").removeprefix("www.")
    except ValueError:
        return text
    if address.scheme not in ("http", "https") or not host:
        return text
    # Kaggle's addresses begin with the kind of what they name.
    parts = [part for part in address.path.split("/") if part and part not in KAGGLE_KINDS]
    return "/".join([host, *parts[: REPOSITORIES.get(host, 0)]])


def stem(name: str) -> str:
    """By what a table and a file agree: the name without folder and ending, in upper case."""
    return PurePosixPath(name).stem.upper()


def _read(label: str, path: Path) -> pd.DataFrame:
    try:
        # Everything as text: a patient number 007 is not 7.
        if path.suffix.lower() == ".xlsx":
            table = pd.read_excel(path, dtype=str, keep_default_na=False)
        else:
            # Rows that end in a comma too many would otherwise shift all columns by one.
            table = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False)
    except Exception as error:  # openpyxl and zipfile raise what they like on a damaged file
        raise DataError(f"The metadata file {path.name} cannot be read ({error}): mend it or take it away.") from error
    table.columns = [str(name).strip().upper() for name in table.columns]
    table = table.loc[:, ~table.columns.duplicated()]
    if NAME not in table:
        raise DataError(
            f"The metadata file {path.name} has no column {NAME!r}, only {', '.join(map(repr, table.columns))}: "
            "add it or take the file away."
        )
    names = table[NAME].str.strip()
    suffixed = names.str.lower().str.endswith((".png", ".jpg", ".jpeg"))
    return pd.DataFrame(
        {
            "label": label,
            # Names mostly come without an ending, and a dot in them is then no ending.
            "stem": names.where(~suffixed, names.str.rsplit(".", n=1).str[0]).str.upper(),
            "source": _first(table, SOURCE),
            "patient": _first(table, PATIENT),
        }
    )


def _first(table: pd.DataFrame, names: Sequence[str]) -> pd.Series:
    for name in names:
        if name in table:
            return table[name].str.strip()
    return pd.Series("", index=table.index)
