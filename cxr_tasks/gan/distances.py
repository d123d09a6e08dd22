"""Samples of image features, how far apart two of them are, and what a copy or a class looks like among them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cxr_tasks.data.stacks import Rows, as_stack, in_parts

COVERAGE_K = 5
# The inverse strength, as scikit-learn has it; its default, 1, fits the noise of thousands of features.
REGULARISATION = 0.01
SURROUNDING_NEIGHBOURS = 20
# A multiple of the 256 rows that scikit-learn compares at once, so that parts change no bit of a distance.
COMPARED_AT_ONCE = 4096

Array = NDArray[Any]


@dataclass(frozen=True)
class Sample:
    """Features of images.

    Attributes:
        values: (n, d), in memory or mapped: of many images only what is drawn is read at once.
        labels: (n,) positions in the class list.
        repeated: (n,) whether an image shows the same picture as another one of the sample (see
            ``gan.filtering.repeated``), and NaN for images that were not looked at.
        copied: (n,) bool, whether an image shows the same picture as a training image.
    """

    values: Rows
    labels: Array
    repeated: Array | None = None
    copied: Array | None = None

    def __len__(self) -> int:
        """The number of images."""
        return len(self.labels)

    def of(self, label: int | None) -> Sample:
        """The images of one class, or all of them."""
        if label is None:
            return self
        return self._at(self.labels == label)

    def of_classes(self, labels: Collection[int]) -> Sample:
        """The images of some classes."""
        return self._at(np.isin(self.labels, list(labels)))

    def _at(self, chosen: Array) -> Sample:
        repeated, copied = (None if each is None else each[chosen] for each in (self.repeated, self.copied))
        values = as_stack(self.values).chosen(np.flatnonzero(chosen))
        return Sample(values, self.labels[chosen], repeated, copied)


def kernel_distance(x: Array, y: Array) -> float:
    """The unbiased squared maximum mean discrepancy with the kernel (x·y/d + 1)³, for (n, d) and (m, d).

    Bińkowski et al., "Demystifying MMD GANs", ICLR 2018. The estimator is that of Gretton et al., "A kernel
    two-sample test", JMLR 2012, lemma 6. It may be negative, and is 0 on average for samples of one distribution. It
    needs at least two images a side.
    """
    n, m = len(x), len(y)
    # scikit-learn's polynomial_kernel gives the same, and takes most of its time to check its arguments.
    products = (a @ b.T / x.shape[1] + 1 for a, b in ((x, x), (y, y), (x, y)))
    xx, yy, xy = (product * product * product for product in products)
    within = (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1))
    return float(within - 2 * xy.mean())


def frechet_distance(x: Array, y: Array) -> float:
    """The Fréchet distance of Gaussians fitted to (n, d) and (m, d), squared, as FID is.

    Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash equilibrium", NeurIPS
    2017: |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½). With Σ₁ = AᵀA and Σ₂ = BᵀB the trace of the root is the sum of
    the singular values of ABᵀ, so no matrix root is taken. Covariances of fewer images than features are singular,
    and do no harm. It needs at least two images a side.
    """
    a, b = (_root_of_covariance(values) for values in (x, y))
    shift = x.mean(axis=0) - y.mean(axis=0)
    spread = np.sum(a**2) + np.sum(b**2) - 2 * np.linalg.norm(a @ b.T, "nuc")
    return float(max(shift @ shift + spread, 0.0))


def _root_of_covariance(values: Array) -> Array:
    """(≤ d, d) A with AᵀA = the covariance of (n, d) ``values``."""
    centred = (values - values.mean(axis=0)) / np.sqrt(len(values) - 1)
    # Of more images than features only the triangular factor is needed.
    return np.asarray(np.linalg.qr(centred, mode="r")) if len(values) > values.shape[1] else centred


def density_and_coverage(real: Array, fake: Array, k: int = COVERAGE_K) -> tuple[float, float]:
    """How densely real neighbourhoods are filled with generated images, and the share of them that holds any.

    Naeem et al., "Reliable fidelity and diversity metrics for generative models", ICML 2020. A neighbourhood is the
    ball around a real image up to its k-th nearest other real one. For samples of one distribution, density is 1 on
    average, and coverage 1 − Π (n−i)/(2n−i), i = 1…k, of n images each: near 1 − 2⁻ᵏ.

    Args:
        real: (n, d) with n > k.
        fake: (m, d).
        k: Which nearest neighbour bounds a neighbourhood.
    """
    # The distance to itself is the smallest of a row, hence position k and not k − 1.
    radii = np.partition(euclidean_distances(real), k, axis=1)[:, k]
    inside = euclidean_distances(real, fake) <= radii[:, None]
    return float(inside.sum() / (k * fake.shape[0])), float(inside.any(axis=1).mean())


def nearness(images: Rows, training: Rows) -> Array:
    """(n,) distance of each image to its nearest training image over the mean distance to the next nearest ones.

    A copy is far nearer to one training image than to all others, and has a value near 0. The distance alone would
    accuse blurred images, which lie near to every image. This ratio does not (Carlini et al., "Extracting training
    data from diffusion models", USENIX Security 2023, with 50 neighbours). Most features take an image that is moved
    by some pixels or mirrored for another one, so the ratio does not see such a copy.

    Args:
        images: (n, d) with n > 0.
        training: (m, d) with m > 1. The ``SURROUNDING_NEIGHBOURS`` next nearest are used, or all.
    """
    count = min(SURROUNDING_NEIGHBOURS + 1, len(training))
    parts = [_nearest_distances(some, training, count) for some in in_parts(images, COMPARED_AT_ONCE)]
    distances = np.concatenate(parts)
    surrounding = distances[:, 1:].mean(axis=1)
    # Where all of these are equal to the image, it is a copy of each.
    return np.divide(distances[:, 0], surrounding, out=np.zeros(len(images)), where=surrounding > 0)


def _nearest_distances(images: Array, training: Rows, count: int) -> Array:
    """(n, count) distances of each image to the training images that are nearest to it, in ascending order."""
    # Squares of distances are differences of large sums, which single precision does not keep.
    asked, nearest = images.astype(np.float64), np.empty((len(images), 0))
    for known in in_parts(training, COMPARED_AT_ONCE):
        search = NearestNeighbors(n_neighbors=min(count, len(known)), algorithm="brute").fit(known.astype(np.float64))
        both = np.concatenate([nearest, search.kneighbors(asked)[0]], axis=1)
        nearest = np.sort(both, axis=1)[:, :count]
    return nearest


def recalls(train: Sample, test: Sample, classes: int) -> Array:
    """(classes,) recall on ``test`` of multinomial logistic regression fitted on ``train``; NaN without test images.

    With generated images to train on and real ones to test on, the mean of the recalls is the classification accuracy
    score of Ravuri and Vinyals, "Classification accuracy score for conditional generative models", NeurIPS 2019. Two
    things differ: a linear model on features takes the place of a ResNet, and every class counts alike.
    """
    regression = LogisticRegression(C=REGULARISATION, class_weight="balanced", max_iter=2000)
    model = make_pipeline(StandardScaler(), regression)
    model.fit(np.asarray(train.values), train.labels)
    predicted = np.concatenate([model.predict(part.astype(np.float64)) for part in in_parts(test.values)])
    counts = confusion_matrix(test.labels, predicted, labels=range(classes)).astype(float)
    totals = counts.sum(axis=1)
    return np.divide(counts.diagonal(), totals, out=np.full(classes, np.nan), where=totals > 0)
