from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from cxr_tasks.data.decode import HowToRead, decode
from cxr_tasks.data.resizing import FILTERS, resize_stack
from cxr_tasks.image_settings import ResizeName
from tests.data.bad_files import encoded, ribs

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 8, 8), np.uint8)


def test_each_name_of_the_settings_has_a_filter() -> None:
    assert set(FILTERS) == set(get_args(ResizeName))


@pytest.mark.parametrize("count", [0, 3])
@pytest.mark.parametrize("resize", FILTERS)
def test_a_stack_keeps_its_pixels_at_its_own_size_and_its_number_at_any(count: int, resize: ResizeName) -> None:
    pixels = PIXELS[:count]

    assert resize_stack(pixels, 8, resize) is pixels
    small = resize_stack(pixels, 5, resize)
    assert (small.shape, small.dtype) == ((count, 5, 5), np.uint8)


def test_area_is_the_mean_of_the_pixels_below_and_nearest_is_one_of_them() -> None:
    blocks = PIXELS.reshape(3, 4, 2, 4, 2).swapaxes(2, 3)

    area, nearest = (resize_stack(PIXELS, 4, resize).astype(int) for resize in ("area", "nearest"))

    assert np.abs(area - blocks.mean(axis=(3, 4))).max() <= 1
    assert (blocks.reshape(3, 4, 4, 4) == nearest[..., None]).any(axis=3).all()


def test_the_four_differ_in_pixels_and_not_in_what_tells_of_the_image() -> None:
    content = encoded(ribs((300, 260)))
    decoded = [decode(content, "a.png", (40,), HowToRead(resize=resize)) for resize in FILTERS]

    assert len({each.images[0].tobytes() for each in decoded}) == 4
    assert len({(each.dhash, each.thumbnail.tobytes(), each.mean) for each in decoded}) == 1
