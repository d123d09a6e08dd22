"""Of which class an image is, by the labels that a table gives it."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cxr_tasks.data.columns import Columns
from cxr_tasks.data_settings import TableSettings, cell_text

NO_CLASS = "no label is a class"
SEVERAL = "labels of several classes"
OTHERS = "a class, and other findings"
UNCERTAIN = "a finding that is uncertain"
DISAGREE = "rows that say different things"


@dataclass(frozen=True)
class Reading:
    """What one row says: the labels that are there, and those that nobody is sure of."""

    labels: frozenset[str]
    unsure: frozenset[str] = frozenset()


class LabelRules:
    """The class of a reading, by the settings of a table."""

    def __init__(self, table: TableSettings, classes: Sequence[str]) -> None:
        """The rules of ``table`` for ``classes`` in their order."""
        self.table = table
        self.order = {label: place for place, label in enumerate(classes)}
        named = {cell_text(label): label for label in classes}
        mapped = {label: meant for label, meant in table.labels.items() if meant in self.order}
        self._class_of = {text.casefold(): label for text, label in (named | mapped).items()} | named | mapped
        self._ignored = {text.casefold() for text in table.ignore}

    def class_of(self, label: str) -> str | None:
        """The class that a label means; ``None`` for any other finding."""
        return self._class_of.get(label, self._class_of.get(label.casefold()))

    def decide(self, readings: Sequence[Reading]) -> tuple[str, str]:
        """The class of an image and '', or '' and the reason why it has none.

        Args:
            readings: Of the image's rows, at least one. Their order does not count.
        """
        if len(set(readings)) > 1:
            if self.table.rows == "agree":
                return "", DISAGREE
            return self._of_reading(self._together(readings))
        return self._of_reading(readings[0])

    def _together(self, readings: Sequence[Reading]) -> Reading:
        least = 1 if self.table.rows == "any" else len(readings) // 2 + 1
        there = Counter(label for reading in readings for label in reading.labels)
        maybe = Counter(label for reading in readings for label in reading.labels | reading.unsure)
        labels = frozenset(label for label, votes in there.items() if votes >= least)
        return Reading(labels, frozenset(label for label, votes in maybe.items() if votes >= least) - labels)

    def _of_reading(self, reading: Reading) -> tuple[str, str]:
        labels = self._counted(reading.labels)
        if not labels:
            # The empty label may have a class of its own.
            labels = {""}
        unsure = self._counted(reading.unsure)
        found = {label for text in labels if (label := self.class_of(text)) is not None}
        others = {text for text in labels if text and self.class_of(text) is None}
        matters = {text for text in unsure if self.class_of(text) is not None or self.table.rule == "exclusive"}
        if matters and (found or any(self.class_of(text) for text in unsure)):
            return "", UNCERTAIN
        if not found:
            return "", NO_CLASS
        if len(found) > 1 and self.table.rule != "first":
            return "", SEVERAL
        if others and self.table.rule == "exclusive":
            return "", OTHERS
        return min(found, key=self.order.__getitem__), ""

    def _counted(self, labels: frozenset[str]) -> set[str]:
        return {text for text in labels if text and text.casefold() not in self._ignored}


def read_labels(columns: Columns, table: TableSettings) -> tuple[np.ndarray, list[Reading]]:
    """What each row says.

    Args:
        columns: Of the table.
        table: Its settings.

    Returns:
        For each row the position of its reading, (n,) int64, and the different readings.

    Raises:
        SettingsError: A column is not there.
    """
    if table.label:
        codes, texts = pd.factorize(columns.get(table.label, "data.table.label"))
        return codes.astype(np.int64), [Reading(frozenset(split_labels(text, table.separator))) for text in texts]
    signs = np.stack(
        [_finding_signs(columns.say(name, "data.table.findings"), table) for name in table.findings], axis=1
    )
    kinds, codes = np.unique(signs, axis=0, return_inverse=True)
    names = np.array([cell_text(name if isinstance(name, str) else name[0]) for name in table.findings])
    unsure_is = table.uncertain_is
    readings = [
        Reading(
            frozenset(names[(kind == 1) | ((kind == 2) & (unsure_is == "present"))].tolist()),
            frozenset(names[kind == 2].tolist() if unsure_is == "set_aside" else ()),
        )
        for kind in kinds
    ]
    return codes.reshape(-1), readings


def split_labels(text: str, separator: str) -> list[str]:
    """The labels of one cell. A list in Python's or JSON's way is read as one, whatever the separator."""
    if text.startswith("[") and text.endswith("]"):
        try:
            found = [str(one) for one in ast.literal_eval(text)]
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            # Some lists have gaps in them, lack a quotation mark, or are nested too deeply for Python's parser.
            found = [one.strip().strip("'\"") for one in text[1:-1].split(",")]
    else:
        found = text.split(separator) if separator else [text]
    return [cell_text(one) for one in found if one.strip()]


def _finding_signs(cells: pd.Series, table: TableSettings) -> np.ndarray:
    """(n,) uint8: 1 where a finding is there, 2 where nobody is sure, else 0."""
    codes, texts = pd.factorize(cells)
    said = [cell_text(text).casefold() for text in texts]
    present, unsure = ({text.casefold() for text in group} for group in (table.present, table.uncertain))
    return np.array([1 if text in present else 2 if text in unsure else 0 for text in said], np.uint8)[codes]


def count_labels(readings: Mapping[Reading, int]) -> list[tuple[str, int]]:
    """How many images have each label, the most frequent first.

    Args:
        readings: How many images there are of each reading.
    """
    counts: Counter[str] = Counter()
    for reading, images in readings.items():
        for label in reading.labels or {""}:
            counts[label] += images
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
