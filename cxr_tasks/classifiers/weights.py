"""Where a frozen backbone's weights come from: ImageNet, a file, or random ones scaled to the data.

Unscaled random weights are useless in a frozen backbone: with Keras' defaults VGG16's features have a
standard deviation near 0.001. Scaling each layer on a batch of images to unit variance keeps the signal
alive (the idea of Mishkin and Matas, "All you need is a good init", 2016, without the orthogonal start).
"""

from __future__ import annotations

import socket
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cxr_tasks.classifiers.backbones import build_backbone, scale_layer
from cxr_tasks.errors import WeightsError, in_one_line
from cxr_tasks.keras_graph import nodes_in_order
from cxr_tasks.outages import is_passing
from cxr_tasks.randomness import keyed

CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
RESIDUAL_GAIN = 0.1
# How long a server of weights may keep silent.
WEIGHTS_SECONDS = 60.0
# Random weights are scaled on so many training images.
SCALING_IMAGES = 64


def scaling_images(images: int, seed: int, purpose: str) -> np.ndarray:
    """Positions, among ``images`` training images, of those that random weights are scaled on."""
    return keyed(seed, purpose).permutation(images)[:SCALING_IMAGES]


def backbone_with_weights(
    name: str, image_size: int, weights: str, scaling: str, images: np.ndarray, seed: int
) -> keras.Model:
    """Build backbone ``name`` and give it its weights.

    Args:
        name: In the registry of classifiers.
        image_size: Side in pixels.
        weights: ``imagenet``, ``random`` or the path of a Keras weights file (``.keras``, ``.weights.h5``, ``.h5``).
        scaling: ``paper`` or ``imagenet``.
        images: (n, S, S) uint8 training images that random weights are scaled on; unused otherwise.
        seed: Of the random weights.

    Raises:
        WeightsError: The ImageNet weights are refused, or the file is missing, does not fit, or is not finite.
        ConnectionError: The ImageNet weights cannot be downloaded for now.
    """
    if weights == "random":
        keras.utils.set_random_seed(seed)
    elif weights == "imagenet":
        return _imagenet(name, image_size)
    model = build_backbone(name, image_size)
    if weights == "random":
        scale_to_data(model, as_backbone_input(images, name, scaling))
    else:
        _load_file(name, model, Path(weights))
    return model


def as_backbone_input(images: np.ndarray, name: str, scaling: str) -> np.ndarray:
    """(n, S, S) uint8 gray → (n, S, S, 3) float32, scaled as the saved model does it."""
    return np.asarray(scale_layer(name, scaling)(np.repeat(images[..., None], 3, axis=-1)))


def scale_to_data(model: keras.Model, batch: np.ndarray) -> None:
    """Scale random weights layer by layer so that images of ``batch`` stay apart in the features.

    Every convolution gets outputs of unit variance, and batch norm the statistics of the batch. Two habits of
    deep random networks are countered: rectifiers make all images look alike with depth, so convolutions
    without batch norm are also centred channel by channel in the deeper half (Krähenbühl et al., "Data-dependent
    initializations of convolutional neural networks", 2016); and residual branches add up to noise, so they
    start small (Goyal et al., "Accurate, large minibatch SGD", 2017, start them at zero).

    Args:
        model: A functional backbone in which each layer is called once.
        batch: (n, S, S, 3) float32, scaled as the network will see it.
    """
    values: dict[int, Any] = {id(model.input): keras.ops.convert_to_tensor(batch)}
    nodes = nodes_in_order(model)
    uses = Counter(id(tensor) for node in nodes for tensor in node.inputs)
    centred, residual_ends = _centred(model), _residual_ends(model)
    for node in nodes:
        args, kwargs = node.arguments(values)
        _settle(node.operation, args[0], node.operation in centred, node.operation in residual_ends)
        # Called for inference, batch norm uses the statistics that were just assigned.
        values[id(node.operation.output)] = node.operation(*args, **kwargs)
        # At full size the outputs of all layers together would fill the memory.
        for tensor in node.inputs:
            uses[id(tensor)] -= 1
            if not uses[id(tensor)]:
                del values[id(tensor)]


