"""The split that tests on whole sources: their images test, and nothing that is tied to one of them trains.

A model is so tested on a hospital that it has never seen, with the training of the same run.
"""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

from cxr_tasks.config import SplitSettings
from cxr_tasks.data.duplicates import IDENTICAL
from cxr_tasks.data.given import LEAKED, MOVED, TEST
from cxr_tasks.data.ingest import SET_ASIDE, USED

TIED = "of one patient, or one picture, with images of a source that tests"
TRAINED_ON = "it was in training before the source that it is in tested"


def prefer_sources(manifest: pd.DataFrame, sources: Collection[str]) -> pd.DataFrame:
    """A copy of ``manifest`` that uses the file of one of ``sources`` where several sources have the same one."""
    table = manifest.copy()
    used, mine = table["status"] == USED, table["site"].isin(list(sources))
    repeated = table["reason"].str.startswith(IDENTICAL)
    elsewhere = table.loc[used & ~mine, "image_id"]
    chosen = table[repeated & mine & table["image_id"].isin(elsewhere)].drop_duplicates("image_id")
    paths = chosen.set_index("image_id")["path"]
    others = table.index[table["image_id"].isin(paths.index) & (used | repeated)].difference(chosen.index)
    table.loc[chosen.index, "status"], table.loc[chosen.index, "reason"] = USED, ""
    table.loc[others, "status"], table.loc[others, "group"] = SET_ASIDE, table.loc[others, "image_id"]
    table.loc[others, "reason"] = f"{IDENTICAL} " + table.loc[others, "image_id"].map(paths)
    return table


def as_given(images: pd.DataFrame, sources: Collection[str]) -> pd.DataFrame:
    """``images`` as if their source had given all of ``sources`` as its test set, and nothing else."""
    return images.assign(given=images["site"].isin(list(sources)).map({True: TEST, False: ""}))


def told_of_sources(reasons: pd.Series) -> pd.Series:
    """Why images are left out, in words that speak of sources and not of given sets."""
    return reasons.replace({LEAKED.format(TEST): TIED, MOVED: TRAINED_ON})


def tell_left_out(table: pd.DataFrame, settings: SplitSettings) -> list[str]:
    """What people must know of images that a split by sources leaves out; nothing where it leaves out none.

    Args:
        table: A manifest with its splits.
        settings: Name the sources that test.
    """
    tests = " and ".join(settings.test_sources)
    told = []
    tied, before = (table[table["reason"] == reason] for reason in (TIED, TRAINED_ON))
    if len(tied):
        told.append(
            f"{len(tied):,} images of other sources are left out of training and validation ({_by_class(tied)}): they "
            f"are of one patient, or one picture, with images of {tests}"
        )
    if len(before):
        told.append(
            f"{len(before):,} images of {tests} do not test ({_by_class(before)}), because a training of the same "
            "split has seen them in another source"
        )
    return told


def _by_class(rows: pd.DataFrame) -> str:
    counts = rows["label"].value_counts().sort_index()
    return ", ".join(f"{label} {number:,}" for label, number in counts.items())
