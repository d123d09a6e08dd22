"""The classifiers by name. To add one, add an entry here; everything else (form, profiles, report, registry) reads it.

An entry is plain data, so that a DAG file can list the classifiers without loading Keras.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Channels = float | tuple[float, float, float]

# Scale and offset of keras.applications' preprocessing, by the framework that the networks were first trained in.
# Channels are in the order that the weights expect; for gray pixels only the numbers matter.
CAFFE: tuple[Channels, Channels] = (1.0, (-103.939, -116.779, -123.68))
TORCH: tuple[Channels, Channels] = (
    (1 / (255 * 0.229), 1 / (255 * 0.224), 1 / (255 * 0.225)),
    (-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225),
)
TENSORFLOW: tuple[Channels, Channels] = (1 / 127.5, -1.0)


@dataclass(frozen=True)
class Classifier:
    """How one classifier is built.

    Attributes:
        display: Its name for people.
        application: Its frozen backbone, the name of a function in ``keras.applications``; ``None`` for the
            recipe's own CNN, which is trained whole.
        options: Further arguments of that function.
        imagenet: Scale and offset of the backbone's own preprocessing, used where ``classifiers.scaling`` is
            ``imagenet``.
        pooling: As in ``keras.applications``; with ``None`` the feature map is flattened.
        dense: Units of the layers between the features and the last layer.
    """

    display: str
    application: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    imagenet: tuple[Channels, Channels] = CAFFE
    pooling: str | None = "avg"
    dense: tuple[int, ...] = (128, 64)

    @property
    def has_backbone(self) -> bool:
        """Whether the classifier stands on a frozen backbone."""
        return self.application is not None


# Networks that would scale their own input are built without that: scaling is a setting of its own.
_BARE = {"include_preprocessing": False}

CLASSIFIERS: dict[str, Classifier] = {
    "vgg16": Classifier("VGG16", "VGG16", pooling=None, dense=(128,)),
    "resnet50": Classifier("ResNet50", "ResNet50"),
    "densenet121": Classifier("DenseNet121", "DenseNet121", imagenet=TORCH),
    "efficientnetv2b0": Classifier("EfficientNetV2B0", "EfficientNetV2B0", _BARE, TORCH),
    "mobilenetv3": Classifier("MobileNetV3Large", "MobileNetV3Large", _BARE, TENSORFLOW),
    "cnn": Classifier("CNN"),
}
