"""VGG16 with the report's classification layers (recipe §3)."""

from __future__ import annotations

import keras
from keras import layers

from cxr_tasks.networks.classifier import Network, on_frozen_backbone


def backbone(image_size: int) -> keras.Model:
    """The convolutional base, (S, S, 3) → (S/32, S/32, 512), with untrained weights."""
    return keras.applications.VGG16(include_top=False, weights=None, input_shape=(image_size, image_size, 3))


def top(features: keras.KerasTensor, classes: int) -> keras.KerasTensor:
    """Flatten → Dense 128 → Dropout 0.5 → softmax."""
    x = layers.Flatten()(features)
    x = layers.Dense(128, activation="relu")(x)
    x = layers.Dropout(0.5)(x)
    return layers.Dense(classes, activation="softmax", dtype="float32")(x)


def build(base: keras.Model, classes: int, scaling: str) -> Network:
    """The classifier on a backbone that has its weights. At 224: 17,926,467 parameters, 3,211,779 trained."""
    return on_frozen_backbone("vgg16", base, top, classes, scaling)
