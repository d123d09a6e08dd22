"""What the class tables (``<class>.metadata.csv`` or ``.xlsx``) say of each image: its collection and its patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import pandas as pd

from cxr_tasks.errors import DataError

METADATA_COLUMNS = ["label", "stem", "source", "patient"]
NAME_COLUMN = "FILE NAME"
PATIENT_COLUMNS = ("PATIENT", "PATIENT ID", "PATIENTID", "PATIENT_ID")
# Hosts of repositories, and how many parts of an address name one.
REPOSITORIES = {"github.com": 2, "gitlab.com": 2, "kaggle.com": 2, "huggingface.co": 2}
KAGGLE_KINDS = {"datasets"}
SMALLEST_HOST, OTHER_HOSTS = 20, "other websites"
SOURCE_COLUMNS = ("URL", "SOURCE", "COLLECTION")


@dataclass(frozen=True)
class ClassTable:
    """One class table as it was read.

    Attributes:
        path: Of its file, POSIX, below the source's root.
        label: The class.
        rows: ``METADATA_COLUMNS``, a row a row of the file. ``stem`` is the file name without its ending, in upper
            case; ``source`` and ``patient`` are text, '' where nothing is said.
    """

    path: str
    label: str
    rows: pd.DataFrame

    def matched(self, files: pd.DataFrame) -> int:
        """How many rows name an image of the class among ``files``, which have ``path`` and ``label``."""
        stems = files["path"][files["label"] == self.label].map(stem)
        return int(self.rows["stem"].isin(stems).sum())


def join_tables(tables: Sequence[ClassTable]) -> pd.DataFrame:
    """Join the class tables into one.

    Returns:
        ``METADATA_COLUMNS``, with the ``source`` of :func:`collections`. Of rows for one image the first counts.
    """
    rows = [pd.DataFrame(columns=METADATA_COLUMNS, dtype=str), *(table.rows for table in tables)]
    table = pd.concat(rows, ignore_index=True).drop_duplicates(["label", "stem"], ignore_index=True)
    return table.assign(source=collections(table["source"]))


def collections(sources: pd.Series) -> pd.Series:
    """The collection that each image comes from, by what the tables say of its source.

    Most tables give the address of a page or a file for each image. Of an address the part that names a repository
    stays (``github.com/owner/name``), or else the host (``radiopaedia.org``). Hosts of fewer than ``SMALLEST_HOST``
    images become ``OTHER_HOSTS``, because figures of a handful of images say nothing. Other texts stay as they are.

    Args:
        sources: What the tables say, one text an image.

    Returns:
        The collection of each image, aligned with ``sources``.
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
    """The name by which a table and a file agree: without folder and ending, in upper case."""
    return PurePosixPath(name).stem.upper()


def read_table(label: str, path: Path) -> pd.DataFrame:
    """Read the table of one class.

    Args:
        label: The class.
        path: The file. Names of columns are matched whatever their case.

    Returns:
        The ``rows`` of a :class:`ClassTable`.

    Raises:
        DataError: The table cannot be read or does not name files.
    """
    try:
        # Everything as text: a patient number 007 is not 7.
        if path.suffix.lower() == ".xlsx":
            table = pd.read_excel(path, dtype=str, keep_default_na=False)
        else:
            # With an index column, rows that end in a comma too many would shift all columns by one.
            table = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False)
    except Exception as error:  # openpyxl and zipfile raise what they like on a damaged file
        raise DataError(f"The metadata file {path.name} cannot be read ({error}): mend it or take it away.") from error
    table.columns = [str(name).strip().upper() for name in table.columns]
    table = table.loc[:, ~table.columns.duplicated()]
    if NAME_COLUMN not in table:
        raise DataError(
            f"The metadata file {path.name} has no column {NAME_COLUMN!r}, only {', '.join(map(repr, table.columns))}: "
            "add it or take the file away."
        )
    names = table[NAME_COLUMN].str.strip()
    suffixed = names.str.lower().str.endswith((".png", ".jpg", ".jpeg"))
    return pd.DataFrame(
        {
            "label": label,
            # Names mostly come without an ending, and a dot in them is then no ending.
            "stem": names.where(~suffixed, names.str.rsplit(".", n=1).str[0]).str.upper(),
            "source": _first_column(table, SOURCE_COLUMNS),
            "patient": _first_column(table, PATIENT_COLUMNS),
        }
    )


def _first_column(table: pd.DataFrame, names: Sequence[str]) -> pd.Series:
    for name in names:
        if name in table:
            return table[name].str.strip()
    return pd.Series("", index=table.index)
