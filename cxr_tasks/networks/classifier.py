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
    → (n, classes) probabilities. ``full``: pixels → probabilities, sharing the layers of both. ``fast_trunk``: the
    trunk, or a copy that computes in another precision, to make features with.
    """

    name: str
    trunk: keras.Model | None
    head: keras.Model
    full: keras.Model
    fast_trunk: keras.Model | None = None


def channels_and_scale(pixels: keras.KerasTensor, name: str, scaling: str) -> keras.KerasTensor:
    """(n, S, S, 1) gray 0–255 → (n, S, S, 3), scaled as classifier ``name`` wants it (``backbones.scale_layer``)."""
    channels = keras.layers.Concatenate(name="gray_to_channels")([pixels, pixels, pixels])
    return scale_layer(name, scaling)(channels)


def on_frozen_backbone(
    name: str, backbone: keras.Model, classes: int, scaling: str, precision: str = "float32"
) -> Network:
    """Join preprocessing, a frozen ``backbone`` that has its weights, and trained layers into a :class:`Network`.

    At 224 and for three classes, VGG16's has 17,926,467 parameters, 3,211,779 of them trained, and ResNet50's
    23,858,435 and 270,723 (recipe §3).

    Args:
        precision: of ``fast_trunk``, ``float32`` or ``bfloat16``; the model that is saved computes in float32.
    """
    trunk = _trunk(name, backbone, scaling)
    features = keras.Input(trunk.output_shape[1:], name="features")
    head = keras.Model(features, BACKBONES[name].top(features, classes), name=f"{name}_head")
    full = keras.Model(trunk.input, head(trunk(trunk.input)), name=name)
    fast = trunk if precision == "float32" else _in_bfloat16(name, backbone, scaling)
    return Network(name, trunk, head, full, fast)


def _trunk(name: str, backbone: keras.Model, scaling: str) -> keras.Model:
    backbone.trainable = False
    pixels = keras.Input((*backbone.input_shape[1:3], 1), name="pixels")
    return keras.Model(
        pixels, backbone(channels_and_scale(pixels, name, scaling), training=False), name=f"{name}_trunk"
    )


def _in_bfloat16(name: str, backbone: keras.Model, scaling: str) -> keras.Model:
    """The same trunk with weights in float32 and everything else in bfloat16."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        twin = BACKBONES[name].build(backbone.input_shape[1])
        twin.set_weights(backbone.get_weights())
        return _trunk(name, twin, scaling)
    finally:
        keras.config.set_dtype_policy(before)
