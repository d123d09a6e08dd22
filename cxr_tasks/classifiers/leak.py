"""The source report's own split, wrong as it is: synthetic images join the data before they are split.

Some synthetic images are tested on, beside real images that the GAN was trained on. The module shows what that does to
the figures on one's own data. Nothing that comes out of it is compared with an honest arm, or registered.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cxr_tasks.classifiers.features import ArmFeatures
from cxr_tasks.data.stacks import Rows, as_stack
from cxr_tasks.randomness import keyed


def leaking_split(images: int, validation: float, test: float, seed: int) -> dict[str, np.ndarray]:
    """Positions of each split, dealt at random with no regard to patients, duplicates or provenance."""
    order = keyed(seed, "leaking split").permutation(images)
    cuts = np.round(np.cumsum([1 - validation - test, validation]) * images).astype(int)
    return dict(zip(("train", "validation", "test"), np.split(order, cuts), strict=True))


class PartsOfPool(ArmFeatures):
    """Parts of a pool of images as training and held-out images."""

    def __init__(self, pool: ArmFeatures, rows: Mapping[str, np.ndarray]) -> None:
        """Note the pool, whose training images are all of its images, and the positions of each split in it."""
        super().__init__(pool.frozen, pool.train, {}, None, pool.seed)
        self.pool, self.rows = pool, rows

    def held_out(self, name: str) -> Rows:
        """(n, …) of all images of a split."""
        return as_stack(self.pool.view(None)).chosen(self.rows[name])

    def training(self, rows: np.ndarray, turn: int) -> np.ndarray:
        """(b, …) of the images at positions ``rows`` of the training split."""
        return self.pool.training(self.rows["train"][rows], turn)
