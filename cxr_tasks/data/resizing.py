"""How pixels come to another side, by the name of ``data.resize``.

Every image that a network sees goes through here. Thumbnails do not: hashes of all profiles can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image

from cxr_tasks.image_settings import ResizeName

# Of a smaller image, all but nearest take the mean of the pixels below each new one, weighted by a filter of their own.
FILTERS: Mapping[ResizeName, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
    "lanczos": Image.Resampling.LANCZOS,
}


def resize_gray(gray: Image.Image, size: int, resize: ResizeName) -> Image.Image:
    """An 8-bit gray image as a square of ``size`` pixels a side."""
    return gray.resize((size, size), FILTERS[resize])


def resize_stack(pixels: np.ndarray, size: int, resize: ResizeName) -> np.ndarray:
    """Resize (n, S, S) uint8 images to (n, size, size) uint8; at that size they stay as they are."""
    if pixels.shape[1:] == (size, size):
        return pixels
    scaled = [np.asarray(resize_gray(Image.fromarray(image), size, resize)) for image in pixels]
    return np.stack(scaled) if scaled else np.empty((0, size, size), np.uint8)
