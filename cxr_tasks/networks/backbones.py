"""The pretrained networks that classifiers are built on, one entry each; where their weights come from is in
``weights``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import keras
from keras import layers

# The scale and offset of keras.applications' preprocessing, by the framework that the networks were first
# trained in. Channels are in the order that the weights expect; for gray pixels only the numbers matter.
CAFFE = (1.0, (-103.939, -116.779, -123.68))
_MEAN, _SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TORCH = (
    tuple(1 / (255 * sd) for sd in _SD),
    tuple(-mean / sd for mean, sd in zip(_MEAN, _SD, strict=True)),
)
TENSORFLOW = (1 / 127.5, -1.0)


def flattened(features: keras.KerasTensor, classes: int) -> keras.KerasTensor:
    """Flatten → Dense 128 → Dropout 0.5 → softmax: VGG16's in recipe §3."""
    x = layers.Flatten()(features)
    x = layers.Dense(128, activation="relu")(x)
    x = layers.Dropout(0.5)(x)
    return layers.Dense(classes, activation="softmax", dtype="float32")(x)


def pooled(features: keras.KerasTensor, classes: int) -> keras.KerasTensor:
    """Dense 128 → Dense 64 → Dropout 0.5 → softmax: ResNet50's in recipe §3, after global average pooling."""
    x = layers.Dense(128, activation="relu")(features)
    x = layers.Dense(64, activation="relu")(x)
    x = layers.Dropout(0.5)(x)
    return layers.Dense(classes, activation="softmax", dtype="float32")(x)


@dataclass(frozen=True)
class Backbone:
    """``application``: its constructor in keras.applications. ``imagenet``: scale and offset of its own
    preprocessing. ``pooling``: as in keras.applications. ``top``: the classification layers on its features.
    """

    application: Callable[..., keras.Model]
    imagenet: tuple[float | tuple[float, ...], float | tuple[float, ...]]
    pooling: str | None = "avg"
    top: Callable[[keras.KerasTensor, int], keras.KerasTensor] = pooled

    def build(self, image_size: int, weights: str | None = None) -> keras.Model:
        """The convolutional base, (S, S, 3) → features; ``weights`` are ``imagenet`` or untrained."""
        return self.application(
            include_top=False, weights=weights, input_shape=(image_size, image_size, 3), pooling=self.pooling
        )


# Networks that would scale their own input are built without that: their scaling is a setting as well.
_UNSCALED = {"include_preprocessing": False}
BACKBONES = {
    "vgg16": Backbone(keras.applications.VGG16, CAFFE, pooling=None, top=flattened),
    "resnet50": Backbone(keras.applications.ResNet50, CAFFE),
    "densenet121": Backbone(keras.applications.DenseNet121, TORCH),
    "efficientnetv2b0": Backbone(partial(keras.applications.EfficientNetV2B0, **_UNSCALED), TORCH),
    "mobilenetv3": Backbone(partial(keras.applications.MobileNetV3Large, **_UNSCALED), TENSORFLOW),
}


def scale_layer(name: str, scaling: str) -> keras.layers.Rescaling:
    """Gray values 0–255 in three channels → what classifier ``name`` sees.

    ``paper`` divides by 255; ``imagenet`` does what the backbone was pretrained with, and for a network
    without one what VGG16 was.
    """
    if scaling == "paper":
        return layers.Rescaling(1 / 255, name="scale")
    scale, offset = BACKBONES[name].imagenet if name in BACKBONES else CAFFE
    return layers.Rescaling(scale, offset=offset, name="scale")
