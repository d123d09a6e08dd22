"""The frozen networks that classifiers stand on, and the layers on top of them; weights are in ``weights``."""

from __future__ import annotations

import keras
from keras import layers

from cxr_tasks.classifiers.registry import CLASSIFIERS


def build_backbone(name: str, image_size: int, weights: str | None = None) -> keras.Model:
    """The frozen base of a classifier, (S, S, 3) → features; without ``imagenet`` weights it is untrained."""
    classifier = CLASSIFIERS[name]
    if classifier.application is None:
        raise ValueError(f"{name} has no backbone.")
    application = getattr(keras.applications, classifier.application)
    return application(
        include_top=False,
        weights=weights,
        input_shape=(image_size, image_size, 3),
        pooling=classifier.pooling,
        **classifier.options,
    )


def classify(features: keras.KerasTensor, name: str, classes: int) -> keras.KerasTensor:
    """The trained layers of classifier ``name``: dense layers → Dropout 0.5 → softmax (recipe §3)."""
    x = layers.Flatten()(features) if len(features.shape) > 2 else features
    for units in CLASSIFIERS[name].dense:
        x = layers.Dense(units, activation="relu")(x)
    x = layers.Dropout(0.5)(x)
    return layers.Dense(classes, activation="softmax", dtype="float32")(x)


def scale_layer(name: str, scaling: str) -> keras.layers.Rescaling:
    """Gray values 0–255 in three channels → what classifier ``name`` sees.

    ``paper`` divides by 255. ``imagenet`` does what the backbone was pretrained with, and for a network without a
    backbone what VGG16 was.
    """
    if scaling == "paper":
        return layers.Rescaling(1 / 255, name="scale")
    scale, offset = CLASSIFIERS[name].imagenet
    return layers.Rescaling(scale, offset=offset, name="scale")
