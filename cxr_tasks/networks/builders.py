"""A classifier by its name."""

from __future__ import annotations

import keras
import numpy as np

from cxr_tasks.config import ClassifierSettings
from cxr_tasks.networks import cnn
from cxr_tasks.networks.classifier import Network, on_frozen_backbone
from cxr_tasks.networks.weights import backbone_with_weights


def build_classifier(
    name: str, classes: int, settings: ClassifierSettings, images: np.ndarray, *, seed: int, weights_seed: int
) -> Network:
    """Build classifier ``name`` with its weights.

    Args:
        images: (n, S, S) uint8 training images; random backbones are scaled on them.
        seed: of the trained layers' first weights and of dropout; it becomes Keras' global seed.
        weights_seed: of a random backbone.
    """
    if name == "cnn":
        keras.utils.set_random_seed(seed)
        return cnn.build(settings.image_size, classes, settings.scaling)
    base = backbone_with_weights(
        name, settings.image_size, settings.weights[name], settings.scaling, images, weights_seed
    )
    # Only now: how many draws a backbone uses up depends on its kind and its weights.
    keras.utils.set_random_seed(seed)
    return on_frozen_backbone(name, base, classes, settings.scaling, settings.precision)
