"""What a head sees of images: the features of a frozen trunk, or pixels. Features are kept in ``feature_store``."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from cxr_tasks.classifiers.augmentation import augment
from cxr_tasks.config import AugmentationSettings
from cxr_tasks.data.dataset import Images
from cxr_tasks.errors import WeightsError

FEATURE_BATCH = 64
# Where nothing is frozen: a bound on the pixels in memory, far above a batch.
PIXELS_AT_ONCE = 512


class FrozenTrunk:
    """Images → what the head sees: the trunk's features as float16, or the pixels where nothing is frozen.

    Half the memory and disk of float32; its rounding moves probabilities by less than 1e-3.
    """

    def __init__(self, trunk: keras.Model | None) -> None:
        """``trunk``: the frozen network, or ``None`` where nothing is frozen."""
        self.name, self._run, self.at_once = "", None, PIXELS_AT_ONCE
        if trunk is not None:
            self.name, self.at_once = trunk.name.removesuffix("_trunk"), FEATURE_BATCH
            # predict() costs tens of milliseconds a call, more than a small network takes for a batch.
            self._run = tf.function(lambda x: tf.cast(trunk(x, training=False), tf.float32), reduce_retracing=True)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """(n, S, S) uint8 → (n, …) float16 features; without a trunk (n, S, S, 1) uint8.

        Raises:
            WeightsError: A feature is no number, or too large for float16.
        """
        if self._run is None:
            return pixels[..., None]
        # No images make one empty batch, whose features have the right shape.
        starts = range(0, max(1, len(pixels)), FEATURE_BATCH)
        batches = (pixels[i : i + FEATURE_BATCH, ..., None] for i in starts)
        # What is too large becomes infinite, and is looked for below.
        with np.errstate(over="ignore"):
            parts = [self._run(tf.constant(batch, tf.float32)).numpy().astype(np.float16) for batch in batches]
        features = np.concatenate(parts)
        if not np.isfinite(features).all():
            raise WeightsError(
                f"The backbone {self.name} gives features that are no numbers or above "
                "65,504: check the weights that it was given, and classifiers.scaling."
            )
        return features


class ArmFeatures:
    """What the head sees of an arm's images, made in memory when first asked for."""

    def __init__(
        self,
        frozen: FrozenTrunk,
        train: Images,
        held_out: Mapping[str, Images],
        augmentation: AugmentationSettings | None,
        seed: int,
    ) -> None:
        """Note what features are asked of.

        Args:
            frozen: Makes the features.
            train: The training images.
            held_out: Validation and test images, and other sets, by name.
            augmentation: Of the training images, or ``None``.
            seed: Of the draws of ``augmentation``.
        """
        self.frozen, self.train, self._held_out = frozen, train, held_out
        self.augmentation, self.seed = augmentation, seed
        self._views: dict[int | None, np.ndarray] = {}

    def held_out(self, name: str) -> np.ndarray:
        """(n, …) of all images of a held-out set, as they are."""
        return self.frozen(self._held_out[name].pixels)

    def training(self, rows: np.ndarray, turn: int) -> np.ndarray:
        """(b, …) of the training images at positions ``rows``, in the pass number ``turn`` over them."""
        if self.augmentation is None:
            return self._view(None)[rows]
        if self.augmentation.views is None:
            return self.frozen(self._drawn(self.train.pixels[rows], self.train.ids[rows], turn))
        return self._view(turn % self.augmentation.views)[rows]

    def _view(self, view: int | None) -> np.ndarray:
        if view not in self._views:
            self._views[view] = self._make_view(view)
        return self._views[view]

    def _make_view(self, view: int | None) -> np.ndarray:
        """(n, …) of all training images: as they are, or in one augmented version."""
        return self.frozen(self._drawn(self.train.pixels, self.train.ids, view))

    def _drawn(self, pixels: np.ndarray, ids: np.ndarray, view: int | None) -> np.ndarray:
        if view is None or self.augmentation is None:
            return pixels
        return augment(pixels, ids, self.augmentation, view, self.seed)
