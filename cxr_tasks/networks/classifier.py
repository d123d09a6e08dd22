"""What the classifiers share: the way from gray pixels to scaled channels, and a network cut in two.

A frozen backbone (the trunk) is kept apart from what is trained (the head), so that features can be
computed once; ``full`` is both in one model, which is what is saved and served.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras

from cxr_tasks.networks.backbones import BACKBONES, scale_layer


@dataclass(frozen=True)
class Network:
    """A classifier in two parts. ``trunk`` is ``None`` where the whole network is trained.

    ``trunk``: (n, S, S, 1) pixels 0–255 → frozen features. ``head``: features (or, without a trunk, pixels)
    → (n, classes) probabilities. ``full``: pixels → probabilities, sharing the layers of both.
    """

    name: str
    trunk: keras.Model | None
    head: keras.Model
    full: keras.Model


def channels_and_scale(pixels: keras.KerasTensor, name: str, scaling: str) -> keras.KerasTensor:
    """(n, S, S, 1) gray 0–255 → (n, S, S, 3), scaled as classifier ``name`` wants it (``backbones.scale_layer``)."""
    channels = keras.layers.Concatenate(name="gray_to_channels")([pixels, pixels, pixels])
    return scale_layer(name, scaling)(channels)


def on_frozen_backbone(name: str, backbone: keras.Model, classes: int, scaling: str) -> Network:
    """Join preprocessing, a frozen ``backbone`` that has its weights, and trained layers into a :class:`Network`.

    At 224 and for three classes, VGG16's has 17,926,467 parameters, 3,211,779 of them trained, and ResNet50's
    23,858,435 and 270,723 (recipe §3).
    """
    backbone.trainable = False
    pixels = keras.Input((*backbone.input_shape[1:3], 1), name="pixels")
    scaled = channels_and_scale(pixels, name, scaling)
    trunk = keras.Model(pixels, backbone(scaled, training=False), name=f"{name}_trunk")
    features = keras.Input(trunk.output_shape[1:], name="features")
    head = keras.Model(features, BACKBONES[name].top(features, classes), name=f"{name}_head")
    return Network(name, trunk, head, keras.Model(pixels, head(trunk(pixels)), name=name))
