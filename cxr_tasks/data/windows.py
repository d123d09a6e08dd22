"""How gray values of more than 8 bits become 8: by a window, from black to white."""

from __future__ import annotations

import numpy as np
from PIL import Image, TiffImagePlugin

from cxr_tasks.data.formats import Unusable
from cxr_tasks.image_settings import WindowSettings

# Pillow's names of gray with more than 8 bits: 16 bits of either byte order, 32 bits, floating point.
WIDE_MODES = {"I;16", "I;16B", "I", "F"}
# What counts where no settings are at hand.
PLAIN_WINDOW = WindowSettings(rule="percentiles", low=0.5, high=99.5)
_BIT_PATTERNS = np.arange(2**16, dtype=np.uint16)


def narrowed(image: Image.Image, window: WindowSettings) -> Image.Image:
    """The 8-bit grays of a loaded image of one of ``WIDE_MODES``.

    Raises:
        Unusable: It has no two gray values, or values that are no numbers, or is transparent.
    """
    values = np.asarray(image)
    if not np.isfinite(values).all():
        raise Unusable("it holds gray values that are no numbers: export the image again")
    if (clear := image.info.get("transparency")) is not None and (values == clear).any():
        raise Unusable("parts of the image are transparent: save it without transparency")
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    grays = to_8_bits(values, *black_and_white(values, window))
    from_white = getattr(image, "tag_v2", {}).get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
    return Image.fromarray(255 - grays if from_white else grays)


def black_and_white(values: np.ndarray, window: WindowSettings) -> tuple[float, float]:
    """The gray values that become black and white.

    Args:
        values: Gray values of an image, of any shape.
        window: The rule.

    Raises:
        Unusable: They are one and the same.
    """
    if window.rule == "fixed":
        return window.low, window.high
    if values.dtype.kind in "iu" and values.dtype.itemsize == 2:
        counts = np.bincount(values.view(np.uint16).ravel(), minlength=len(_BIT_PATTERNS))
        return percentiles_of(_BIT_PATTERNS.view(values.dtype), counts, window)
    values, counts = np.unique(values, return_counts=True)
    return percentiles_of(values, counts, window)


def percentiles_of(values: np.ndarray, counts: np.ndarray, window: WindowSettings) -> tuple[float, float]:
    """The percentiles of a window's rule.

    Args:
        values: (n,) gray values, in any order.
        counts: (n,) how many pixels have each.
        window: The rule.

    Raises:
        Unusable: They are one and the same.
    """
    order = np.argsort(values, kind="stable")
    below = counts[order].cumsum()
    asked = np.ceil(np.array([window.low, window.high]) / 100 * below[-1]).clip(1)
    low, high = values[order][np.searchsorted(below, asked).clip(max=len(values) - 1)].tolist()
    if low == high:
        raise Unusable("almost the whole image is one gray value")
    return low, high


def to_8_bits(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """uint8 of the shape of ``values``: 0 up to ``low``, 255 from ``high`` on, and evenly in between."""
    if values.dtype.kind in "iu" and values.dtype.itemsize == 2:
        # Of 65,536 values each is computed once.
        return _levels(_BIT_PATTERNS.view(values.dtype), low, high)[values.view(np.uint16)]
    return _levels(values, low, high)


def _levels(values: np.ndarray, low: float, high: float) -> np.ndarray:
    scaled = (values.astype(np.float64) - low) * (255 / (high - low))
    return np.rint(scaled.clip(0, 255)).astype(np.uint8)
