"""Differentiable augmentation of what a discriminator sees: brightness, contrast, translation, cutout.

Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN Training", with their ranges. Gray images stay
gray: the policy's saturation would change nothing and is left out. Every draw is keyed.
"""

from __future__ import annotations

import tensorflow as tf

TRANSLATION, CUTOUT = 1 / 8, 1 / 2


def diff_augment(images: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """Augment each image by draws of its own.

    Args:
        images: (n, S, S, C) float32 in [−1, 1]; gradients pass through.
        key: (2,) int64; the seven values after its last number are used too.

    Returns:
        (n, S, S, C) float32. Brightness and contrast may leave [−1, 1]. Pixels that are moved in or cut out are 0.
    """
    batch, side = tf.shape(images)[0], images.shape[1]

    def uniform(use: int) -> tf.Tensor:
        return tf.random.stateless_uniform((batch, 1, 1, 1), key + tf.constant([0, use], tf.int64))

    def whole(use: int, low: int, high: int) -> tf.Tensor:
        """(n, 1) integers from low to high, both of them possible."""
        return tf.random.stateless_uniform(
            (batch, 1), key + tf.constant([0, use], tf.int64), low, high + 1, dtype=tf.int32
        )

    images = images + (uniform(0) - 0.5)
    mean = tf.reduce_mean(images, axis=(1, 2, 3), keepdims=True)
    images = (images - mean) * (uniform(1) + 0.5) + mean

    reach = round(side * TRANSLATION)
    down, right = _shift(side, whole(2, -reach, reach)), _shift(side, whole(3, -reach, reach))
    # Products with matrices of 0 and 1 are exact and the same in every run. They are fast in the backward pass too,
    # where gathering pixels would scatter.
    rows = tf.reshape(tf.matmul(down, tf.reshape(images, (batch, side, -1))), tf.shape(images))
    columns = tf.reshape(tf.transpose(rows, (0, 2, 1, 3)), (batch, side, -1))
    moved = tf.transpose(tf.reshape(tf.matmul(right, columns), tf.shape(images)), (0, 2, 1, 3))

    # As in the authors' code: the hole's middle may lie anywhere, so half of the hole may fall outside.
    size = round(side * CUTOUT)
    top, left = (whole(use, 0, side - size % 2) - size // 2 for use in (4, 5))
    place = tf.range(side)[None, :]
    hole = ((place >= top) & (place < top + size))[:, :, None] & ((place >= left) & (place < left + size))[:, None, :]
    return tf.ensure_shape(moved * tf.cast(~hole, tf.float32)[..., None], images.shape)


def _shift(side: int, by: tf.Tensor) -> tf.Tensor:
    """(n, side, side) of 0 and 1: row i takes row i − by, or nothing where that lies outside. ``by``: (n, 1)."""
    return tf.one_hot(tf.range(side)[None, :] - by, side)
