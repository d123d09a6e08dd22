"""Subgroups of images, by what is said of them beside their class: age, sex, view, site, source."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pandas as pd

from cxr_tasks.config import SubgroupSettings
from cxr_tasks.data.ingest import USED

# What is read of a manifest for subgroups; an old one may lack some.
OF_SUBGROUPS = ("image_id", "label", "group", "status", "age", "sex", "view", "site", "source")


def subgroups_of(rows: pd.DataFrame, settings: SubgroupSettings) -> pd.DataFrame:
    """The subgroup of each image by each attribute.

    Args:
        rows: Of a manifest, or of another table with an attribute's columns; see ``facts.SAID``.
        settings: Say by what images are divided.

    Returns:
        The same rows with a categorical column for each attribute that is known of any image, missing where it is
        unknown. Age bands are in order of age, other subgroups in alphabetical order.
    """
    found = {}
    for attribute in settings.attributes:
        if attribute not in rows.columns:
            continue
        told = rows[attribute]
        if attribute == "age":
            subgroups = _age_bands(told.astype(float), settings)
        else:
            text = told.fillna("").astype(str).str.strip()
            subgroups = text.where(text != "").astype("category")
        if subgroups.notna().any():
            found[attribute] = subgroups.cat.remove_unused_categories()
    return pd.DataFrame(found, index=rows.index)


def subgroups_by_image(manifest: pd.DataFrame, settings: SubgroupSettings) -> pd.DataFrame:
    """The subgroups of the used images of a manifest, with image ids as index."""
    return subgroups_of(manifest[manifest["status"] == USED].set_index("image_id"), settings)


def members(rows: pd.DataFrame, subgroups: pd.Series, settings: SubgroupSettings) -> Iterator[tuple[str, pd.DataFrame]]:
    """The subgroups of one attribute that have enough groups to be named, each with its rows.

    Args:
        rows: With the column ``group``.
        subgroups: Of these rows, one column of :func:`subgroups_of`.
        settings: Say how many groups are enough.
    """
    for name, inside in rows.groupby(subgroups, observed=True):
        if inside["group"].nunique() >= settings.min_groups:
            yield str(name), inside


def _age_bands(ages: pd.Series, settings: SubgroupSettings) -> pd.Series:
    """The band of each age in years, of full years as people count them: ``18 to 39`` ends where 40 begins."""
    bounds = settings.age_bands
    between = [f"{low} to {high - 1}" for low, high in pairwise(bounds)]
    names = [f"under {bounds[0]}", *between, f"{bounds[-1]} and over"]
    return pd.cut(ages, [float("-inf"), *bounds, float("inf")], right=False, labels=names)
