from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from cxr_tasks.config import resolve
from cxr_tasks.data.decode import HowToRead, decode
from cxr_tasks.data.formats import Unusable
from cxr_tasks.data.masks import decode_mask, unpack_masks
from cxr_tasks.data.windows import black_and_white
from cxr_tasks.errors import SettingsError
from cxr_tasks.image_settings import WindowSettings
from tests.data.bad_files import encoded, lungs
from tests.data.wide_files import VALUES, WIDE_FILES

PERCENTILES = WindowSettings(rule="percentiles", low=0.5, high=99.0)
FIXED = WindowSettings(rule="fixed", low=500, high=2500)


def expected(window: WindowSettings) -> np.ndarray:
    """The formula, value by value, from the sorted pixels."""
    low, high = window.low, window.high
    if window.rule == "percentiles":
        ordered = np.sort(VALUES.ravel())
        low, high = (int(ordered[int(np.ceil(q / 100 * len(ordered))) - 1]) for q in (low, high))
    return np.clip(np.round((VALUES.astype(float) - low) / (high - low) * 255), 0, 255)


@pytest.mark.parametrize("window", [PERCENTILES, FIXED], ids=lambda window: window.rule)
@pytest.mark.parametrize("name", WIDE_FILES)
def test_more_than_8_bits_become_8_by_the_rule(name: str, window: WindowSettings) -> None:
    decoded = decode(WIDE_FILES[name], name, (96,), HowToRead(resize="nearest", window=window))

    rows = np.minimum((np.arange(96) + 0.5) * 80 / 96, 79).astype(int)
    off = 2 if name == "12-bit.jpg" else 1
    assert np.abs(decoded.images[0] - expected(window)[rows]).max() <= off
    assert decoded.window == {"percentiles": "percentiles 0.5–99", "fixed": "fixed 500–2500"}[window.rule]
    assert (decoded.width, decoded.height) == (96, 80)


def test_8_bits_stay_as_they_are_whatever_the_rule() -> None:
    gray = Image.fromarray((VALUES >> 4).astype(np.uint8))

    decoded = decode(encoded(gray), "a.png", (), HowToRead(window=FIXED))

    assert (decoded.window, decoded.mean) == ("", pytest.approx(np.asarray(gray).mean()))


def test_black_is_black_in_16_bits_that_count_from_white() -> None:
    files = (encoded(Image.fromarray(VALUES), "TIFF", tiffinfo={262: black}) for black in (1, 0))

    means = [decode(content, "a.tif", ()).mean for content in files]

    assert sum(means) == pytest.approx(255, abs=0.5)


@pytest.mark.parametrize("name", sorted(set(WIDE_FILES) - {"16-bit.jp2"}))
def test_a_file_that_is_cut_off_is_not_read(name: str) -> None:
    with pytest.raises(Unusable, match=r"cut off|damaged"):
        decode(WIDE_FILES[name][:-900], name, ())


@pytest.mark.parametrize(
    ("image", "format", "reason"),
    [
        (Image.fromarray(np.full((64, 64), 700, np.uint16)), "PNG", "almost the whole image is one gray value"),
        (Image.fromarray(np.full((64, 64), np.nan, np.float32)), "TIFF", "it holds gray values that are no numbers"),
    ],
)
def test_what_has_no_grays_says_so(image: Image.Image, format: str, reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        decode(encoded(image, format), "a", ())


def test_a_transparent_value_is_found() -> None:
    content = encoded(Image.fromarray(VALUES), transparency=int(VALUES[40, 40]))

    with pytest.raises(Unusable, match="parts of the image are transparent"):
        decode(content, "a.png", ())


@pytest.mark.parametrize("kind", [np.uint16, np.int16, np.int32, np.float32])
def test_percentiles_of_all_types_are_the_same_values(kind: type) -> None:
    assert black_and_white(VALUES.astype(kind), PERCENTILES) == black_and_white(VALUES, PERCENTILES)


def test_a_mask_of_16_bits_is_lung_where_it_is_bright() -> None:
    mask = np.asarray(lungs()) > 127
    wide = encoded(Image.fromarray(mask.astype(np.uint16)))

    (packed,) = decode_mask(wide, "a.png", (96,))
    (same,) = decode_mask(encoded(Image.fromarray(mask.astype(np.uint8) * 255)), "a.png", (96,))
    np.testing.assert_array_equal(unpack_masks(packed, 96), unpack_masks(same, 96))


@pytest.mark.parametrize(
    "window", [{"low": 5, "high": 5}, {"low": -1}, {"high": 101}, {"rule": "fixed", "low": 4000, "high": 100}]
)
def test_a_window_that_shows_nothing_is_refused(window: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=r"data\.window"):
        resolve("quick", {"data": {"window": window}})
    with pytest.raises(ValidationError):
        WindowSettings.model_validate({"rule": "percentiles", "low": 0.5, "high": 99.5, **window})