def _settle(operation: Any, x: Any, centre: bool, ends_residual: bool) -> None:
    """Scale a convolution, or give a batch norm the statistics of its input ``x``; other operations stay."""
    if isinstance(operation, CONVOLUTIONS):
        _scale_convolution(operation, x, centre)
    elif isinstance(operation, keras.layers.BatchNormalization):
        mean, variance = keras.ops.moments(x, axes=(0, 1, 2))
        operation.moving_mean.assign(mean)
        operation.moving_variance.assign(variance)
        if ends_residual:
            operation.gamma.assign(keras.ops.full_like(operation.gamma, RESIDUAL_GAIN))
    elif hasattr(operation, "init_values") and hasattr(operation, "gamma"):
        # ConvNeXt's LayerScale starts a branch at a millionth, which training would raise. Frozen, it would stay off.
        operation.gamma.assign(keras.ops.full_like(operation.gamma, RESIDUAL_GAIN))


def _centred(model: keras.Model) -> list[keras.Layer]:
    """The deeper half of the convolutions that have an activation of their own, and so no batch norm before it."""
    linear = keras.activations.linear
    found = [op for op in model.layers if isinstance(op, CONVOLUTIONS) and op.activation is not linear]
    return found[(len(found) + 1) // 2 :]


def _residual_ends(model: keras.Model) -> list[keras.Layer]:
    """The last batch norm of every residual branch, which is what ``Add`` adds and is computed later."""
    order = {id(op.output): place for place, op in enumerate(model.operations)}
    ends = []
    for add in model.layers:
        if isinstance(add, keras.layers.Add):
            op = model.operations[max(order[id(tensor)] for tensor in add.input)]
            # A branch may have no batch norm: ConvNeXt's are scaled down by layers of their own.
            while not isinstance(op, (keras.layers.BatchNormalization, keras.layers.LayerNormalization)):
                op = model.operations[order[id(op.input)]]
            if isinstance(op, keras.layers.BatchNormalization):
                ends.append(op)
    return ends


def _scale_convolution(layer: keras.Layer, x: Any, centre: bool) -> None:
    # Measured before the activation, which would hide half of the outputs.
    activation, layer.activation = layer.activation, keras.activations.linear
    outputs = layer(x)
    layer.activation = activation
    if centre:
        mean, variance = keras.ops.moments(outputs, axes=(0, 1, 2))
        spread = keras.ops.sqrt(variance + 1e-12)
        layer.bias.assign((layer.bias - mean) / spread)
    else:
        spread = keras.ops.std(outputs) + 1e-12
    layer.kernel.assign(layer.kernel / spread)


def _imagenet(name: str, image_size: int) -> keras.Model:
    # Keras would wait for ever for a server that does not answer.
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(WEIGHTS_SECONDS)
    try:
        return build_backbone(name, image_size, "imagenet")
    except Exception as error:
        # A download that broke off may also be seen only by its hash.
        kind = ConnectionError if is_passing(error) or "Incomplete or corrupted file" in str(error) else WeightsError
        raise kind(
            f"The ImageNet weights of {name} could not be downloaded ({in_one_line(error)}): put the file "
            f"on this machine and name it in classifiers.weights.{name}, or set that to random."
        ) from error
    finally:
        socket.setdefaulttimeout(before)


def _load_file(name: str, model: keras.Model, path: Path) -> None:
    if not path.is_file():
        raise WeightsError(
            f"The weights file {path} of {name} does not exist: correct classifiers.weights.{name}, "
            "or set it to imagenet or random."
        )
    try:
        with warnings.catch_warnings():
            # Keras only warns where a layer finds nothing in the file and keeps its random weights.
            warnings.simplefilter("error", UserWarning)
            model.load_weights(path)
    except Exception as error:
        raise WeightsError(
            f"The weights file {path} does not fit the {name} backbone (include_top=False): {in_one_line(error)}."
        ) from error
    _check_finite(name, model, path)


def _check_finite(name: str, model: keras.Model, path: Path) -> None:
    """Refuse weights that are no numbers: a ReLU turns NaN into 0, so features need not show what was lost."""
    lost = [weight.path for weight in model.weights if not np.isfinite(np.asarray(weight)).all()]
    if lost:
        raise WeightsError(
            f"The weights file {path} of {name} holds NaN or infinity in {len(lost):,} of {len(model.weights):,} "
            f"weights, such as {lost[0]}: name a whole file in classifiers.weights.{name}, or set it to imagenet or "
            "random."
        )
