"""What X-rays of the training data look like, and how far an image is from them.

An image is known by its gradients: a histogram of their orientations in each cell of its thumbnail (Dalal and Triggs,
CVPR 2005). Chest X-rays lie close to a flat of few dimensions in that space, which principal components of the
training images span. How far an image lies off that flat is its distance. Neither brightness nor contrast moves it.
What it finds and misses is in docs/how-it-works/serving.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cxr_tasks.data.stacks import mapped

CELLS, ORIENTATIONS = 8, 8
# More axes describe noise of the training images, fewer leave out what X-rays differ in. Of 16 to 128, 32 and 64 told
# other pictures best from X-rays.
AXES = 32


@dataclass(frozen=True, eq=False)
class TypicalImages:
    """The flat near which training images lie.

    Attributes:
        centre: (d,) float32, the mean of their gradients.
        axes: (k, d) float32, orthonormal.
    """

    centre: np.ndarray
    axes: np.ndarray

    @classmethod
    def of(cls, thumbnails: np.ndarray) -> TypicalImages:
        """That of training images.

        Args:
            thumbnails: (n, 32, 32) uint8.
        """
        found = gradients(thumbnails).astype(np.float64)
        centre = found.mean(axis=0)
        _, vectors = np.linalg.eigh((found - centre).T @ (found - centre))
        # On n images n - 1 axes leave nothing: every one of them would be at distance 0.
        kept = min(AXES, max(1, len(found) // 4))
        return cls(centre.astype(np.float32), vectors[:, ::-1][:, :kept].T.astype(np.float32))

    @classmethod
    def load(cls, path: Path) -> TypicalImages:
        """Read what :meth:`save` wrote."""
        rows = np.array(mapped(path))
        return cls(rows[0], rows[1:])

    def save(self, path: Path) -> None:
        """Write it as one array: the centre, and below it the axes."""
        np.save(path, np.concatenate([self.centre[None], self.axes]))

    def distances(self, thumbnails: np.ndarray) -> np.ndarray:
        """(n,) float32 of (n, 32, 32) uint8: how far each image lies off the flat."""
        apart = gradients(thumbnails) - self.centre
        return np.linalg.norm(apart - (apart @ self.axes.T) @ self.axes, axis=1)


def gradients(thumbnails: np.ndarray) -> np.ndarray:
    """Histograms of the orientations of gradients.

    Args:
        thumbnails: (n, 32, 32) uint8.

    Returns:
        (n, 512) float32: the square roots of the sums of 8 orientations in 8 × 8 cells, of grays in standard
        deviations of the image's own.
    """
    grays = thumbnails.astype(np.float32)
    grays = (grays - grays.mean(axis=(1, 2), keepdims=True)) / (grays.std(axis=(1, 2), keepdims=True) + 1)
    down, across = np.gradient(grays, axis=(1, 2))
    size = np.hypot(down, across)
    turn = np.arctan2(down, across) * (ORIENTATIONS / (2 * np.pi)) % ORIENTATIONS
    side = thumbnails.shape[1] // CELLS
    found = np.empty((len(grays), ORIENTATIONS, CELLS, CELLS), np.float32)
    for orientation in range(ORIENTATIONS):
        # Each gradient counts for the two orientations that it lies between.
        off = (turn - orientation + ORIENTATIONS / 2) % ORIENTATIONS - ORIENTATIONS / 2
        weighed = size * (1 - np.abs(off)).clip(0)
        found[:, orientation] = weighed.reshape(-1, CELLS, side, CELLS, side).sum(axis=(2, 4))
    return np.sqrt(found).reshape(len(grays), -1)


def gray_levels(thumbnails: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the standard deviation of the grays, each (n,), of (n, 32, 32) uint8."""
    grays = thumbnails.astype(np.float64)
    return grays.mean(axis=(1, 2)), grays.std(axis=(1, 2))


def upper_limit(values: np.ndarray, share: float) -> float:
    """What a further value of the same kind exceeds with a probability of at most ``share`` (split conformal).

    With fewer than 1/``share`` values nothing can promise that, and the limit is the largest of them.
    """
    ordered = np.sort(values)
    return float(ordered[min(len(ordered), int(np.ceil((len(ordered) + 1) * (1 - share)))) - 1])


def both_limits(values: np.ndarray, share: float) -> tuple[float, float]:
    """Between which a further value lies, but for a probability of at most ``share``."""
    return -upper_limit(-values, share / 2), upper_limit(values, share / 2)
