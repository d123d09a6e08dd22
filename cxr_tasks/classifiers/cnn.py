"""The report's own CNN, trained from scratch (recipe §3)."""

from __future__ import annotations

import keras
from keras import layers

from cxr_tasks.classifiers.channels import channels_and_scale


def build_cnn(image_size: int, classes: int, scaling: str) -> keras.Model:
    """Three convolutions and two dense layers. At 224: 3,043,695 parameters, 6 of them not trained."""
    pixels = keras.Input((image_size, image_size, 1), name="pixels")
    x = channels_and_scale(pixels, "cnn", scaling)
    x = layers.BatchNormalization()(x)
    x = layers.Conv2D(64, 3, padding="same", activation="relu")(x)
    x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(64, 3, padding="same", activation="relu")(x)
    x = layers.MaxPooling2D()(x)
    x = layers.Dropout(0.25)(x)
    x = layers.Conv2D(32, 3, padding="valid", activation="relu")(x)
    x = layers.MaxPooling2D()(x)
    x = layers.Dropout(0.25)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(128, activation="relu")(x)
    x = layers.Dropout(0.5)(x)
    x = layers.Dense(classes, activation="softmax", dtype="float32")(x)
    return keras.Model(pixels, x, name="cnn")
