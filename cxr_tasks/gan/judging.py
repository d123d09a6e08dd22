"""Judges generated images: features of them and of real ones, the figures, the verdict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cxr_tasks.config import Settings
from cxr_tasks.data.dataset import Images
from cxr_tasks.data.stacks import Rows
from cxr_tasks.gan.distances import Sample
from cxr_tasks.gan.extractor import Extractor
from cxr_tasks.gan.filtering import copies, repeated
from cxr_tasks.gan.measuring import measure
from cxr_tasks.gan.quality import GanQuality
from cxr_tasks.gan.verdict import GanVerdict, gan_verdict
from cxr_tasks.image_settings import ResizeName
from cxr_tasks.randomness import keyed


class Judge:
    """Knows the real images and how an untrained generator's look; :meth:`judge` compares others with them."""

    def __init__(
        self, settings: Settings, train: Images, validation: Images, untrained: np.ndarray, resize: ResizeName
    ) -> None:
        """Extract the features of the images that generated ones are compared with.

        Args:
            settings: Of the run.
            train: The real training images.
            validation: Real images that no GAN of this project has seen.
            untrained: (n, S, S) uint8, images of the generator before its training; their classes are :meth:`labels`.
            resize: How images are brought to the judge's side.
        """
        self.settings = settings
        self.extractor = Extractor(settings.judge, train.pixels, settings.seeds.judge, resize)
        self._train = train.pixels
        self.training = self._sample(train.pixels, train.labels, count_repeated=True)
        self.held_out = replace(
            self._sample(validation.pixels, validation.labels), copied=self._copied(validation.pixels)
        )
        self.untrained = self._sample(untrained, self.labels(settings))

    @staticmethod
    def labels(settings: Settings) -> np.ndarray:
        """(n,) the classes of the images to judge, as many of each class."""
        return np.repeat(np.arange(len(settings.data.classes)), settings.judge.images_per_class)

    def judge(
        self, images: Rows, labels: np.ndarray | None = None, copied: np.ndarray | None = None
    ) -> tuple[GanQuality, GanVerdict]:
        """Measure synthetic images.

        Args:
            images: (n, S, S) uint8.
            labels: (n,) their classes; ``None`` where these are :meth:`labels`.
            copied: (n,) which are known to copy a training image; the others are looked at too.
        """
        labels = self.labels(self.settings) if labels is None else labels
        found = self._copied(images) | (np.zeros(len(images), bool) if copied is None else copied)
        quality = measure(
            replace(self._sample(images, labels, count_repeated=True), copied=found),
            self.training,
            self.held_out,
            self.untrained,
            list(self.settings.data.classes),
            extractor=self.extractor.name,
            seed=self.settings.seeds.judge,
        )
        return quality, gan_verdict(quality, self.settings.judge)

    def _copied(self, pixels: Rows) -> np.ndarray:
        return copies(pixels, self._train, self.settings.data.near_duplicates)

    def _sample(self, pixels: Rows, labels: np.ndarray, *, count_repeated: bool = False) -> Sample:
        found = None
        if count_repeated and len(labels):
            # The more images there are, the more are repeated: of a class, never look at more than are generated.
            most, seed = self.settings.judge.images_per_class, self.settings.seeds.judge
            members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
            rows = np.concatenate([keyed(seed, "repeated", len(m)).permutation(m)[:most] for m in members])
            found = np.full(len(labels), np.nan)
            found[rows] = repeated(pixels[rows], labels[rows], self.settings.data.near_duplicates)
        return Sample(self.extractor.extract(pixels), labels, found)
