"""Lung masks as they lie beside packed pixels: one bit a pixel, at the same sides.

A mask is a help and no part of the data: one that cannot be used leaves its image as good as it was.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from cxr_tasks.data.decode import Unusable, check_area, opened


def masks_file(size: int) -> str:
    """Name of a shard's packed masks, which is there if any of its images has one.

    A ``.npy`` of (n, size, ⌈size/8⌉) uint8, one row a row of the shard; see :func:`unpack`.
    """
    return f"masks-{size}.npy"


def decode_mask(content: bytes, name: str, sizes: Sequence[int]) -> list[np.ndarray]:
    """Decode a whole mask file once.

    Lung is what is brighter than half of the brightest value, so that 0/1, 0/255 and JPEG's blurred edges are
    read alike. A mask of any side is laid over the whole image, as those of the Radiography Database (256) are over
    theirs (299).

    Returns:
        For each of ``sizes`` the mask resized to it with nearest neighbour, (S, ⌈S/8⌉) uint8.

    Raises:
        Unusable: the file is damaged, no PNG or JPEG, or all lung or all not.
    """
    with opened(content, name) as image:
        check_area(image)
        gray = image.convert("L")
    values = np.asarray(gray)
    brightest = values.max()
    if values.min() == brightest:
        raise Unusable("the mask is all one colour")
    resized = (gray.resize((size, size), Image.Resampling.NEAREST) for size in sizes)
    return [np.packbits(np.asarray(mask) > brightest // 2, axis=-1) for mask in resized]


def unpack(packed: np.ndarray, size: int) -> np.ndarray:
    """(n, size, size) bool from (n, size, ⌈size/8⌉) uint8."""
    return np.unpackbits(packed, axis=-1, count=size).astype(bool)
