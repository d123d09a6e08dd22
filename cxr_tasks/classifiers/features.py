"""What a head sees of images: the features of a frozen trunk, or pixels. ``feature_store`` keeps features."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from cxr_tasks.classifiers.augmentation import augment
from cxr_tasks.config import AugmentationSettings
from cxr_tasks.data.dataset import Images
from cxr_tasks.data.stacks import Rows, as_stack, in_parts
from cxr_tasks.errors import WeightsError

FEATURE_BATCH = 64
# TensorFlow keeps memory for every size of a batch that it has met, so the last one is filled up to a multiple.
FILLED_UP_TO = 16
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

    def all_of(self, pixels: Rows) -> Rows:
        """As a call, of any number of images: only features are held in memory."""
        if self._run is None:
            return as_stack(pixels).each(lambda part, _: part[..., None], (*pixels.shape[1:], 1))
        return np.concatenate([self(part) for part in in_parts(pixels)])

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """(n, S, S) uint8 → (n, …) float16 features; without a trunk (n, S, S, 1) uint8.

        Raises:
            WeightsError: A feature is no number, or too large for float16.
        """
        if self._run is None:
            return pixels[..., None]
        if not len(pixels):
            # On some processors TensorFlow gives features of an empty batch a wrong shape.
            return self(np.zeros((1, *pixels.shape[1:]), pixels.dtype))[:0]
        batches = (pixels[i : i + FEATURE_BATCH, ..., None] for i in range(0, len(pixels), FEATURE_BATCH))
        # What is too large becomes infinite, and is looked for below.
        with np.errstate(over="ignore"):
            features = np.concatenate([self._of_batch(batch).astype(np.float16) for batch in batches])
        if not np.isfinite(features).all():
            raise WeightsError(
                f"The backbone {self.name} gives features that are no numbers or above "
                "65,504: check the weights that it was given, and classifiers.scaling."
            )
        return features

    def _of_batch(self, pixels: np.ndarray) -> np.ndarray:
        assert self._run is not None
        missing = -len(pixels) % FILLED_UP_TO
        filled = np.pad(pixels, [(0, missing), *[(0, 0)] * (pixels.ndim - 1)])
        return self._run(tf.constant(filled, tf.float32)).numpy()[: len(pixels)]


class ArmFeatures:
    """What the head sees of an arm's images, read or made when it is asked for. Features of a trunk stay in memory."""

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
        self._views: dict[int | None, Rows] = {}

    def held_out(self, name: str) -> Rows:
        """(n, …) of all images of a held-out set, as they are."""
        return self.frozen.all_of(self._held_out[name].pixels)

    def training(self, rows: np.ndarray, turn: int) -> np.ndarray:
        """(b, …) of the training images at positions ``rows``, in the pass number ``turn`` over them."""
        if self.augmentation is None:
            return self.view(None)[rows]
        if self.augmentation.views is None:
            return self.frozen(self._augment(self.train.pixels[rows], self.train.ids[rows], turn))
        return self.view(turn % self.augmentation.views)[rows]

    def view(self, view: int | None) -> Rows:
        """(n, …) of all training images: as they are, or in one augmented version."""
        if view not in self._views:
            self._views[view] = self._make_view(view)
        return self._views[view]

    def _make_view(self, view: int | None) -> Rows:
        return self.frozen.all_of(self.train.pixels if view is None else self._drawn(self.train, view))

    def _drawn(self, images: Images, view: int) -> Rows:
        """(n, S, S) of all ``images`` in one augmented version."""
        pixels = as_stack(images.pixels)
        return pixels.each(lambda part, rows: self._augment(part, images.ids[rows], view), pixels.shape[1:])

    def _augment(self, pixels: np.ndarray, ids: np.ndarray, view: int) -> np.ndarray:
        assert self.augmentation is not None  # else nothing is drawn
        return augment(pixels, ids, self.augmentation, view, self.seed)
