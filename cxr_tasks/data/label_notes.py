"""What must be said of a table of labels: how it and the images find each other, and what is not used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import pandas as pd

from cxr_tasks.data.label_rules import DISAGREE, NO_CLASS, OTHERS, SEVERAL, UNCERTAIN, Reading, count_labels
from cxr_tasks.data.layout import ClassMissing
from cxr_tasks.data.matching import Matches
from cxr_tasks.errors import DataError, shown

NO_ROW = "in no row of the table"
VIEW = "a view that is not wanted"
KEPT_OUT = "rows that the table's settings leave out"
ROWS_SHOWN = 3
LABELS_SHOWN = 8
REMEDY = {
    NO_ROW: "are in no row of it",
    KEPT_OUT: "are left out by data.table.keep",
    VIEW: "have a view that is not among data.table.views",
    DISAGREE: "have several rows that say different things (data.table.rows)",
    UNCERTAIN: "have a finding that nobody is sure of (data.table.uncertain_is)",
    NO_CLASS: "have no label that is a class (data.table.labels)",
    SEVERAL: "are of several classes (data.table.rule)",
    OTHERS: "show other findings beside their class (data.table.rule)",
}


def check_match(
    names: pd.Series,
    found: Matches,
    paths: Sequence[str],
    files: str,
    least: float,
    remedy: str,
    archives: Iterable[str],
) -> None:
    """Stop where rows and images do not find each other.

    Args:
        names: What messages call the rows.
        found: Which rows speak of which images.
        paths: Of the images.
        files: What messages call the table.
        least: The share of the rows, or of the images, that must find each other.
        remedy: What to do, in words.
        archives: Sentences on archives, which may hold the images.

    Raises:
        DataError: They do not.
    """
    packed = "".join(f" Note {sentence}." for sentence in archives)
    if not paths or not len(names):
        what = "There is no image beside it" if not paths else "It has no row"
        raise DataError(f"The table {files} names no image. {what}: give the folder that holds both.{packed}")
    lost = names[found.lost]
    rows, images = 1 - len(lost) / len(names), found.named / len(paths)
    if not rows or max(rows, images) < least:
        raise DataError(
            f"The table {files} does not match the images: {len(names) - len(lost):,} of its {len(names):,} rows name "
            f"one of the {len(paths):,} images. Rows are {_some(lost)}, images {_some(list(paths))}. {remedy}{packed}"
        )


def check_filled(decided: pd.DataFrame, readings: Sequence[Reading], classes: Sequence[str], files: str) -> None:
    """Stop where a class has no image.

    Args:
        decided: What became of each image: ``label``, ``reason``, ``reading``.
        readings: What rows say.
        classes: The classes in their order.
        files: What messages call the table.

    Raises:
        ClassMissing: Naming the first such class and the labels that there are.
    """
    there = set(decided["label"])
    if missing := next((label for label in classes if label not in there), None):
        counts = decided.loc[decided["reason"] != NO_ROW, "reason"].value_counts()
        why = "".join(f" {count:,} images {REMEDY[reason]}." for reason, count in counts.items() if reason)
        raise ClassMissing(
            f"Class {missing!r} has no image in the table {files}, whose labels are "
            f"{_labels(decided, readings)}. Map its labels in data.table.labels, or take it out of data.classes.{why}"
        )


def tell_labels(
    names: pd.Series,
    found: Matches,
    decided: pd.DataFrame,
    readings: Sequence[Reading],
    paths: Sequence[str],
    files: str,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Sentences on what a table says, and on what is not used.

    Args:
        names: What messages call the rows.
        found: Which rows speak of which images.
        decided: What became of each image.
        readings: What rows say.
        paths: Of the images.
        files: What messages call the table.
    """
    used = int((decided["label"] != "").sum())
    lost = names[found.lost]
    naming = f"{len(names) - len(lost):,} of {len(names):,} rows name an image"
    told = f"{files}: {naming}, and {used:,} images have a class"
    return (told,), tuple(_not_used(names, lost, decided, readings, paths, files))


def _not_used(
    names: pd.Series,
    lost: pd.Series,
    decided: pd.DataFrame,
    readings: Sequence[Reading],
    paths: Sequence[str],
    files: str,
) -> Iterator[str]:
    if lost.size:
        yield f"{files}: {len(lost):,} of {len(names):,} rows name no image, such as {_some(lost)}"
    for reason, words in REMEDY.items():
        some = decided[decided["reason"] == reason]
        if some.empty:
            continue
        more = ""
        if reason in (NO_CLASS, OTHERS):
            more = f": {_labels(some, readings)}"
        elif reason == VIEW:
            more = f": {_label_counts(Counter(some['view']).most_common())}"
        yield f"{files}: {len(some):,} images {words} and are not used, such as {shown(paths[some.index[0]])!r}{more}"


def _labels(images: pd.DataFrame, readings: Sequence[Reading]) -> str:
    counts = images.loc[images["reading"] >= 0, "reading"].value_counts()
    return _label_counts(count_labels({readings[place]: int(count) for place, count in counts.items()}))


def _label_counts(counts: Sequence[tuple[str, int]]) -> str:
    words = ", ".join(
        f"{label!r} ({count:,})" if label else f"none ({count:,})" for label, count in counts[:LABELS_SHOWN]
    )
    return (words or "none") + (f" and {len(counts) - LABELS_SHOWN:,} more" if len(counts) > LABELS_SHOWN else "")


def _some(names: Sequence[str] | pd.Series) -> str:
    listed = ", ".join(repr(shown(str(name))) for name in list(names)[:ROWS_SHOWN])
    return f"{listed}, …" if len(names) > ROWS_SHOWN else listed
