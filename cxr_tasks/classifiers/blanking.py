"""Images without their lungs, and lungs without the rest of their images, to find what a model goes by.

Nothing of the disease is left where the lungs are blanked: whoever still tells the classes apart there has learnt
what goes with them (machine, collection, age, writing on the film).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from cxr_tasks.data.dataset import Images
from cxr_tasks.data.stacks import Rows, as_stack, in_parts

# Pixels, masks and the gray that is painted with → pixels.
Blanking: TypeAlias = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


def blanked_images(test: Images, masks: Rows, gray: int) -> dict[str, Images]:
    """The images of the shortcut probes, by what is blanked. They are blanked when they are asked for.

    Args:
        test: The test images.
        masks: (n, S, S) bool, True in the lungs.
        gray: Gray value of what is painted over, see :func:`mean_gray`.
    """
    pixels = as_stack(test.pixels)

    def blanked(blank: Blanking, some: np.ndarray, positions: np.ndarray) -> np.ndarray:
        return blank(some, masks[positions], gray)

    of = {name: pixels.each(partial(blanked, blank), pixels.shape[1:]) for name, blank in BLANKINGS.items()}
    return {name: replace(test, pixels=some) for name, some in of.items()}


def blanked_content(name: str, gray: int) -> dict[str, Any]:
    """What was done to the pixels of the test images whose part ``name`` is blanked."""
    return {"split": "test", "blanked": name, "gray": gray}


def mean_gray(pixels: Rows) -> int:
    """The mean gray of the training images (n, S, S) uint8, which tells nothing of the image at hand."""
    total = sum(int(part.sum(dtype=np.int64)) for part in in_parts(pixels))
    return round(total / math.prod(pixels.shape))


def blank_lungs(pixels: np.ndarray, masks: np.ndarray, fill: int) -> np.ndarray:
    """Paint over the rectangle that encloses the lungs.

    The rectangle, as in Maguolo & Nanni (2021), and not the outline: an outline shows the lungs' shape, and so a
    child's chest or, in masks that a network drew, a consolidation. It also looks the same whether an image came with
    a mask or got the centre box, which may go with its class. How large it is and where it lies is still to be seen.

    Args:
        pixels: (n, S, S) uint8.
        masks: (n, S, S) bool, True in the lungs.
        fill: Gray value of what is painted over, one for all images, such as the mean of the training images: taken
            from each image by itself it would tell how that was exposed.

    Returns:
        (n, S, S) uint8.
    """
    return np.where(_boxes(masks), np.uint8(fill), pixels)


def blank_background(pixels: np.ndarray, masks: np.ndarray, fill: int) -> np.ndarray:
    """Paint over all but the rectangle that encloses the lungs: what :func:`blank_lungs` leaves, and nothing else."""
    return np.where(_boxes(masks), pixels, np.uint8(fill))


BLANKINGS: dict[str, Blanking] = {
    "lungs": blank_lungs,
    "background": blank_background,
}


def _boxes(masks: np.ndarray) -> np.ndarray:
    """The bounding box of each mask, filled; an empty one stays empty."""
    rows, columns = (_filled(np.logical_or.reduce(masks, axis)) for axis in (2, 1))
    return rows[:, :, None] & columns[:, None, :]


def _filled(lines: np.ndarray) -> np.ndarray:
    """(n, S) bool with the gaps between first and last True closed."""
    begun = np.logical_or.accumulate(lines, axis=1)
    return begun & np.logical_or.accumulate(lines[:, ::-1], axis=1)[:, ::-1]
