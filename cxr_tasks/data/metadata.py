"""What tables (``<class>.metadata.csv`` or ``.xlsx``) say of each image: its collection and its patient."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pandas as pd

from cxr_tasks.data.facts import SAID
from cxr_tasks.data.found_tables import ANY_CLASS
from cxr_tasks.data.matching import match_names
from cxr_tasks.data.patients import known_patient
from cxr_tasks.errors import DataError, in_one_line
from cxr_tasks.names import composed

METADATA_COLUMNS = ["label", "name", "source", "patient"]
NAME_COLUMN = "FILE NAME"
# Columns by what their names say without blanks and punctuation, the first that is there counts.
NAME_COLUMNS = ("FILENAME", "FILE", "IMAGENAME", "IMAGE", "IMAGEFILE", "IMAGEFILENAME", "IMAGEINDEX", "XRAYIMAGENAME")
PATIENT_COLUMNS = (
    *("PATIENT", "PATIENTID", "PATIENTNUMBER", "PATIENTNO", "PATIENTUID", "PATIENTKEY", "PATIENTNAME"),
    *("PID", "MRN", "SUBJECT", "SUBJECTID", "SUBJECTNUMBER", "CASEID"),
)
SEPARATORS = (",", ";", "\t", "|")
# Hosts of repositories, and how many parts of an address name one.
REPOSITORIES = {"github.com": 2, "gitlab.com": 2, "kaggle.com": 2, "huggingface.co": 2}
KAGGLE_KINDS = {"datasets"}
SMALLEST_HOST, OTHER_HOSTS = 20, "other websites"
SOURCE_COLUMNS = ("URL", "SOURCE", "COLLECTION")
NAMES_SHOWN = 3


@dataclass(frozen=True)
class ClassTable:
    """One table as it was read.

    Attributes:
        path: Of its file, POSIX, below the source's root.
        label: The class; ``ANY_CLASS`` where the table speaks of all.
        rows: ``METADATA_COLUMNS``, a row a row of the file. ``name`` is as the table has it, ``source`` and ``patient``
            are text, '' where nothing is said.
    """

    path: str
    label: str
    rows: pd.DataFrame

    @property
    def of_whom(self) -> str:
        """Whose images the table names, for people."""
        return "any class" if self.label == ANY_CLASS else f"the class {self.label!r}"

    def matched(self, files: pd.DataFrame) -> int:
        """How many rows name an image among ``files``, which have ``path`` and ``label``."""
        return int((self._match(files)[0] >= 0).sum())

    def _match(self, files: pd.DataFrame) -> tuple[np.ndarray, list[str]]:
        """The position of each row's file, or -1, and the paths that positions count in."""
        mine = files["path"] if self.label == ANY_CLASS else files["path"][files["label"] == self.label]
        paths = mine.tolist()
        return np.array(match_names(self.rows["name"].tolist(), paths), np.int64), paths

    def tell(self, files: pd.DataFrame, least: float) -> tuple[str, bool]:
        """What must be said of how rows and images find each other.

        A table of more images than there are, and one of some of the images, are both in order.

        Args:
            files: Images with ``path`` and ``label``.
            least: The share of the rows, or of the images, that must find each other.

        Returns:
            A sentence, '' where there is nothing to say; and whether it must stop the run.
        """
        found, paths = self._match(files)
        named = set(found[found >= 0].tolist())
        lost = self.rows["name"][found < 0]
        unnamed = [path for place, path in enumerate(paths) if place not in named]
        if lost.empty or not unnamed or not paths:
            return "", False
        share = max(1 - len(lost) / len(found), len(named) / len(paths))
        # A table of all classes may speak of many more images than were taken over.
        fails = not named or (share < least and self.label != ANY_CLASS)
        what = (
            f"{self.path}: {len(found) - len(lost):,} of its {len(found):,} rows name an image of {self.of_whom}, and "
            f"{len(unnamed):,} of {len(paths):,} images are in no row. Rows are {_listed(lost)}, images "
            f"{_listed(unnamed)}"
        )
        todo = f". Write the names of the files into the column {NAME_COLUMN!r}, or take the table away"
        return what + (todo if fails else ""), fails


def _listed(names: Sequence[str] | pd.Series) -> str:
    shown = ", ".join(map(repr, list(names)[:NAMES_SHOWN]))
    return f"{shown}, …" if len(names) > NAMES_SHOWN else shown


def check_tables(tables: Sequence[ClassTable], files: pd.DataFrame, least: float) -> list[str]:
    """Sentences on tables whose rows and images do not all find each other.

    Args:
        tables: What was read.
        files: Images with ``path`` and ``label``.
        least: The share of the rows, or of the images, that must find each other.

    Raises:
        DataError: A table finds no image, or fewer than that share, so that what it says of patients would be lost.
    """
    told = [table.tell(files, least) for table in tables]
    if faults := [sentence for sentence, fails in told if fails]:
        raise DataError(f"Tables do not match the images: {'; '.join(faults)}.")
    return [sentence for sentence, _ in told if sentence]


