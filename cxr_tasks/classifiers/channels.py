"""The first layers of every classifier: from gray pixels to scaled channels."""

from __future__ import annotations

import keras

from cxr_tasks.classifiers.backbones import scale_layer


def channels_and_scale(pixels: keras.KerasTensor, name: str, scaling: str) -> keras.KerasTensor:
    """(n, S, S, 1) gray 0–255 → (n, S, S, 3), scaled as classifier ``name`` wants it (``backbones.scale_layer``)."""
    channels = keras.layers.Concatenate(name="gray_to_channels")([pixels, pixels, pixels])
    return scale_layer(name, scaling)(channels)
