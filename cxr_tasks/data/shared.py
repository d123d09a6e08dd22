"""What several sources of a dataset share: files, pictures and patients; and what must be said of that."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cxr_tasks.data.duplicates import CLASH, IDENTICAL
from cxr_tasks.data.ingest import USED
from cxr_tasks.strict import Strict


class SharedBySources(Strict):
    """What two sources share.

    Attributes:
        first: One source, by its name.
        second: The other one.
        files: Images of the same bytes.
        pictures: Pairs of images of other bytes that show one picture.
        patients: Patients who have images in both.
    """

    first: str
    second: str
    files: int
    pictures: int
    patients: int


def shared_by_sources(manifest: pd.DataFrame, near: pd.DataFrame) -> list[SharedBySources]:
    """What each two sources share, of those that share anything.

    Args:
        manifest: Rows of all files with their ``site``.
        near: Pairs of near-duplicates, image ids ``first`` and ``second``.
    """
    read = manifest[_is_read(manifest)]
    sites = _site_of_used(manifest)
    pairs = pd.DataFrame({"one": near["first"].map(sites), "other": near["second"].map(sites)}).dropna()
    counts = {
        "files": _in_both(read, "image_id"),
        "pictures": _sizes(pairs[pairs["one"] != pairs["other"]]),
        "patients": _in_both(read[read["patient"] != ""], "patient"),
    }
    both = sorted({pair for of_kind in counts.values() for pair in of_kind})
    return [
        SharedBySources(
            first=first,
            second=second,
            **{kind: of_kind.get((first, second), 0) for kind, of_kind in counts.items()},
        )
        for first, second in both
    ]


def tell_sources(manifest: pd.DataFrame, near: pd.DataFrame) -> list[str]:
    """What people must know of a dataset of several sources; nothing where there is one alone.

    Args:
        manifest: Rows of all files with their ``site``.
        near: Pairs of near-duplicates, image ids ``first`` and ``second``.
    """
    if manifest["site"].nunique() < 2:
        return []
    told = []
    for pair in shared_by_sources(manifest, near):
        who = f"{pair.first} and {pair.second}"
        if pair.files:
            told.append(f"{pair.files:,} files are in {who}: each is used once")
        if pair.pictures:
            told.append(f"{pair.pictures:,} pairs of images of {who} show one picture: no split divides them")
        if pair.patients:
            told.append(
                f"{pair.patients:,} patient ids are in {who}, and count as one patient each: if each source numbers "
                "its patients on its own, set patients: own for both in data.sources"
            )
    return told


def copies_of_other_sources(manifest: pd.DataFrame) -> np.ndarray:
    """(n,) bool: which rows are set aside because another source has the same file, which is used."""
    kept = manifest["image_id"].map(_site_of_used(manifest))
    repeated = manifest["reason"].str.startswith(IDENTICAL) & kept.notna() & (kept != manifest["site"])
    return repeated.to_numpy(bool)


def _site_of_used(manifest: pd.DataFrame) -> pd.Series:
    """The source of each used image, by ``image_id``."""
    return manifest[manifest["status"] == USED].drop_duplicates("image_id").set_index("image_id")["site"]


def _is_read(manifest: pd.DataFrame) -> pd.Series:
    """Which rows are whole images: used ones, and those that are set aside because another has the same bytes."""
    return (manifest["status"] == USED) | manifest["reason"].str.startswith((IDENTICAL, CLASH))


def _in_both(rows: pd.DataFrame, column: str) -> dict[tuple[str, str], int]:
    """How many values of ``column`` each two sources have in common."""
    once = rows[[column, "site"]].drop_duplicates()
    pairs = once.merge(once, on=column, suffixes=(" one", " other"))
    named = pairs.rename(columns={"site one": "one", "site other": "other"})
    return _sizes(named[named["one"] < named["other"]])


def _sizes(pairs: pd.DataFrame) -> dict[tuple[str, str], int]:
    """How many pairs there are of each two sources, in the order of their names."""
    named = np.sort(pairs[["one", "other"]].to_numpy(str), axis=1)
    found = pd.Series(list(map(tuple, named.tolist())), dtype=object).value_counts()
    return {(str(one), str(other)): int(number) for (one, other), number in found.items()}
