"""What is common to those that judge an image by its thumbnail: bars along the edges do not belong to the picture."""

from __future__ import annotations

import numpy as np
from PIL import Image

# A line of pixels is of one gray value where none is further from another. JPEG's errors stay below.
LEVELS = 8
# More than this share of the side is no bar any more.
MOST = 0.3


def bars(thumbnails: np.ndarray) -> np.ndarray:
    """How far bars of one gray value reach into each image.

    Args:
        thumbnails: (n, S, S) uint8.

    Returns:
        (n, 4) int, lines at top, bottom, left and right. The line that a bar shares with the picture counts too.
    """
    most = round(MOST * thumbnails.shape[1])
    found = np.zeros((len(thumbnails), 4), int)
    for side, along in enumerate((2, 2, 1, 1)):
        darkest, brightest = thumbnails.min(axis=along), thumbnails.max(axis=along)
        if side % 2:
            darkest, brightest = darkest[:, ::-1], brightest[:, ::-1]
        darkest = np.minimum.accumulate(darkest[:, :most], axis=1)
        brightest = np.maximum.accumulate(brightest[:, :most], axis=1)
        lines = (brightest - darkest <= LEVELS).sum(axis=1)
        found[:, side] = np.where(lines > 0, lines + 1, 0)
    return found


def without_bars(thumbnails: np.ndarray) -> np.ndarray:
    """(n, S, S) uint8: the pictures without their bars, stretched to the same side again."""
    pictures, barred = thumbnails, np.arange(len(thumbnails))
    # Where bars of two grays cross, one pair hides the other.
    for _ in range(2):
        found = bars(pictures[barred])
        barred, found = barred[found.any(axis=1)], found[found.any(axis=1)]
        if not len(barred):
            break
        if pictures is thumbnails:
            pictures = thumbnails.copy()
        for place, lines in zip(barred, found.tolist(), strict=True):
            pictures[place] = _stretched(pictures[place], *lines)
    return pictures


def _stretched(picture: np.ndarray, top: int, bottom: int, left: int, right: int) -> np.ndarray:
    """(S, S) uint8 of what lies within these margins."""
    side = len(picture)
    inside = (left, top, side - right, side - bottom)
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BILINEAR, box=inside))
