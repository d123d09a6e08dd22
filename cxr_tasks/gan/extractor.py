"""Turns images into features of one frozen network. The quality of generated images is measured on these features.

``gan.measuring`` computes the figures.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np

from cxr_tasks.classifiers.channels import channels_and_scale
from cxr_tasks.classifiers.features import FEATURE_BATCH
from cxr_tasks.classifiers.weights import backbone_with_weights, scaling_images
from cxr_tasks.config import JudgeSettings
from cxr_tasks.data.resizing import resize_stack
from cxr_tasks.data.stacks import Rows, drop_pages, in_parts, on_disk
from cxr_tasks.errors import WeightsError
from cxr_tasks.image_settings import ResizeName

EXTRACTOR_BACKBONE = "resnet50"


class Extractor:
    """ResNet50 up to its global average pooling: images → 2048 features.

    Random weights are scaled on training images. Such features tell noise, blur and copies from X-rays, yet know
    nothing of what matters in one (Naeem et al., "Reliable fidelity and diversity metrics for generative models",
    ICML 2020, compare them with pretrained ones). They are not projected to fewer: on 126 real X-rays a side FID
    varies by 6 % from draw to draw, and the FID of generated images was about three times its floor.

    Attributes:
        name: What to print beside every figure that comes from these features.
    """

    def __init__(self, settings: JudgeSettings, training: Rows, seed: int, resize: ResizeName) -> None:
        """Build the network.

        Args:
            settings: Name the weights and the side of the images.
            training: (n, S, S) uint8 real training images; random weights are scaled on some of them.
            seed: Of random weights, and of the images that they are scaled on.
            resize: How images of another side are resized.

        Raises:
            WeightsError: The weights cannot be had or do not fit.
        """
        self.size, self.resize = settings.image_size, resize
        # Pretrained weights expect their own scaling, whatever the classifiers use.
        scaling = "paper" if settings.weights == "random" else "imagenet"
        some = resize_stack(training[scaling_images(len(training), seed, "feature scaling")], self.size, resize)
        try:
            base = backbone_with_weights(EXTRACTOR_BACKBONE, self.size, settings.weights, scaling, some, seed)
        except (WeightsError, ConnectionError) as error:
            raise type(error)(
                str(error).replace(f"classifiers.weights.{EXTRACTOR_BACKBONE}", "judge.weights")
            ) from error
        pixels = keras.Input((self.size, self.size, 1))
        self.network = keras.Model(
            pixels, base(channels_and_scale(pixels, EXTRACTOR_BACKBONE, scaling), training=False)
        )
        weights = {"random": f"random weights (seed {seed})", "imagenet": "ImageNet weights"}
        self.name = f"ResNet50, {weights.get(settings.weights, Path(settings.weights).name)}, {self.size} px"

    def extract(self, pixels: Rows) -> np.ndarray:
        """(n, S, S) uint8 → (n, 2048) float32, mapped from a file. Images are run some at a time.

        Images of another side are resized. How an image was resized shows in its features (Parmar et al., "On
        aliased resizing and surprising subtleties in GAN evaluation", 2022), so samples that are compared should
        come in one size.
        """
        values, done = on_disk((len(pixels), self.network.output_shape[-1]), np.float32), 0
        for part in in_parts(pixels) if len(pixels) else ():
            resized = resize_stack(part, self.size, self.resize)
            found = self.network.predict(resized[..., None], batch_size=FEATURE_BATCH, verbose=0)
            values[done : done + len(part)] = found
            done += len(part)
            drop_pages(values)
        return values
