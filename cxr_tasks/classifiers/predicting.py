"""What a trained model says of images, some at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import pandas as pd

from cxr_tasks.classifiers.feature_store import FeatureCache, shard_features
from cxr_tasks.classifiers.features import FrozenTrunk
from cxr_tasks.data.stacks import Rows, in_parts

# Bounds the pixels in memory: 512 images of 224 × 224 take 26 MB, and four times as much as float32.
PREDICTED_AT_ONCE = 512


def predict_stack(model: keras.Model, seen: Rows) -> np.ndarray:
    """Probabilities (n, classes) of what a model sees, (n, …), to the bit those of one call of ``predict``."""
    return np.concatenate([model.predict(part, verbose=0) for part in in_parts(seen, PREDICTED_AT_ONCE)])


def predict_rows(
    rows: pd.DataFrame, classes: int, of_shard: Callable[[int], np.ndarray], model: keras.Model
) -> np.ndarray:
    """Probabilities (n, classes) of the images of ``rows`` of a manifest.

    Args:
        rows: ``shard`` and ``row`` say where each image lies.
        classes: How many the model tells apart.
        of_shard: What the model sees of all images of a shard, mapped into memory.
        model: What is asked.
    """
    found = np.empty((len(rows), classes), np.float32)
    places = rows["row"].to_numpy()
    for number, chosen in rows.groupby("shard").indices.items():
        packed = of_shard(number)
        for start in range(0, len(chosen), PREDICTED_AT_ONCE):
            part = chosen[start : start + PREDICTED_AT_ONCE]
            found[part] = model.predict(packed[places[part]], verbose=0)
    return found


def with_stored_features(
    model: keras.Model, classifier: str, identity: Mapping[str, Any], shards: tuple[str, ...], size: int
) -> tuple[keras.Model, Callable[[int], np.ndarray]] | None:
    """The head of a trained model, and the features that it sees, which the store keeps for all models of a backbone.

    Args:
        model: A whole model of :func:`cxr_tasks.classifiers.networks.on_frozen_backbone`.
        classifier: Its name in the registry.
        identity: All that its features depend on besides pixels. The model's own trunk computes in float32.
        shards: References of the shards.
        size: Side of the images in pixels.

    Returns:
        ``None`` for a model that has no frozen backbone.
    """
    names = {layer.name for layer in model.layers}
    if not identity or not {f"{classifier}_trunk", f"{classifier}_head"} <= names:
        return None
    trunk = FrozenTrunk(model.get_layer(f"{classifier}_trunk"))
    cache = FeatureCache(trunk, {**identity, "precision": "float32"})
    return model.get_layer(f"{classifier}_head"), lambda shard: shard_features(cache, shards[shard], size)
