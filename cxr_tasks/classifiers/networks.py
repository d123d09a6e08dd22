"""A classifier by its name: a network cut in two, with the way from gray pixels to scaled channels before it.

A frozen backbone (the trunk) is kept apart from what is trained (the head), so that features can be computed once.
``full`` is both in one model, which is what is saved and served.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras

from cxr_tasks.classifiers import cnn
from cxr_tasks.classifiers.backbones import build_backbone, classify
from cxr_tasks.classifiers.channels import channels_and_scale
from cxr_tasks.classifiers.registry import CLASSIFIERS
from cxr_tasks.classifiers.weights import backbone_with_weights, scaling_images
from cxr_tasks.config import Settings
from cxr_tasks.data.stacks import Rows
from cxr_tasks.precision import FULL, backbone_precision


@dataclass(frozen=True)
class Network:
    """A classifier in two parts.

    Attributes:
        name: In the registry of classifiers.
        trunk: (n, S, S, 1) pixels 0–255 → frozen features; ``None`` where the whole network is trained.
        head: Features (or, without a trunk, pixels) → (n, classes) probabilities.
        full: Pixels → probabilities, sharing the layers of both.
        fast_trunk: The trunk, or a copy that computes in another precision, to make features with.
    """

    name: str
    trunk: keras.Model | None
    head: keras.Model
    full: keras.Model
    fast_trunk: keras.Model | None = None


def build_network(name: str, settings: Settings, real: Rows, seed: int) -> Network:
    """Build classifier ``name`` with its first weights.

    A random backbone is the same for all arms and seeds: it is scaled on some of the real training images, which are
    the same in all of them.

    Args:
        name: In the registry of classifiers.
        settings: Of the run.
        real: (n, S, S) uint8, the real training images.
        seed: Of the trained layers' first weights and of dropout; it becomes Keras' global seed.
    """
    chosen, classes = settings.classifiers, len(settings.data.classes)
    if not CLASSIFIERS[name].has_backbone:
        keras.utils.set_random_seed(seed)
        model = cnn.build_cnn(chosen.image_size, classes, chosen.scaling)
        return Network(name, trunk=None, head=model, full=model)
    weights = chosen.weights_of(name)
    assert weights is not None  # the settings have looked
    some = real[scaling_images(len(real), settings.seeds.backbones, "weight scaling")]
    base = backbone_with_weights(name, chosen.image_size, weights, chosen.scaling, some, settings.seeds.backbones)
    # Only now: how many draws a backbone uses up depends on its kind and its weights.
    keras.utils.set_random_seed(seed)
    return on_frozen_backbone(name, base, classes, chosen.scaling, backbone_precision(chosen.precision))


def on_frozen_backbone(name: str, backbone: keras.Model, classes: int, scaling: str, precision: str = FULL) -> Network:
    """Join preprocessing, a frozen ``backbone`` that has its weights, and trained layers into a :class:`Network`.

    At 224 and for three classes, VGG16's has 17,926,467 parameters, 3,211,779 of them trained, and ResNet50's
    23,858,435 and 270,723 (recipe §3).

    Args:
        name: In the registry of classifiers.
        backbone: The convolutional base, (S, S, 3) → features.
        classes: How many classes the head tells apart.
        scaling: ``paper`` or ``imagenet``.
        precision: Of ``fast_trunk``: ``float32``, ``float16`` or ``bfloat16``. The model that is saved computes in
            float32.
    """
    trunk = _trunk(name, backbone, scaling)
    features = keras.Input(trunk.output_shape[1:], name="features")
    head = keras.Model(features, classify(features, name, classes), name=f"{name}_head")
    full = keras.Model(trunk.input, head(trunk(trunk.input)), name=name)
    fast = trunk if precision == FULL else _in_precision(precision, name, backbone, scaling)
    return Network(name, trunk, head, full, fast)


def _trunk(name: str, backbone: keras.Model, scaling: str) -> keras.Model:
    backbone.trainable = False
    pixels = keras.Input((*backbone.input_shape[1:3], 1), name="pixels")
    return keras.Model(
        pixels, backbone(channels_and_scale(pixels, name, scaling), training=False), name=f"{name}_trunk"
    )


def _in_precision(precision: str, name: str, backbone: keras.Model, scaling: str) -> keras.Model:
    """The same trunk with weights in float32 and everything else in ``precision``."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(f"mixed_{precision}")
    try:
        twin = build_backbone(name, backbone.input_shape[1])
        twin.set_weights(backbone.get_weights())
        return _trunk(name, twin, scaling)
    finally:
        keras.config.set_dtype_policy(before)
