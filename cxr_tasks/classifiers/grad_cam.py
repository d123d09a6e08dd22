"""Where in an image a saved classifier saw a class: Grad-CAM (Selvaraju et al., ICCV 2017).

Drawing is in ``evaluation.plots_gallery``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from cxr_tasks.keras_graph import run_with

BATCH = 16
# What only thins out or repeats the map before it: the paper takes that of the last convolution.
_NO_MAP_OF_ITS_OWN = (keras.layers.InputLayer, keras.layers.MaxPooling2D, keras.layers.Dropout)


def grad_cam(model: keras.Model, pixels: np.ndarray, class_index: np.ndarray) -> np.ndarray:
    """The regions that raise the score of a class, at the last convolutional feature map.

    The map's channels are weighted by the mean gradient of the class's pre-softmax score, summed, and cut off
    at zero (equations 1 and 2 of the paper); each image is then scaled to its own largest value.

    Args:
        model: A functional classifier, pixels (n, S, S, 1) 0–255 → probabilities, whose last layer, or that of the
            model nested last in it, is a ``Dense`` with softmax. It is not changed.
        pixels: (n, S, S) uint8.
        class_index: (n,), the class that each image is explained for.

    Returns:
        (n, S, S) float32 from 0 to 1, upsampled bilinearly; all zeros where nothing speaks for the class.

    Raises:
        ValueError: The model has no feature map, or does not end in such a layer.
    """
    layers = list(_layers(model))
    maps = [layer for layer in layers if len(layer.output.shape) == 4 and not isinstance(layer, _NO_MAP_OF_ITS_OWN)]
    last = layers[-1]
    if not maps:
        raise ValueError(f"{model.name} has no feature map that could show where it looks.")
    if not isinstance(last, keras.layers.Dense) or last.activation is not keras.activations.softmax:
        raise ValueError(f"{model.name} does not end in a Dense layer with softmax.")
    starts = range(0, len(pixels), BATCH)
    heat = [_heat(model, maps[-1], last, pixels[i : i + BATCH], class_index[i : i + BATCH]) for i in starts]
    return np.concatenate(heat) if heat else np.empty(pixels.shape, np.float32)


def _layers(model: keras.Model) -> Iterator[keras.Layer]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layers(layer)
        else:
            yield layer


def _heat(
    model: keras.Model, map_layer: keras.Layer, last: keras.Layer, pixels: np.ndarray, class_index: np.ndarray
) -> np.ndarray:
    maps: list[Any] = []
    # Variables are left out, and so is everything below the map.
    with tf.GradientTape(watch_accessed_variables=False) as tape:

        def instead_of(layer: keras.Layer) -> Callable[..., Any]:
            if isinstance(layer, keras.Model):
                return lambda x, **_: run_with(layer, x, instead_of)
            if layer is map_layer:
                return watched
            return logits if layer is last else layer

        def watched(*args: Any, **kwargs: Any) -> Any:
            maps.append(map_layer(*args, **kwargs))
            tape.watch(maps[-1])
            return maps[-1]

        def logits(x: Any) -> Any:
            return keras.ops.matmul(x, last.kernel) + last.bias

        scores = run_with(model, tf.constant(pixels[..., None], tf.float32), instead_of)
        chosen = tf.gather(scores, class_index, axis=1, batch_dims=1)
    weights = tf.reduce_mean(tape.gradient(chosen, maps[0]), axis=(1, 2), keepdims=True)
    heat = tf.nn.relu(tf.reduce_sum(weights * maps[0], axis=-1, keepdims=True))
    heat = tf.image.resize(heat, pixels.shape[1:], "bilinear")[..., 0]
    return tf.math.divide_no_nan(heat, tf.reduce_max(heat, axis=(1, 2), keepdims=True)).numpy()
