"""Lung masks as they lie beside packed pixels: one bit a pixel, at the same sides.

A mask is a help and no part of the data. An image whose mask cannot be used is as good as before.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from cxr_tasks.data.decode import WIDEST, opened
from cxr_tasks.data.formats import Unusable
from cxr_tasks.data.windows import WIDE_MODES, narrowed
from cxr_tasks.image_settings import WindowSettings

_WHOLE_RANGE = WindowSettings(rule="percentiles", low=0, high=100)


def masks_file(size: int) -> str:
    """Name of a shard's packed masks. The file is there if any image of the shard has a mask.

    The file is a ``.npy`` of (n, size, ⌈size/8⌉) uint8, one row a row of the shard; see :func:`unpack_masks`.
    """
    return f"masks-{size}.npy"


def decode_mask(
    content: bytes, name: str, sizes: Sequence[int], most_pixels: int = WIDEST.most_pixels
) -> list[np.ndarray]:
    """Decode a whole mask file once.

    Lung is what is brighter than half of the brightest value. So 0/1, 0/255 and JPEG's blurred edges are read alike.
    A mask of any side covers the whole image: those of the Radiography Database have 256 pixels a side, their images
    299.

    Args:
        content: All bytes of the file.
        name: Name or path of the file.
        sizes: Sides in pixels of the masks wanted.
        most_pixels: That are decoded.

    Returns:
        For each size the mask, resized with nearest neighbour and packed, (S, ⌈S/8⌉) uint8.

    Raises:
        Unusable: The file is damaged or no image that is read, or the mask is all lung or has none.
    """
    with opened(content, name, most_pixels) as image:
        gray = narrowed(image, _WHOLE_RANGE) if image.mode in WIDE_MODES else image.convert("L")
    values = np.asarray(gray)
    brightest = values.max()
    if values.min() == brightest:
        raise Unusable("the mask is all one colour")
    resized = (gray.resize((size, size), Image.Resampling.NEAREST) for size in sizes)
    return [np.packbits(np.asarray(mask) > brightest // 2, axis=-1) for mask in resized]


def unpack_masks(packed: np.ndarray, size: int) -> np.ndarray:
    """(n, size, size) bool from (n, size, ⌈size/8⌉) uint8."""
    return np.unpackbits(packed, axis=-1, count=size).astype(bool)
