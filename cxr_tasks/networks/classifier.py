"""What the classifiers share: the way from gray pixels to scaled channels, and a network cut in two.

A frozen backbone (the trunk) is kept apart from what is trained (the head), so that features can be
computed once; ``full`` is both in one model, which is what is saved and served.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras

# keras.applications' "caffe" preprocessing of VGG16 and ResNet50: BGR, minus the ImageNet means, unscaled.
# Gray pixels repeated three times make the channel order immaterial but for the means.
IMAGENET_MEANS_BGR = (103.939, 116.779, 123.68)


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


def channels_and_scale(pixels: keras.KerasTensor, scaling: str) -> keras.KerasTensor:
    """(n, S, S, 1) gray 0–255 → (n, S, S, 3) scaled: ``paper`` divides by 255, ``imagenet`` is as pretrained."""
    channels = keras.layers.Concatenate(name="gray_to_channels")([pixels, pixels, pixels])
    if scaling == "paper":
        return keras.layers.Rescaling(1 / 255, name="scale")(channels)
    return keras.layers.Rescaling(1.0, offset=[-mean for mean in IMAGENET_MEANS_BGR], name="scale")(channels)


def on_frozen_backbone(
    name: str,
    backbone: keras.Model,
    top: Callable[[keras.KerasTensor, int], keras.KerasTensor],
    classes: int,
    scaling: str,
) -> Network:
    """Join preprocessing, a frozen ``backbone`` and the trained layers of ``top`` into a :class:`Network`."""
    backbone.trainable = False
    pixels = keras.Input((*backbone.input_shape[1:3], 1), name="pixels")
    trunk = keras.Model(pixels, backbone(channels_and_scale(pixels, scaling), training=False), name=f"{name}_trunk")
    features = keras.Input(trunk.output_shape[1:], name="features")
    head = keras.Model(features, top(features, classes), name=f"{name}_head")
    return Network(name, trunk, head, keras.Model(pixels, head(trunk(pixels)), name=name))
