"""Which files of a source are tables of images, and of which class; paths alone decide.

A table is called after its class (``COVID.metadata.csv``) beside the class folders, or lies in the class folder. A
table beside the class folders that is called after no class speaks of all of them, if its columns do.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cxr_tasks.data.sources import Entry
from cxr_tasks.names import composed, normal_form

ANY_CLASS = ""
READ_SUFFIXES = (".csv", ".tsv", ".xlsx")
# Tables of programs whose files nothing here can read.
OTHER_SUFFIXES = (".xls", ".ods", ".xlsb", ".numbers", ".parquet")
UNREADABLE = "save it as .csv or .xlsx, with a column 'FILE NAME'"
# Older releases of the Radiography Database spell the word wrongly.
_METADATA = re.compile(r"[ ._-]*(meta|mata)[ _-]?data[ ._-]*", re.IGNORECASE)
_LIST = re.compile(r"(train|test|val|valid|validation|metadata|labels?)([ ._-].*)?\.txt", re.IGNORECASE)


@dataclass(frozen=True)
class FoundTable:
    """A file that looks like a table of images.

    Attributes:
        entry: The file.
        label: Its class; ``ANY_CLASS`` where the name says none.
        certain: Whether its name says that it is one, so that a fault in it must stop the run.
    """

    entry: Entry
    label: str
    certain: bool


def is_table(name: str) -> bool:
    """Whether a file of this name is a table, or a list such as ``train.txt``."""
    return name.lower().endswith((*READ_SUFFIXES, *OTHER_SUFFIXES)) or _LIST.fullmatch(name) is not None


def is_readable(name: str) -> bool:
    """Whether a table of this name can be read."""
    return name.lower().endswith(READ_SUFFIXES)


def class_of_table(name: str, label_of: Mapping[str, str]) -> tuple[str, bool]:
    """The class that a file beside the class folders is called after.

    Args:
        name: Of the file.
        label_of: The class by each folder name.

    Returns:
        The class, or ``ANY_CLASS``; and whether the name has the word ``metadata`` with it.
    """
    stem = composed(name).rsplit(".", 1)[0]
    told = _METADATA.sub(" ", stem).strip()
    has_word = told != stem.strip()
    # ``label_of`` may hold folders below folders; a table is called after the last.
    names = {folder.rsplit("/", 1)[-1]: label for folder, label in label_of.items()}
    if told in names:
        return names[told], has_word
    spelt: dict[str, set[str]] = defaultdict(set)
    for folder, label in names.items():
        spelt[normal_form(folder)].add(label)
    # Without letters and digits nothing is left of a name to go by: 😷 and 😀 are not the same.
    meant = spelt.get(normal_form(told), set()) if normal_form(told) else set()
    return (next(iter(meant)), has_word) if len(meant) == 1 else (ANY_CLASS, has_word)


def find_tables(
    beside: Iterable[Entry], inside: Iterable[tuple[str, Entry]], label_of: Mapping[str, str], others: Iterable[str]
) -> tuple[list[FoundTable], list[Entry]]:
    """Find the tables of a source.

    Args:
        beside: Files beside the class folders or above them.
        inside: Class and file of each file in a class folder.
        label_of: The class by each folder name.
        others: Names of folders that are no class, whose tables are left alone as they are.

    Returns:
        The tables that can be read, and the files that look like one and cannot.
    """
    left_alone = {normal_form(name) for name in others} - {""}
    tables: list[FoundTable] = []
    unread: list[Entry] = []
    for entry in beside:
        name = entry.path.rsplit("/", 1)[-1]
        if not is_table(name):
            continue
        label, has_word = class_of_table(name, label_of)
        if label == ANY_CLASS and normal_form(_METADATA.sub(" ", composed(name).rsplit(".", 1)[0])) in left_alone:
            continue
        if is_readable(name):
            tables.append(FoundTable(entry, label, has_word and label != ANY_CLASS))
        else:
            unread.append(entry)
    for label, entry in inside:
        name = entry.path.rsplit("/", 1)[-1]
        if is_table(name) and is_readable(name):
            tables.append(FoundTable(entry, label, False))
        elif is_table(name):
            unread.append(entry)
    return tables, unread
