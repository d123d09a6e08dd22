"""Which X-rays have their grays turned round, as a MONOCHROME1 image that was exported as it is.

A logistic model of six differences of mean gray, such as the middle against the lungs, tells. Each difference changes
its sign when an image is inverted, so the model is as sure of an image as it is of its inverse. How the weights were
fitted, and what the model gets wrong, is in docs/decisions/inverted.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from cxr_tasks.data.thumbnails import without_bars

NO, YES, UNSURE, CORRECTED = "no", "yes", "unsure", "corrected"
# Probability below which the model says that it is unsure.
CERTAINTY = 0.95
THUMBNAILS_AT_ONCE = 2048
# Paths that a sentence names.
SHOWN_PATHS = 3
# Rows and columns of a thumbnail of 32 × 32 pixels. The other half is folded onto the left one.
_LUNG, _MIDDLE, _BELLY = np.s_[8:20, 6:12], np.s_[8:24, 14:16], np.s_[27:31, 8:16]
_SHOULDER, _NECK, _CORNER, _SIDE = np.s_[3:8, 4:11], np.s_[0:4, 12:16], np.s_[0:4, 0:4], np.s_[8:22, 0:3]
# The model: what is brighter than what in an X-ray that is right, and the weight of the difference.
DIFFERENCES = {
    "middle - lung": (_MIDDLE, _LUNG),
    "belly - lung": (_BELLY, _LUNG),
    "shoulder - lung": (_SHOULDER, _LUNG),
    "middle - corner": (_MIDDLE, _CORNER),
    "middle - side": (_MIDDLE, _SIDE),
    "neck - corner": (_NECK, _CORNER),
}
WEIGHTS = (2.08, 2.22, 0.75, 1.34, 1.27, 1.65)


def statistics(thumbnails: np.ndarray) -> np.ndarray:
    """What the model looks at.

    Args:
        thumbnails: (n, 32, 32) uint8.

    Returns:
        (n, 6) float32, in standard deviations of the image's own grays.
    """
    grays: np.ndarray = without_bars(thumbnails).astype(np.float32)
    half = grays.shape[2] // 2
    grays = (grays[:, :, :half] + grays[:, :, : half - 1 : -1]) / 2
    grays = (grays - grays.mean(axis=(1, 2), keepdims=True)) / (grays.std(axis=(1, 2), keepdims=True) + 1)
    # A burnt-in mark or a bright surround counts no more than bone.
    grays = grays.clip(-2, 2)
    means = [
        grays[:, *bright].mean(axis=(1, 2)) - grays[:, *dark].mean(axis=(1, 2)) for bright, dark in DIFFERENCES.values()
    ]
    return np.stack(means, axis=1)


def log_odds(thumbnails: np.ndarray) -> np.ndarray:
    """(n,) float32 of (n, 32, 32) uint8: the logarithm of the odds that an image is inverted; 0 where nobody knows."""
    parts = [
        statistics(thumbnails[start : start + THUMBNAILS_AT_ONCE]) @ -np.array(WEIGHTS, np.float32)
        for start in range(0, len(thumbnails), THUMBNAILS_AT_ONCE)
    ]
    return np.concatenate([np.empty(0, np.float32), *parts])


def is_inverted(thumbnails: np.ndarray) -> np.ndarray:
    """(n,) text of (n, 32, 32) uint8: ``no``, ``yes``, or ``unsure`` where the model is not certain."""
    odds, certain = log_odds(thumbnails), math.log(CERTAINTY / (1 - CERTAINTY))
    return np.select([odds > certain, odds < -certain], [YES, NO], UNSURE)


def count_inverted(images: pd.DataFrame, classes: Sequence[str], *kinds: str) -> dict[str, int]:
    """How many of the used ``images`` of each class are of one of these kinds, such as ``yes`` or ``unsure``."""
    if "inverted" not in images:  # a manifest that was joined before anybody looked
        return dict.fromkeys(classes, 0)
    counts = images.loc[images["inverted"].isin(kinds), "label"].value_counts()
    return {label: int(counts.get(label, 0)) for label in classes}


def inverted_in_words(images: pd.DataFrame, classes: Sequence[str]) -> dict[str, str]:
    """A sentence for each class that has inverted images, by class.

    Args:
        images: Rows of a manifest, used images only.
        classes: The classes in their order.
    """
    found, unsure = count_inverted(images, classes, YES, CORRECTED), count_inverted(images, classes, UNSURE)
    totals = {label: int((images["label"] == label).sum()) for label in classes}
    told = {}
    for label, number in found.items():
        if not number:
            continue
        rows = images[(images["label"] == label) & images["inverted"].isin([YES, CORRECTED])]
        corrected = int((rows["inverted"] == CORRECTED).sum())
        told[label] = (
            f"{number:,} of {totals[label]:,} images of {label} are inverted (black and white are exchanged, as where "
            f"MONOCHROME1 was exported as it is), such as {', '.join(rows['path'].head(SHOWN_PATHS))}"
            + (f"; of {unsure[label]:,} more nobody can tell" if unsure[label] else "")
            + _against_the_others(label, found, totals)
            + (
                f"; {corrected:,} were turned back"
                if corrected
                else "; look at them, then export them anew or set data.inverted to correct"
            )
        )
    return told


def _against_the_others(label: str, found: dict[str, int], totals: dict[str, int]) -> str:
    """That the class shows by its inverted images, where it has a larger share of them than all others."""
    others = [other for other in found if other != label]
    shares = {name: found[name] / max(totals[name], 1) for name in found}
    if not others or shares[label] <= max(shares[other] for other in others):
        return ""
    counts = ", ".join(f"{other} {found[other]:,} of {totals[other]:,}" for other in others)
    return f"; other classes have fewer ({counts}), so that a model may know the class by that and not by the disease"
