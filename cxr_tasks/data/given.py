"""Splits that a source gives: folders ``train``, ``validation`` and ``test`` above or below the classes.

Test images are sacred: where a given split leaks, it is the other image that goes.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import numpy as np
import pandas as pd

from cxr_tasks.config import SplitSettings
from cxr_tasks.names import normal_form

TRAIN, VALIDATION, TEST = "train", "validation", "test"
# Which split wins an image that two of them have.
SACRED = {TEST: 0, VALIDATION: 1, TRAIN: 2, "": 3}
_FOLDERS = {
    TRAIN: re.compile(r"(train|training)( ?(set|data|images))*"),
    VALIDATION: re.compile(r"(val|valid|validation|validate|dev)( ?(set|data|images))*"),
    TEST: re.compile(r"(test|testing)( ?(set|data|images))*"),
}
LEAKED = "of one patient, or one picture, with images of the given {} set"
MOVED = "it was given to another split before the source gave it to this one"

GIVEN_REASONS = (LEAKED.format(TEST), LEAKED.format(VALIDATION), MOVED)


def split_of_folder(name: str) -> str:
    """The split that a folder of this name holds, such as ``Training_Set`` or ``val``; '' where it holds none."""
    spelt = normal_form(name)
    return next((split for split, pattern in _FOLDERS.items() if pattern.fullmatch(spelt)), "")


def kept_splits(settings: SplitSettings, given: Collection[str]) -> frozenset[str]:
    """Which given splits stay as they are, of those that the source gives.

    Training images are only bound where validation is given as well: else validation is drawn from them.
    """
    if settings.given == "ignore":
        return frozenset()
    there = set(given) & {TRAIN, VALIDATION, TEST}
    if settings.given == "test" or VALIDATION not in there:
        return frozenset(there & {TEST})
    return frozenset(there)


def sort_out(
    images: pd.DataFrame, group: pd.Series, before: pd.Series, kept: Collection[str]
) -> tuple[pd.Series, pd.Series]:
    """Keep given splits, and leave out what would leak into them.

    Args:
        images: ``given`` ('' where the source gives nothing), a row an image.
        group: The group of each image.
        before: The split that each image had in an earlier run, or NaN.
        kept: From :func:`kept_splits`.

    Returns:
        The split that each image is bound to, or NaN; and why an image is left out, or ''.
    """
    bound = images["given"].where(images["given"].isin(list(kept)))
    held_out = [split for split in (TEST, VALIDATION) if split in kept]
    reason = pd.Series("", index=images.index)
    for split in reversed(held_out):
        touched = (bound == split).groupby(group).transform("any")
        lower = images["given"].map(SACRED) > SACRED[split]
        reason[touched & lower & (bound != split)] = LEAKED.format(split)
    # What one model has trained on may not test another, wherever the file lies now.
    moved = before.notna() & bound.notna() & (before != bound) & bound.isin(held_out)
    reason[moved & (before == TRAIN)] = MOVED
    was = before.mask(before == TEST) if TEST in kept else before
    return bound.fillna(was), reason


def sacred_first(images: pd.DataFrame) -> pd.DataFrame:
    """Rows in the order that decides which of identical files stays: those of a given test set first."""
    rank = images["given"].map(SACRED).to_numpy(np.int64)
    return images.iloc[np.argsort(rank, kind="stable")]
