"""Whether one group holds too much of a class, and whether each split gets its share of each class.

A group is never divided. One word for many patients, or a chain of near-duplicates, would put most of a class into one
split, whatever the cause: the figures tell.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from cxr_tasks.config import DataSettings
from cxr_tasks.data.given import TEST, TRAIN, VALIDATION

IMAGES_SHOWN = 2


def group_shares(used: pd.DataFrame) -> dict[str, tuple[str, int, int]]:
    """The largest group of each class: its name, how many images of the class it holds, and how many there are."""
    sizes = used.groupby(["label", "group"]).size()
    found = {}
    for label, of_class in sizes.groupby("label"):
        largest = of_class.idxmax()
        found[str(label)] = str(largest[1]), int(of_class.max()), int(of_class.sum())
    return found


def group_faults(used: pd.DataFrame, settings: DataSettings) -> list[str]:
    """A sentence for each class of which one group holds more than ``settings.max_group_fraction``.

    Args:
        used: Rows of used images with ``label``, ``group``, ``patient`` and ``path``.
        settings: The limit.
    """
    told = []
    for label, (group, images, total) in group_shares(used).items():
        # A single image ties nothing together.
        if images < 2 or images <= settings.max_group_fraction * total:
            continue
        rows = used[(used["group"] == group) & (used["label"] == label)]
        named = rows["patient"][rows["patient"] != ""].value_counts()
        shown = " and ".join(rows["path"].head(IMAGES_SHOWN))
        if len(named) == 1 and named.iloc[0] == images:
            what = f"are of the patient {named.index[0]!r}"
            todo = "if that is no patient, empty those cells of the table"
        elif len(named):
            what = (
                f"are tied together by near-duplicates and {len(named):,} patients, {int(named.iloc[0]):,} of them by "
                f"the patient {named.index[0]!r}"
            )
            todo = "if that is no patient, empty those cells of the table; else see whether they are one picture"
        else:
            what = f"count as one picture (group {group!r})"
            todo = "take copies away, or make data.near_duplicates stricter"
        told.append(
            f"{label}: {images:,} of {total:,} images ({images / total:.0%}) {what}, for example {shown}, and no split "
            f"may divide them; at most {settings.max_group_fraction:.0%} are allowed: {todo}, or raise "
            "data.max_group_fraction"
        )
    return told


def split_faults(
    counts: Mapping[str, Mapping[str, int]], table: pd.DataFrame, settings: DataSettings, given: frozenset[str]
) -> list[str]:
    """A sentence for each class that a split has none of, or far less than the shares ask.

    Args:
        counts: Images by split, then by class.
        table: The manifest with its splits and groups.
        settings: Shares and limit.
        given: Splits that are as the source gives them.
    """
    split = settings.split
    # Where whole sources test, validation is a share of the rest.
    drawn = 1 if split.by_source else 1 - split.test
    asked = {TEST: split.test, VALIDATION: split.validation, TRAIN: drawn - split.validation}
    largest = group_shares(table[table["split"] != ""])
    told = []
    for label in settings.classes:
        of_class = {name: counts[name].get(label, 0) for name in asked}
        total = sum(of_class.values())
        rest = total - of_class[TEST] if split.by_source else total
        for name, share in asked.items():
            there, wanted = of_class[name], share * (total if name == TEST else rest or total)
            if there and there >= settings.min_split_fraction * wanted:
                continue
            if name == TEST and split.by_source:
                todo = f"{' and '.join(split.test_sources)} test: name another source in data.split.test_sources"
            elif split.by_source and not rest:
                todo = "no other source has an image of it: take one out of data.split.test_sources"
            elif name in given:
                instead = "ignore" if name == TEST else "test"
                todo = f"the source gives this set: add images to it, set data.split.given to {instead}"
            else:
                group, images, _ = largest.get(label, ("", 0, 0))
                todo = f"its largest group, {group!r}, has {images:,} images and cannot be divided: add other images"
            told.append(
                f"{label}: the {name} split has {there:,} of {total:,} images, and the shares in data.split ask for "
                f"{wanted:.0f}; {todo}, or change the shares or data.min_split_fraction"
            )
    return told
