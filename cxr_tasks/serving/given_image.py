"""What a caller may give as an image: the bytes of a file, the same in base64, or an array whose range is stated."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import numpy as np

from cxr_tasks.data.formats import Unusable
from cxr_tasks.data.windows import to_8_bits

# Characters of base64 that are looked at, four for three bytes of the largest file.
MOST_TEXT = 4 * 2**26
GIVE_IMAGE = (
    "give the bytes of a PNG, JPEG or DICOM file, the same in base64, or an array as "
    '{"pixels": [[0, 255], [255, 0]], "range": [0, 255]}'
)


def content_of(given: Any) -> bytes | np.ndarray:
    """The bytes of a file, or 8-bit grays (H, W).

    Args:
        given: Bytes; text in base64, which may be a data URL; a mapping of ``pixels``, numbers (H, W), and ``range``,
            the values of black and white; or an array (H, W) of uint8, of which 0 is black and 255 white.

    Raises:
        Unusable: It is none of these.
    """
    if isinstance(given, bytes | bytearray | memoryview):
        return bytes(given)
    if isinstance(given, str):
        return _from_base64(given)
    if isinstance(given, np.ndarray) and given.dtype == np.uint8:
        return _plane(given)
    if isinstance(given, np.ndarray):
        raise Unusable(f"an array of {given.dtype} does not say its range: {GIVE_IMAGE}")
    if isinstance(given, Mapping) and set(given) == {"pixels", "range"}:
        return _in_range(given["pixels"], given["range"])
    raise Unusable(f"what was given is no image: {GIVE_IMAGE}")


def _from_base64(text: str) -> bytes:
    if text.startswith("data:"):
        text = text.partition(",")[2]
    if len(text) > MOST_TEXT:
        raise Unusable(f"the text has {len(text):,} characters: at most {MOST_TEXT:,} are read")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise Unusable(f"the text is not base64: {GIVE_IMAGE}") from None


def _plane(pixels: np.ndarray) -> np.ndarray:
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim != 2 or not pixels.size:
        raise Unusable(f"an array of the shape {pixels.shape} is no gray image: give one of height × width")
    return np.ascontiguousarray(pixels)


def _in_range(pixels: Any, range_: Any) -> np.ndarray:
    try:
        values = _plane(np.asarray(pixels, np.float64))
        black, white = (float(each) for each in range_)
    except (TypeError, ValueError, OverflowError):
        raise Unusable(f"the array or its range holds no numbers: {GIVE_IMAGE}") from None
    if not np.isfinite([black, white]).all() or black >= white:
        raise Unusable("the range must be two numbers, the values of black and of white, of which the second is larger")
    if not np.isfinite(values).all() or values.min() < black or values.max() > white:
        raise Unusable(f"the array has values outside its range, which goes from {black:g} to {white:g}")
    return to_8_bits(values, black, white)
