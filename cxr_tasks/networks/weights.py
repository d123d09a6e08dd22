"""Where a frozen backbone's weights come from: ImageNet, a file, or random ones scaled to the data.

Unscaled random weights are useless in a frozen backbone: with Keras' defaults VGG16's features have a
standard deviation near 0.001. Scaling each layer on a batch of images to unit variance keeps the signal
alive (the idea of Mishkin and Matas, "All you need is a good init", 2016, without the orthogonal start).
"""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cxr_tasks.errors import WeightsError
from cxr_tasks.networks import resnet50, vgg16
from cxr_tasks.networks.classifier import IMAGENET_MEANS_BGR

BACKBONES = {"vgg16": vgg16.backbone, "resnet50": resnet50.backbone}
# VGG16's deeper half; the last batch norm of each of ResNet50's residual branches, and its gain.
CENTRED = ("block4", "block5")
RESIDUAL_END = "_3_bn"
RESIDUAL_GAIN = 0.1
APPLICATIONS = {"vgg16": keras.applications.VGG16, "resnet50": keras.applications.ResNet50}


def backbone_with_weights(
    name: str, image_size: int, weights: str, scaling: str, images: np.ndarray, seed: int
) -> keras.Model:
    """Build backbone ``name`` and give it its weights.

    Args:
        weights: ``imagenet``, ``random`` or the path of a Keras weights file (``.keras``, ``.weights.h5``, ``.h5``).
        images: (n, S, S) uint8 training images that random weights are scaled on; unused otherwise.
        seed: of the random weights.

    Raises:
        WeightsError: the ImageNet weights cannot be downloaded, or the file is missing or does not fit.
    """
    if weights == "random":
        keras.utils.set_random_seed(seed)
    model = BACKBONES[name](image_size)
    if weights == "random":
        scale_to_data(model, as_backbone_input(images, scaling))
    elif weights == "imagenet":
        _load_imagenet(name, model)
    else:
        _load_file(name, model, Path(weights))
    return model


def as_backbone_input(images: np.ndarray, scaling: str) -> np.ndarray:
    """(n, S, S) uint8 gray → (n, S, S, 3) float32, scaled as the saved model does it."""
    channels = np.repeat(images[..., None].astype("float32"), 3, axis=-1)
    return channels / 255 if scaling == "paper" else channels - np.array(IMAGENET_MEANS_BGR, np.float32)


def scale_to_data(model: keras.Model, batch: np.ndarray) -> None:
    """Scale random weights layer by layer so that images of ``batch`` stay apart in the features.

    Every convolution gets outputs of unit variance, and batch norm the statistics of the batch. Two habits of
    deep random networks are countered: rectifiers make all images look alike with depth, so the convolutions
    named in ``CENTRED`` are also centred channel by channel (Krähenbühl et al., "Data-dependent
    initializations of convolutional neural networks", 2016); and residual branches add up to noise, so they
    start small (Goyal et al., "Accurate, large minibatch SGD", 2017, start them at zero).

    Args:
        model: a functional backbone in which each layer is called once.
        batch: (n, S, S, 3) float32, scaled as the network will see it.
    """
    values: dict[int, Any] = {id(model.input): keras.ops.convert_to_tensor(batch)}
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    uses = Counter(id(tensor) for layer in layers for tensor in _inputs(layer))
    for layer in layers:
        inputs = [values[id(tensor)] for tensor in _inputs(layer)]
        x = inputs if isinstance(layer.input, list) else inputs[0]
        if isinstance(layer, keras.layers.Conv2D):
            _scale_convolution(layer, x)
        elif isinstance(layer, keras.layers.BatchNormalization):
            mean, variance = keras.ops.moments(x, axes=(0, 1, 2))
            layer.moving_mean.assign(mean)
            layer.moving_variance.assign(variance)
            if layer.name.endswith(RESIDUAL_END):
                layer.gamma.assign(keras.ops.full_like(layer.gamma, RESIDUAL_GAIN))
        # Called for inference, batch norm uses the statistics that were just assigned.
        kwargs = {"training": False} if isinstance(layer, keras.layers.BatchNormalization) else {}
        values[id(layer.output)] = layer(x, **kwargs)
        # At full size the outputs of all layers together would fill the memory.
        for tensor in _inputs(layer):
            uses[id(tensor)] -= 1
            if not uses[id(tensor)]:
                del values[id(tensor)]


def _inputs(layer: keras.Layer) -> list[Any]:
    return layer.input if isinstance(layer.input, list) else [layer.input]


def _scale_convolution(layer: keras.layers.Conv2D, x: Any) -> None:
    # Measured before the activation, which would hide half of the outputs.
    activation, layer.activation = layer.activation, keras.activations.linear
    outputs = layer(x)
    layer.activation = activation
    if layer.use_bias and layer.name.startswith(CENTRED):
        mean, variance = keras.ops.moments(outputs, axes=(0, 1, 2))
        spread = keras.ops.sqrt(variance + 1e-12)
        layer.bias.assign((layer.bias - mean) / spread)
    else:
        spread = keras.ops.std(outputs) + 1e-12
    layer.kernel.assign(layer.kernel / spread)


def _load_imagenet(name: str, model: keras.Model) -> None:
    size = model.input_shape[1]
    pooling = "avg" if name == "resnet50" else None
    try:
        source = APPLICATIONS[name](include_top=False, weights="imagenet", input_shape=(size, size, 3), pooling=pooling)
    except Exception as error:
        raise WeightsError(
            f"The ImageNet weights of {name} could not be downloaded ({type(error).__name__}): put the file "
            f"on this machine and name it in classifiers.weights.{name}, or set that to random."
        ) from error
    model.set_weights(source.get_weights())


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
            f"The weights file {path} does not fit the {name} backbone (include_top=False): {error}"
        ) from error
