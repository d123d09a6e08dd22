"""Classical augmentation as one composed affine warp of the gray image, drawn anew for each (seed, view, image).

Composing rotation, shear, zoom, shift and flip into one matrix resamples the image once instead of five
times; the warp runs on one channel, outside any compiled training step.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from cxr_tasks.config import AugmentationSettings
from cxr_tasks.randomness import image_key, keyed


def draw_transforms(settings: AugmentationSettings, ids: Iterable[str], view: int, seed: int, size: int) -> np.ndarray:
    """Projective transforms, output to input pixel coordinates, one for each image.

    Args:
        settings: How far images may be moved.
        ids: n image ids; each has a random stream of its own, so batches may be cut anywhere.
        view: Number of the augmented version; a new one gives new draws.
        seed: Of the draws.
        size: Side of the images in pixels.

    Returns:
        (n, 8) float32, rows ``a0 a1 a2 b0 b1 b2 0 0``: output pixel (x, y) shows input pixel
        (a0·x + a1·y + a2, b0·x + b1·y + b2).
    """
    draws = np.stack([keyed(seed, "augmentation", view, image_key(i)).uniform(-1, 1, size=7) for i in ids])
    angle = np.deg2rad(settings.rotation) * draws[:, 0]
    shear = settings.shear * draws[:, 1]
    zoom_x, zoom_y = 1 + settings.zoom * draws[:, 2], 1 + settings.zoom * draws[:, 3]
    flip = np.where(settings.horizontal_flip & (draws[:, 4] < 0), -1.0, 1.0)
    shift_x, shift_y = settings.width_shift * size * draws[:, 5], settings.height_shift * size * draws[:, 6]

    cos, sin = np.cos(angle), np.sin(angle)
    # rotation · shear · (zoom, flip), about the centre of the image
    a0, a1 = cos * zoom_x * flip, (cos * shear - sin) * zoom_y
    b0, b1 = sin * zoom_x * flip, (sin * shear + cos) * zoom_y
    centre = (size - 1) / 2
    a2 = centre - a0 * centre - a1 * centre + shift_x
    b2 = centre - b0 * centre - b1 * centre + shift_y
    nothing = np.zeros_like(a0)
    return np.stack([a0, a1, a2, b0, b1, b2, nothing, nothing], axis=1).astype(np.float32)


def warp(pixels: np.ndarray, transforms: np.ndarray) -> np.ndarray:
    """Apply (n, 8) ``transforms`` to (n, S, S) uint8 ``pixels``: bilinear, edges repeated outwards."""
    import tensorflow as tf

    warped = tf.raw_ops.ImageProjectiveTransformV3(
        images=pixels[..., None],
        transforms=transforms,
        output_shape=pixels.shape[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )
    return warped.numpy()[..., 0]


def augment(pixels: np.ndarray, ids: Iterable[str], settings: AugmentationSettings, view: int, seed: int) -> np.ndarray:
    """One augmented version of each image, (n, S, S) uint8 in and out."""
    return warp(pixels, draw_transforms(settings, ids, view, seed, pixels.shape[1]))
