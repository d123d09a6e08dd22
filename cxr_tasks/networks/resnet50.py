"""ResNet50 with the report's classification layers (recipe §3)."""

from __future__ import annotations

import keras
from keras import layers

from cxr_tasks.networks.classifier import Network, on_frozen_backbone


def backbone(image_size: int) -> keras.Model:
    """The convolutional base with global average pooling, (S, S, 3) → (2048,), with untrained weights."""
    return keras.applications.ResNet50(
        include_top=False, weights=None, input_shape=(image_size, image_size, 3), pooling="avg"
    )


def top(features: keras.KerasTensor, classes: int) -> keras.KerasTensor:
    """Dense 128 → Dense 64 → Dropout 0.5 → softmax."""
    x = layers.Dense(128, activation="relu")(features)
    x = layers.Dense(64, activation="relu")(x)
    x = layers.Dropout(0.5)(x)
    return layers.Dense(classes, activation="softmax", dtype="float32")(x)


def build(base: keras.Model, classes: int, scaling: str) -> Network:
    """The classifier on a backbone that has its weights: 23,858,435 parameters, 270,723 trained."""
    return on_frozen_backbone("resnet50", base, top, classes, scaling)
