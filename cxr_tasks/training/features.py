"""Turns images into features of one frozen network, which the quality of generated images is measured on.

What is computed from features is in ``evaluation.gan_quality``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from cxr_tasks.config import JudgeSettings
from cxr_tasks.errors import WeightsError
from cxr_tasks.networks.classifier import channels_and_scale
from cxr_tasks.networks.weights import backbone_with_weights
from cxr_tasks.training.frozen import FEATURE_BATCH
from cxr_tasks.training.randomness import keyed

BACKBONE = "resnet50"
SCALING_IMAGES = 64


@dataclass(frozen=True)
class Features:
    """``values``: (n, d) float32. ``extractor``: the name to print beside every figure that comes from them."""

    values: np.ndarray
    extractor: str


class Extractor:
    """ResNet50 up to its global average pooling: images → 2048 features.

    Random weights are scaled on training images. Such features tell noise, blur and copies from X-rays, yet know
    nothing of what matters in one (Naeem et al., "Reliable fidelity and diversity metrics for generative models",
    ICML 2020, compare them with pretrained ones). They are not projected to fewer: on 126 real X-rays a side FID
    varies by 6 % from draw to draw, and that of generated images was about three times its floor.
    """

    def __init__(self, settings: JudgeSettings, training: np.ndarray, seed: int) -> None:
        """Build the network.

        Args:
            training: (n, S, S) uint8 real training images; random weights are scaled on some of them.
            seed: of random weights and of that choice.

        Raises:
            WeightsError: the weights cannot be had or do not fit.
        """
        self.size = settings.image_size
        # Pretrained weights expect their own scaling, whatever the classifiers use.
        scaling = "paper" if settings.weights == "random" else "imagenet"
        chosen = keyed(seed, "feature scaling").permutation(len(training))[:SCALING_IMAGES]
        try:
            base = backbone_with_weights(
                BACKBONE, self.size, settings.weights, scaling, self._resized(training[chosen]), seed
            )
        except WeightsError as error:
            raise WeightsError(str(error).replace(f"classifiers.weights.{BACKBONE}", "judge.weights")) from error
        pixels = keras.Input((self.size, self.size, 1))
        self.network = keras.Model(pixels, base(channels_and_scale(pixels, BACKBONE, scaling), training=False))
        weights = {"random": f"random weights (seed {seed})", "imagenet": "ImageNet weights"}
        self.name = f"ResNet50, {weights.get(settings.weights, Path(settings.weights).name)}, {self.size} px"

    def extract(self, pixels: np.ndarray) -> Features:
        """(n, S, S) uint8 → 2048 features an image.

        Images of another side are resized. How an image was resized shows in its features (Parmar et al., "On
        aliased resizing and surprising subtleties in GAN evaluation", 2022), so what is compared should come in
        one size.
        """
        resized = self._resized(pixels)
        if not len(resized):
            return Features(np.empty((0, self.network.output_shape[-1]), np.float32), self.name)
        values = self.network.predict(resized[..., None], batch_size=FEATURE_BATCH, verbose=0)
        return Features(values.astype(np.float32), self.name)

    def _resized(self, pixels: np.ndarray) -> np.ndarray:
        if pixels.shape[1:] == (self.size, self.size):
            return pixels
        side = (self.size, self.size)
        scaled = [np.asarray(Image.fromarray(image).resize(side, Image.Resampling.BILINEAR)) for image in pixels]
        return np.stack(scaled) if scaled else np.empty((0, *side), np.uint8)