def say_of_images(files: pd.DataFrame, tables: Sequence[ClassTable]) -> pd.DataFrame:
    """What the tables say of each image.

    Args:
        files: Images with ``path`` and ``label``.
        tables: What was read. A table of the image's class counts before one of all classes.

    Returns:
        ``facts.SAID``, aligned with ``files``. Class tables say the source and the patient alone.
    """
    said = pd.DataFrame("", index=files.index, columns=SAID).assign(age=np.nan)
    rows = join_tables(tables)
    waiting = pd.Series(True, index=files.index)
    for label in sorted(rows["label"].unique(), reverse=True):
        of_label = rows[rows["label"] == label]
        mine = files.index[waiting if label == ANY_CLASS else files["label"] == label]
        found = np.array(match_names(of_label["name"].tolist(), files.loc[mine, "path"].tolist()), np.int64)
        # Of rows for one image the first counts.
        places, first = np.unique(found, return_index=True)
        first = first[places >= 0]
        targets = mine[places[places >= 0]]
        said.loc[targets, ["source", "patient"]] = of_label[["source", "patient"]].to_numpy()[first]
        waiting[targets] = False
    return said


def join_tables(tables: Sequence[ClassTable]) -> pd.DataFrame:
    """Join the class tables into one.

    Returns:
        ``METADATA_COLUMNS``, with the ``source`` of :func:`collections`. Of rows with one name the first counts.
    """
    rows = [pd.DataFrame(columns=METADATA_COLUMNS, dtype=str), *(table.rows for table in tables)]
    table = pd.concat(rows, ignore_index=True).drop_duplicates(["label", "name"], ignore_index=True)
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


def read_table(label: str, path: Path) -> pd.DataFrame:
    """Read the table of one class.

    Args:
        label: The class.
        path: The file. Names of columns are matched whatever their case, blanks and punctuation.

    Returns:
        The ``rows`` of a :class:`ClassTable`.

    Raises:
        DataError: The table cannot be read or does not name files.
    """
    try:
        table = _read(path)
    except Exception as error:  # openpyxl and zipfile raise what they like on a damaged file
        raise DataError(f"The metadata file {path.name} cannot be read ({error}): mend it or take it away.") from error
    table.columns = [str(name).strip().upper() for name in table.columns]
    table = table.loc[:, ~table.columns.duplicated()]
    names = _first_column(table, NAME_COLUMNS)
    if names is None:
        raise DataError(
            f"The metadata file {path.name} has no column {NAME_COLUMN!r}, only {', '.join(map(repr, table.columns))}: "
            "add it or take the file away."
        )
    # A row without a name is of nobody: tables often end in empty rows.
    table, names = table[names != ""], names[names != ""]
    nothing = pd.Series("", index=table.index)
    sources, patients = (_first_column(table, columns) for columns in (SOURCE_COLUMNS, PATIENT_COLUMNS))
    return pd.DataFrame(
        {
            "label": label,
            "name": names,
            "source": nothing if sources is None else sources,
            "patient": nothing if patients is None else patients.map(known_patient),
        }
    ).reset_index(drop=True)


def silence_of(path: Path) -> str:
    """Why the table at ``path`` says nothing of images; '' where it names some with their patients or origins."""
    try:
        columns = {_column(name) for name in _read(path).columns}
    except Exception as error:  # openpyxl and zipfile raise what they like on a damaged file
        return f"it cannot be read ({in_one_line(error)})"
    if columns & set(NAME_COLUMNS) and columns & {*PATIENT_COLUMNS, *SOURCE_COLUMNS}:
        return ""
    return "it has no column of file names ('FILE NAME') with one of patients ('PATIENT') or sources ('URL')"


def _read(path: Path) -> pd.DataFrame:
    """The table, everything as text: a patient number 007 is not 7."""
    if path.suffix.lower() == ".xlsx":
        return pd.read_excel(path, dtype=str, keep_default_na=False)
    with path.open("rb") as stream:
        start = stream.read(2)
    encoding = "utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else _encoding_of(path)
    with path.open(encoding=encoding) as lines:
        header = next((line for line in lines if line.strip()), "")
    # The separator by which the first line has a column of names.
    named = [sign for sign in SEPARATORS if {_column(cell) for cell in header.split(sign)} & set(NAME_COLUMNS)]
    # With an index column, rows that end in a comma too many would shift all columns by one.
    return pd.read_csv(
        path, dtype=str, keep_default_na=False, index_col=False, encoding=encoding, sep=named[0] if named else ","
    )


def _encoding_of(path: Path) -> str:
    """UTF-8, or what Excel on Windows writes in Western Europe and America."""
    try:
        path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8-sig"


def _column(name: object) -> str:
    return re.sub(r"[\W_]+", "", str(name)).upper()


def _first_column(table: pd.DataFrame, names: Sequence[str]) -> pd.Series | None:
    columns = {_column(column): column for column in reversed(table.columns)}
    for name in names:
        if name in columns:
            return table[columns[name]].map(composed).str.strip()
    return None
