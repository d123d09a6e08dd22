"""Judges generated images: features of them and of real ones, the figures, the verdict."""

from __future__ import annotations

import numpy as np

from cxr_tasks.config import Settings
from cxr_tasks.data.dataset import Images
from cxr_tasks.data.filtering import repeated
from cxr_tasks.evaluation.gan_distances import Sample
from cxr_tasks.evaluation.gan_quality import GanQuality, measure
from cxr_tasks.evaluation.gan_verdict import Verdict, verdict
from cxr_tasks.training.features import Extractor
from cxr_tasks.training.randomness import keyed


class Judge:
    """Knows the real images and how an untrained generator's look; :meth:`judge` compares others with them."""

    def __init__(self, settings: Settings, train: Images, validation: Images, untrained: np.ndarray) -> None:
        """Extract the features of what generated images are compared with.

        Args:
            train: what the GAN was trained on. validation: real images that it has not seen.
            untrained: (n, S, S) uint8, images of its generator before the training, classes as :meth:`labels`.
        """
        self.settings = settings
        self.extractor = Extractor(settings.judge, train.pixels, settings.seed)
        self.training = self._sample(train.pixels, train.labels, count_repeated=True)
        self.held_out = self._sample(validation.pixels, validation.labels)
        self.untrained = self._sample(untrained, self.labels(settings))

    @staticmethod
    def labels(settings: Settings) -> np.ndarray:
        """(n,) the classes of the images to judge, as many of each."""
        return np.repeat(np.arange(len(settings.data.classes)), settings.judge.images_per_class)

    def judge(self, images: np.ndarray) -> tuple[GanQuality, Verdict]:
        """Measure (n, S, S) uint8 images whose classes are :meth:`labels`."""
        quality = measure(
            self._sample(images, self.labels(self.settings), count_repeated=True),
            self.training,
            self.held_out,
            self.untrained,
            list(self.settings.data.classes),
            extractor=self.extractor.name,
            seed=self.settings.seed,
        )
        return quality, verdict(quality, self.settings.judge)

    def _sample(self, pixels: np.ndarray, labels: np.ndarray, *, count_repeated: bool = False) -> Sample:
        found = None
        if count_repeated:
            # The more images, the more of them are repeated, so never more of a class than are generated.
            most, seed = self.settings.judge.images_per_class, self.settings.seed
            members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
            rows = np.concatenate([keyed(seed, "repeated", len(m)).permutation(m)[:most] for m in members])
            found = np.full(len(labels), np.nan)
            found[rows] = repeated(pixels[rows], labels[rows], self.settings.data.near_duplicates)
        return Sample(self.extractor.extract(pixels).values, labels, found)
