"""What a caller may give as an image: the bytes of a file, the same in base64, or an array whose range is stated."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cxr_tasks.data.decode import LARGEST_FILE, WIDEST, too_large_a_file
from cxr_tasks.data.formats import Unusable
from cxr_tasks.data.integrity import check_area
from cxr_tasks.data.windows import to_8_bits

# Characters of base64 that are looked at: four for three bytes of the largest file.
MOST_TEXT = -(-LARGEST_FILE // 3) * 4
# Values of an array that are floating-point numbers at the same time.
VALUES_AT_ONCE = 2**18
GIVE_IMAGE = (
    "give the bytes of a PNG, JPEG or DICOM file, the same in base64, or an array as "
    '{"pixels": [[0, 255], [255, 0]], "range": [0, 255]}'
)
NO_NUMBERS = f"the array or its range holds no numbers: {GIVE_IMAGE}"


def content_of(given: Any, most_pixels: int = WIDEST.most_pixels) -> bytes | np.ndarray:
    """The bytes of a file, or 8-bit grays (H, W).

    Args:
        given: Bytes; text in base64, which may be a data URL; a mapping of ``pixels``, numbers (H, W), and ``range``,
            the values of black and white; or an array (H, W) of uint8, of which 0 is black and 255 white.
        most_pixels: Of an array. Larger ones are refused before memory is taken for them.

    Raises:
        Unusable: It is none of these, or too large.
    """
    if isinstance(given, bytes | bytearray | memoryview):
        return _of_a_file(bytes(given))
    if isinstance(given, str):
        return _of_a_file(_from_base64(given))
    if isinstance(given, np.ndarray) and given.dtype == np.uint8:
        return np.ascontiguousarray(_plane(given, most_pixels))
    if isinstance(given, np.ndarray | list):
        kind = f"an array of {given.dtype}" if isinstance(given, np.ndarray) else "a list"
        raise Unusable(f"{kind} does not say its range: {GIVE_IMAGE}")
    if isinstance(given, Mapping) and set(given) == {"pixels", "range"}:
        return _in_range(given["pixels"], given["range"], most_pixels)
    raise Unusable(f"what was given is no image: {GIVE_IMAGE}")


def without_lists(given: Any, most_pixels: int) -> str | bytes | np.ndarray | Unusable:
    """What a call gives as an image, in little memory: a text as it is, and of all else the content or why it has none.

    A list of numbers takes up to forty times the memory of its grays.
    """
    if isinstance(given, str):
        return given
    try:
        return content_of(given, most_pixels)
    except Unusable as reason:
        return reason


def _of_a_file(content: bytes) -> bytes:
    if len(content) > LARGEST_FILE:
        raise Unusable(too_large_a_file(len(content)))
    return content


def _from_base64(text: str) -> bytes:
    if text.startswith("data:"):
        text = text.partition(",")[2]
    if len(text) > MOST_TEXT:
        raise Unusable(f"the text has {len(text):,} characters: at most {MOST_TEXT:,} are read")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise Unusable(f"the text is not base64: {GIVE_IMAGE}") from None


def _plane(pixels: np.ndarray, most_pixels: int) -> np.ndarray:
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim != 2 or not pixels.size:
        raise Unusable(f"an array of the shape {pixels.shape} is no gray image: give one of height × width")
    check_area((pixels.shape[1], pixels.shape[0]), most_pixels)
    return pixels


def _in_range(pixels: Any, range_: Any, most_pixels: int) -> np.ndarray:
    """8-bit grays of numbers. Few rows at a time are floating-point numbers, which take many times the memory."""
    try:
        black, white = (float(each) for each in range_)
        if not np.isfinite([black, white]).all() or black >= white:
            raise Unusable(
                "the range must be two numbers, the values of black and of white, of which the second is larger"
            )
        if isinstance(pixels, np.ndarray):
            rows: Sequence[Any] | np.ndarray = _plane(pixels, most_pixels)
        else:
            rows = pixels
        height, width = len(rows), len(rows[0]) if len(rows) else 0
        check_area((width, height), most_pixels)
        grays = np.empty((height, width), np.uint8)
        at_once = max(1, VALUES_AT_ONCE // max(width, 1))
        for start in range(0, height, at_once):
            values = _plane(np.asarray(rows[start : start + at_once], np.float64), most_pixels)
            if values.shape[1] != width:
                raise ValueError("rows of different lengths")
            if not np.isfinite(values).all() or values.min() < black or values.max() > white:
                raise Unusable(f"the array has values outside its range, which goes from {black:g} to {white:g}")
            grays[start : start + at_once] = to_8_bits(values, black, white)
    except (TypeError, ValueError, OverflowError, KeyError):
        raise Unusable(NO_NUMBERS) from None
    if not grays.size:
        raise Unusable(f"an array of the shape {grays.shape} is no gray image: give one of height × width")
    return grays
