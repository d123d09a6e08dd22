"""Whether files of new images are like those of the dataset that a champion was trained on."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_tasks.data.data_docs import expectation_in_words, validated

# What is held against the lowest and the highest of before, and what against all values of before.
MEASURED, LISTED = ("width", "height", "mean", "contrast"), ("site", "mode")
# A share may lie beyond: of exchangeable images the next one is the largest ever once in n.
MOSTLY = 0.95


def new_images_told(known: pd.DataFrame, new: pd.DataFrame, folder: Path) -> list[str]:
    """Hold the manifest of new images against that of a dataset, and write Data Docs.

    Args:
        known: Rows of the manifest of the champion's dataset, with what it has of ``MEASURED`` and ``LISTED``.
        new: The same of new images.
        folder: Where Data Docs are written.

    Returns:
        A sentence for each expectation that is not met.
    """
    # Manifests of older versions lack some.
    there = [name for name in (*MEASURED, *LISTED) if name in known and name in new]
    known, new = (_for_docs(rows[there]) for rows in (known, new))
    outcomes = validated(folder, {"new images": (new, _as_before(known))})
    return [expectation_in_words(config, found) for config, found in outcomes if found is not None]


def _for_docs(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(**{name: rows[name].fillna("").map(escape) for name in LISTED if name in rows})


def _as_before(known: pd.DataFrame) -> list[Any]:
    import great_expectations.expectations as gxe

    between: list[Any] = [
        gxe.ExpectColumnValuesToBeBetween(
            column=name,
            min_value=float(known[name].min()),
            max_value=float(known[name].max()),
            mostly=MOSTLY,
            severity="warning",
        )
        for name in MEASURED
        if name in known
    ]
    return between + [
        gxe.ExpectColumnValuesToBeInSet(
            column=name, value_set=sorted(set(known[name])), mostly=MOSTLY, severity="warning"
        )
        for name in LISTED
        if name in known
    ]
