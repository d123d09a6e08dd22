"""Which files of a source belong to which class, where a table says so and not the folders.

The table is read, each row is matched with its image, the rows of an image are put together, and what they say becomes
a class or a reason why the image is not used. The order of the rows does not count.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from cxr_tasks.config import DataSettings
from cxr_tasks.data.columns import Columns, columns_of
from cxr_tasks.data.facts import SAID, age_in_years, normal_view, sex_letter
from cxr_tasks.data.given import SACRED, split_of_folder
from cxr_tasks.data.keys import FOLDER, match_keys
from cxr_tasks.data.label_notes import KEPT_OUT, NO_ROW, VIEW, check_filled, check_match, tell_labels
from cxr_tasks.data.label_rules import LabelRules, Reading, read_labels
from cxr_tasks.data.layout import TEXT_SUFFIXES, Layout, as_mask, enclosing, lay_out, on_archives, on_masks, pair_masks
from cxr_tasks.data.matching import Matches, match_paths
from cxr_tasks.data.metadata import collections
from cxr_tasks.data.packed import can_be_opened, lay_out_with_archives
from cxr_tasks.data.patients import known_patient
from cxr_tasks.data.plain_paths import plain_paths
from cxr_tasks.data.sources import Entry, Source
from cxr_tasks.data.sources.archive_names import archive_of, is_archive_name
from cxr_tasks.data.table_files import read_list, read_text_table
from cxr_tasks.data_settings import GivenSplit, TableSettings, cell_text
from cxr_tasks.errors import DataError, shown
from cxr_tasks.names import composed

NAMES_LISTED = 8


def lay_out_source(source: Source, settings: DataSettings, address: str) -> Layout:
    """Sort the files of a source by class: by ``data.table`` where the settings have one, else by folders.

    Args:
        source: Where the files are.
        settings: Which classes there are and what says them.
        address: What messages call the source.

    Raises:
        DataError: A class has no image, or the table cannot be read or names other files.
        SettingsError: The settings name a column that is not there.
    """
    if settings.table is None:
        return lay_out_with_archives(
            source, lambda entries: lay_out(entries, settings.classes, settings.folders, address)
        )
    table = settings.table
    return lay_out_with_archives(source, lambda entries: _lay_out_table(source, entries, table, settings, address))


@dataclass(frozen=True)
class LabelRows:
    """The rows of all files of a table.

    Attributes:
        table: A row a row: ``name`` of the image, ``reading`` (its position in ``readings``), ``keep``, ``given``, and
            the texts of ``facts.SAID``.
        readings: What rows say, each once.
        files: What messages call the files.
    """

    table: pd.DataFrame
    readings: list[Reading]
    files: str


def _lay_out_table(
    source: Source, entries: Sequence[Entry], table: TableSettings, settings: DataSettings, address: str
) -> Layout:
    texts = [entry for entry in entries if not _is_image(entry.path)]
    rows, used = _rows_of_files(source, texts, table, address)
    read = {entry.path for entry in texts}
    pictures = [entry for entry in entries if entry.path not in read]
    plain = plain_paths(entries, ())
    above = enclosing(plain.values())
    masked = {entry.path: mask for entry in pictures if (mask := as_mask(plain[entry.path], above, {}))}
    masks = [entry for entry in pictures if entry.path in masked]
    images = [entry for entry in pictures if entry.path not in masked]
    names = rows.table["name"]
    if table.key is None:
        images, found = _match_rows(names.tolist(), images)
    else:
        found = match_keys(names.tolist(), images, source, table.key)
        # The key may name a study, and so a patient.
        names = pd.Series([f"row {number:,}" for number in range(1, len(names) + 1)], names.index)
    paths = [entry.path for entry in images]
    archives = [entry for entry in texts if is_archive_name(entry.path) and entry.path not in used]
    packed = tuple(on_archives([entry.path for entry in archives]))
    check_match(names, found, paths, rows.files, settings.min_table_match, _remedy(table), packed)
    decided = _decide(rows, found, images, table, settings.classes)
    lists = _listed_splits(source, texts, table, paths, address)
    order = {label: place for place, label in enumerate(settings.classes)}
    check_filled(decided, rows.readings, settings.classes, rows.files)
    labels = decided["label"].tolist()
    places = [place for place, label in enumerate(labels) if label]
    places.sort(key=lambda place: (order[labels[place]], paths[place]))
    chosen = decided.loc[places]
    given = dict(zip((paths[place] for place in places), chosen["given"], strict=True))
    given = {path: lists.get(path) or split or _split_of(os.path.dirname(plain[path])) for path, split in given.items()}
    pairs = pair_masks([images[place] for place in places], masks, masked, plain)
    told, notes = tell_labels(names, found, decided, rows.readings, paths, rows.files)
    return Layout(
        [(labels[place], images[place]) for place in places],
        [],
        pairs,
        (*notes, *on_masks(masks, pairs), *packed),
        {path: split for path, split in given.items() if split},
        said=_facts(chosen),
        told=told,
        packed=tuple(entry for entry in archives if can_be_opened(entry)) if found.lost.any() else (),
    )


def _remedy(table: TableSettings) -> str:
    """What to do where rows and images do not find each other."""
    if table.key is None:
        return "Name the column of file names in data.table.path."
    return f"Name the column that holds what data.table.key.matches says of the images ({table.key.matches})."


def _match_rows(names: Sequence[str], images: Sequence[Entry]) -> tuple[list[Entry], Matches]:
    """Find the image of each row. A file in an archive counts only where no other file is the image.

    Returns:
        The images without those in archives whose rows have another; and which of these each row names.
    """
    packed = np.array([bool(archive_of(entry.path)) for entry in images], bool)
    at = np.full(len(names), -1, np.int64)
    spare: set[int] = set()
    for places in (np.flatnonzero(~packed).tolist(), np.flatnonzero(packed).tolist()):
        found = match_paths(names, [images[place].path for place in places])
        found = np.array([*places, -1], np.int64)[found]
        spare |= set(found[(at >= 0) & (found >= 0)].tolist())
        at = np.where(at < 0, found, at)
    spare -= set(at.tolist())
    kept = [place for place in range(len(images)) if place not in spare]
    among = np.full(len(images) + 1, -1, np.int64)
    among[kept] = np.arange(len(kept))
    return [images[place] for place in kept], Matches.of_places(among[at], len(kept))


def _is_image(path: str) -> bool:
    suffix = os.path.splitext(path)[1].lower()
    return suffix not in TEXT_SUFFIXES and suffix != ".parquet" and not is_archive_name(path)


@lru_cache(maxsize=4096)
def _split_of(folder: str) -> str:
    """The split that a folder, or one above it, gives; '' where none does."""
    return next(filter(None, map(split_of_folder, folder.split("/"))), "")


def _rows_of_files(
    source: Source, texts: Sequence[Entry], table: TableSettings, address: str
) -> tuple[LabelRows, set[str]]:
    """The rows of all files of the table, and the paths of all files that are tables or lists."""
    if isinstance(table.file, dict):
        files = _find_some(texts, table.file, "data.table.file", address)
    else:
        patterns = [table.file] if isinstance(table.file, str) else table.file
        files = [("", entry) for name in patterns for entry in _find(texts, name, "data.table.file", address)]
    joined = [_find(texts, join.file, "data.table.joins", address) for join in table.joins]
    lists = [entry for _, entry in _find_lists(texts, table, address)]
    every = [entry for _, entry in files] + [entry for some in joined for entry in some]
    root = source.fetch([*every, *lists])
    further = [_read_all(root, some) for some in joined]
    frames, known = [], dict[Reading, int]()
    for split, entry in files:
        read = read_text_table(root / entry.path, table.columns, table.delimiter)
        columns = Columns(entry.path, read)
        for join, other in zip(table.joins, further, strict=True):
            columns = _join(columns, other, join.by, _mentioned(table))
        frame = _rows_of_file(columns, table, split)
        codes, readings = read_labels(columns, table)
        numbers = np.array([known.setdefault(reading, len(known)) for reading in readings] or [0], np.int64)
        frames.append(frame.assign(reading=numbers[codes] if len(codes) else codes))
    names = ", ".join(dict.fromkeys(entry.path for _, entry in files))
    rows = LabelRows(pd.concat(frames, ignore_index=True), list(known), shown(names))
    return rows, {entry.path for entry in [*every, *lists]}


def _find_some(
    texts: Sequence[Entry], patterns: Mapping[GivenSplit, str], setting: str, address: str
) -> list[tuple[str, Entry]]:
    """The files of each split, of which some splits may have none."""
    found: list[tuple[str, Entry]] = [
        (split, entry) for split, name in patterns.items() for entry in _matching(texts, name)
    ]
    for split, name in patterns.items():
        if not found:
            _find(texts, name, f"{setting}.{split}", address)
    return found


def _matching(texts: Sequence[Entry], pattern: str) -> list[Entry]:
    wanted = composed(pattern).casefold()
    return [entry for entry in texts if PurePosixPath(composed(entry.path).casefold()).match(wanted)]


def _find(texts: Sequence[Entry], pattern: str, setting: str, address: str) -> list[Entry]:
    """The files that a name or a pattern means."""
    found = _matching(texts, pattern)
    if not found:
        listed = ", ".join(repr(shown(entry.path)) for entry in texts[:NAMES_LISTED]) or "none"
        more = f" and {len(texts) - NAMES_LISTED:,} more" if len(texts) > NAMES_LISTED else ""
        raise DataError(
            f"{shown(address)} holds no file {pattern!r}, which {setting} names: its tables are {listed}{more}. Put "
            f"the file there, or name another in {setting}."
        )
    if faulty := next((entry for entry in found if entry.fault), None):
        raise DataError(f"The table {shown(faulty.path)} cannot be read: {faulty.fault}.")
    return found


def _read_all(root: Path, entries: Sequence[Entry]) -> Columns:
    tables = [read_text_table(root / entry.path) for entry in entries]
    return Columns(", ".join(entry.path for entry in entries), pd.concat(tables, ignore_index=True).fillna(""))


def _mentioned(table: TableSettings) -> list[str]:
    """The columns that settings name."""
    facts = [table.path or (table.key and table.key.column), *table.findings, *(getattr(table, fact) for fact in SAID)]
    facts.append(table.split if not isinstance(table.split, dict) else None)
    texts = [one for said in facts if said for one in ([said] if isinstance(said, str) else said)]
    plain = [*table.keep, *([table.label] if table.label else [])]
    return [*plain, *(column for text in texts for column in columns_of(text))]


def _join(first: Columns, other: Columns, by: Sequence[str], mentioned: Sequence[str]) -> Columns:
    """The table ``first`` with the columns of ``other`` that settings mention and it lacks."""
    mine = [str(first.get(key, "data.table.joins").name) for key in by]
    theirs = [str(other.get(key, "data.table.joins").name) for key in by]
    added = dict.fromkeys(other.find(name) for name in mentioned if first.find(name) is None and other.find(name))
    names = [f"key {place}" for place in range(len(mine))]
    left, right = (
        frame.assign(**{name: _map(frame[key], cell_text) for name, key in zip(names, keys, strict=True)})
        for frame, keys in ((first.table, mine), (other.table, theirs))
    )
    # A table that has a row for each box says the same of an image again and again.
    merged = left.merge(right[[*names, *added]].drop_duplicates(), on=names, how="left", indicator="in both")
    if len(merged) and not (merged["in both"] == "both").any():
        raise DataError(
            f"No row of {shown(first.name)} has its {', '.join(map(repr, mine))} in {shown(other.name)}: join other "
            "columns, or another file, in data.table.joins."
        )
    listed = dict.fromkeys([*first.listed, *other.listed])
    return Columns(f"{first.name} with {other.name}", merged.drop(columns=[*names, "in both"]).fillna(""), list(listed))


def _rows_of_file(columns: Columns, table: TableSettings, split: str) -> pd.DataFrame:
    """The rows of one file without their readings."""
    if table.key is None:
        frame = pd.DataFrame({"name": columns.say(table.path or "", "data.table.path")})
    else:
        frame = pd.DataFrame({"name": columns.say(table.key.column, "data.table.key.column")})
    for fact in SAID:
        said = getattr(table, fact)
        frame[fact] = "" if said is None else columns.say(said, f"data.table.{fact}")
    frame["keep"] = True
    for column, values in table.keep.items():
        wanted = {value.casefold() for value in values}
        cells = _map(columns.get(column, "data.table.keep"), cell_text).str.casefold()
        frame["keep"] &= cells.isin(wanted)
    frame["given"] = split
    if table.split is not None and not isinstance(table.split, dict):
        frame["given"] = _map(columns.say(table.split, "data.table.split"), split_of_folder)
    if table.key is not None and table.key.matches == FOLDER and table.study is None:
        # Nothing else says which images are of one study. The header of a file does.
        frame["study"] = frame["name"]
    frame["view"], frame["patient"] = _map(frame["view"], normal_view), _map(frame["patient"], known_patient)
    frame["study"] = _map(frame["study"], known_patient)
    frame["sex"] = _map(frame["sex"], sex_letter)
    return frame


def _map(cells: pd.Series, of_text: object) -> pd.Series:
    """``of_text`` of each cell, called once for each different text."""
    return cells.map({text: of_text(text) for text in cells.unique()})  # type: ignore[operator]


def _listed_splits(
    source: Source, texts: Sequence[Entry], table: TableSettings, paths: Sequence[str], address: str
) -> dict[str, str]:
    """The split that lists of files give images, by their paths; of two splits the one to be kept from training."""
    found: dict[str, str] = {}
    for split, entry in sorted(_find_lists(texts, table, address), key=lambda item: -SACRED[item[0]]):
        lines = read_list(source.fetch([entry]) / entry.path)
        found |= {paths[place]: split for place in match_paths(lines, paths) if place >= 0}
    return found


def _find_lists(texts: Sequence[Entry], table: TableSettings, address: str) -> list[tuple[str, Entry]]:
    """The lists of images of each given split."""
    return _find_some(texts, table.split, "data.table.split", address) if isinstance(table.split, dict) else []


def _decide(
    rows: LabelRows, found: Matches, images: Sequence[Entry], table: TableSettings, classes: Sequence[str]
) -> pd.DataFrame:
    """What becomes of each image: ``label`` or else ``reason``, ``readings``, ``given`` and ``facts.SAID``."""
    matched = rows.table.iloc[found.rows].assign(at=found.images)
    kept = matched[matched["keep"]]
    rules = LabelRules(table, classes)
    decided = pd.DataFrame({"label": "", "reason": NO_ROW}, index=range(len(images)))
    decided.loc[matched["at"].unique(), "reason"] = KEPT_OUT
    decided["reading"] = -1
    for fact in SAID:
        decided[fact] = _agreed(kept, fact).reindex(decided.index).fillna("")
    rank = kept["given"].map(SACRED).groupby(kept["at"]).min()
    decided["given"] = rank.map({rank: split for split, rank in SACRED.items()}).reindex(decided.index).fillna("")
    counts = kept.groupby("at")["reading"].agg(["nunique", "first"])
    alone = counts[counts["nunique"] == 1]
    of_reading = [rules.decide([reading]) for reading in rows.readings]
    decided.loc[alone.index, "reading"] = alone["first"]
    decided.loc[alone.index, "label"] = [of_reading[place][0] for place in alone["first"]]
    decided.loc[alone.index, "reason"] = [of_reading[place][1] for place in alone["first"]]
    several = kept[kept["at"].isin(counts.index[counts["nunique"] > 1])]
    for place, numbers in several.groupby("at")["reading"]:
        decided.loc[place, ["label", "reason"]] = rules.decide([rows.readings[number] for number in numbers])
    if table.views:
        wrong = ~decided["view"].isin([normal_view(view) for view in table.views])
        wrong &= ~decided["reason"].isin([NO_ROW, KEPT_OUT])
        decided.loc[wrong, ["label", "reason"]] = "", VIEW
    return decided


def _agreed(rows: pd.DataFrame, fact: str) -> pd.Series:
    """What the rows of each image say of ``fact``, by the image; '' where they say different things."""
    groups = rows[rows[fact] != ""].groupby("at")[fact]
    return groups.first().mask(groups.nunique() > 1, "")


def _facts(images: pd.DataFrame) -> pd.DataFrame:
    """``facts.SAID`` of the images that are used."""
    said = images[SAID].reset_index(drop=True).astype(object)
    said["source"] = collections(said["source"]) if len(said) else said["source"]
    said["age"] = _map(said["age"], age_in_years).astype(float)
    return said
