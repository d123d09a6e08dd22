"""Measures how good generated images are, on features of images. No network is run here: see ``gan.extractor``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cxr_tasks.data.stacks import joined
from cxr_tasks.gan.distances import (
    Array,
    Sample,
    density_and_coverage,
    frechet_distance,
    kernel_distance,
    nearness,
    recalls,
)
from cxr_tasks.gan.quality import ALL_CLASSES, ClassQuality, GanQuality, Measurement
from cxr_tasks.randomness import keyed

# Fewer say nothing about a distribution.
SMALLEST_SAMPLE = 10
KID_DRAWS, FID_DRAWS, COVERAGE_DRAWS = 50, 5, 10
# Bounds n² memory and n³ time; the papers' own subsets for KID have 1,000 images.
LARGEST_DRAW = 1000
# Of held-out images. Of few images it is close to the smallest of them, and a copy lies well below that.
MEMORISED_QUANTILE = 0.05


def measure(
    synthetic: Sample,
    training: Sample,
    held_out: Sample,
    untrained: Sample | None,
    classes: Sequence[str],
    *,
    extractor: str,
    seed: int,
) -> GanQuality:
    """Measure generated images per class and over all of them.

    A figure that cannot be computed for want of images has a reason in the place of its value.

    Args:
        synthetic: Generated images.
        training: The real training images.
        held_out: Real validation images; never test images.
        untrained: Images of a generator of the same kind before its training.
        classes: The classes in their order.
        extractor: What the features come from, in words.
        seed: Of the subsets that are drawn.

    Raises:
        ValueError: The samples differ in their number of features.
    """
    present = [sample for sample in (synthetic, training, held_out, untrained) if sample is not None]
    if len({sample.values.shape[1] for sample in present}) > 1:
        raise ValueError(f"features differ in length: {[sample.values.shape[1] for sample in present]}")
    dimensions = synthetic.values.shape[1]
    copies = _memorised(synthetic, training, held_out)
    scores = _accuracy_scores(synthetic, training, held_out, classes, seed)
    reference = untrained or _nobody(dimensions)
    samples = {"synthetic": synthetic, "training": training, "held-out": held_out, "untrained": reference}
    rows = [
        _class_quality(name, label, samples, copies, scores, seed)
        for label, name in [(None, ALL_CLASSES), *enumerate(classes)]
    ]
    return GanQuality(extractor=extractor, dimensions=dimensions, seed=seed, overall=rows[0], classes=rows[1:])


def _nobody(dimensions: int) -> Sample:
    """A sample without images."""
    return Sample(np.empty((0, dimensions)), np.empty(0, np.int64))


@dataclass(frozen=True)
class _Copies:
    """Which images copy a training image or lie as near to one as few held-out ones do; or the ``reason`` why not."""

    synthetic: Array
    held_out: Array
    reason: str = ""


def _memorised(synthetic: Sample, training: Sample, held_out: Sample) -> _Copies:
    """Look for the nearest neighbours among training images of every class.

    Held-out images set the scale, as in Meehan et al., "A non-parametric test to detect data-copying in generative
    models", AISTATS 2020.
    """
    nobody = _Copies(np.zeros(len(synthetic), bool), np.zeros(len(held_out), bool))
    if len(held_out) < SMALLEST_SAMPLE or len(training) < SMALLEST_SAMPLE:
        few, which = min((len(held_out), "held-out"), (len(training), "training"))
        return _Copies(nobody.synthetic, nobody.held_out, _too_few(few, which, SMALLEST_SAMPLE))
    if not len(synthetic):
        return nobody
    real = nearness(held_out.values, training.values)
    limit = np.quantile(real, MEMORISED_QUANTILE)
    near = nearness(synthetic.values, training.values) <= limit
    return _Copies(_or_copied(near, synthetic), _or_copied(real <= limit, held_out))


def _or_copied(near: Array, images: Sample) -> Array:
    return near if images.copied is None else near | images.copied


@dataclass(frozen=True)
class _Recalls:
    """(classes,) recalls after training on synthetic and on real images; ``reason`` if there are none."""

    synthetic: Array
    real: Array
    reason: str = ""


def _accuracy_scores(
    synthetic: Sample, training: Sample, held_out: Sample, classes: Sequence[str], seed: int
) -> _Recalls:
    """The recalls of two models, trained on as many images of each class: generated ones and real ones.

    Both are given real images of a class that there are no generated ones of, as of imported images there may be.
    """
    nothing = np.full(len(classes), np.nan)
    sizes = {}
    if not len(synthetic):
        return _Recalls(nothing, nothing, _too_few(0, "synthetic", SMALLEST_SAMPLE))
    without = set(range(len(classes))) - set(synthetic.labels.tolist())
    lent = training.of_classes(without)
    synthetic = Sample(joined([synthetic.values, lent.values]), np.concatenate([synthetic.labels, lent.labels]))
    for label, name in enumerate(classes):
        counts = {
            "synthetic": (synthetic.labels == label).sum(),
            "training": (training.labels == label).sum(),
        }
        which = min(counts, key=lambda key: counts[key])
        if counts[which] < SMALLEST_SAMPLE:
            return _Recalls(nothing, nothing, f"{name}: {_too_few(counts[which], which, SMALLEST_SAMPLE)}")
        if not (held_out.labels == label).any():
            return _Recalls(nothing, nothing, f"{name}: there are no held-out images")
        sizes[label] = int(counts[which])
    most = max(number for label, number in sizes.items() if label not in without)
    sizes |= {label: min(sizes[label], most) for label in without}
    return _Recalls(
        recalls(_drawn(synthetic, sizes, keyed(seed, "score synthetic")), held_out, len(classes)),
        recalls(_drawn(training, sizes, keyed(seed, "score training")), held_out, len(classes)),
    )


class _Distances:
    """Distances between the training images of one row and its other samples, over draws of as many images.

    Attributes:
        samples: The row's samples by name.
        sizes: Their numbers of images.
        drawn: Images a side that every distance is computed on.
    """

    def __init__(self, samples: Mapping[str, Sample], key: int, seed: int) -> None:
        """Settle how many images a draw takes.

        Args:
            samples: ``synthetic``, ``training``, ``held-out`` and ``untrained``.
            key: Tells the draws of one row from those of another.
            seed: Of the draws.
        """
        self.samples, self._key, self._seed = samples, key, seed
        self.sizes = {which: len(sample) for which, sample in samples.items()}
        # A sample too small to be drawn from has no distances, and must not make the others small.
        large = [sample for sample in samples.values() if len(sample) >= SMALLEST_SAMPLE]
        self._numbers = _numbers_to_draw(samples["training"], large)
        self.drawn = sum(self._numbers.values())

    def kid(self, which: str) -> Measurement:
        """The kernel distance of the training images to ``which``."""
        return self._over_draws(which, KID_DRAWS, "kid", kernel_distance)[0]

    def fid(self, which: str) -> Measurement:
        """The Fréchet distance of the training images to ``which``."""
        return self._over_draws(which, FID_DRAWS, "fid", frechet_distance)[0]

    def density_and_coverage(self, which: str) -> tuple[Measurement, Measurement]:
        """How ``which`` fills the neighbourhoods of training images."""
        density, coverage = self._over_draws(which, COVERAGE_DRAWS, "coverage", density_and_coverage)
        return density, coverage

    def _over_draws(
        self, which: str, draws: int, purpose: str, measured: Callable[[Array, Array], Any]
    ) -> list[Measurement]:
        """Mean and sd over draws of as many images from training and from ``which``; a figure for each result."""
        if reason := self._too_few_for(which):
            return [Measurement(reason=reason)] * 2
        results = []
        for draw in range(draws):
            # The same training images for every sample, so that figures of one row differ less by chance.
            real = self._draw("training", f"{purpose} training", draw)
            other = self._draw(which, f"{purpose} other", draw)
            results.append(measured(np.asarray(real.values), np.asarray(other.values)))
        table = np.array(results).reshape(draws, -1)
        return [Measurement(value=float(column.mean()), sd=float(column.std(ddof=1))) for column in table.T]

    def _too_few_for(self, which: str) -> str:
        """Why there is no distance between the training images and ``which``, or ''."""
        for needed in ("training", which):
            if self.sizes[needed] < SMALLEST_SAMPLE:
                return _too_few(self.sizes[needed], needed, SMALLEST_SAMPLE)
        return _too_few(self.drawn, "comparable", SMALLEST_SAMPLE) if self.drawn < SMALLEST_SAMPLE else ""

    def _draw(self, which: str, purpose: str, draw: int) -> Sample:
        return _drawn(self.samples[which], self._numbers, keyed(self._seed, purpose, self._key, draw))


def _class_quality(
    name: str,
    label: int | None,
    everything: Mapping[str, Sample],
    copies: _Copies,
    scores: _Recalls,
    seed: int,
) -> ClassQuality:
    """The figures of class ``label``, or of all images where it is ``None``."""
    samples = {which: sample.of(label) for which, sample in everything.items()}
    distances = _Distances(samples, 0 if label is None else label + 1, seed)
    kid, kid_untrained = distances.kid("synthetic"), distances.kid("untrained")
    density, coverage = distances.density_and_coverage("synthetic")
    density_floor, coverage_floor = distances.density_and_coverage("held-out")
    mine, real = (
        slice(None) if label is None else everything[which].labels == label for which in ("synthetic", "held-out")
    )
    return ClassQuality(
        name=name,
        training=distances.sizes["training"],
        held_out=distances.sizes["held-out"],
        synthetic=distances.sizes["synthetic"],
        untrained=distances.sizes["untrained"],
        drawn=distances.drawn,
        kid=kid,
        kid_floor=distances.kid("held-out"),
        kid_untrained=kid_untrained,
        kid_ratio=_kid_ratio(kid, kid_untrained),
        fid=distances.fid("synthetic"),
        fid_floor=distances.fid("held-out"),
        density=density,
        density_floor=density_floor,
        coverage=coverage,
        coverage_floor=coverage_floor,
        memorised=_share_of(copies.synthetic[mine], "synthetic", copies.reason),
        memorised_held_out=_share_of(copies.held_out[real], "held-out", copies.reason),
        repeated=_share_of(samples["synthetic"].repeated, "synthetic"),
        repeated_training=_share_of(samples["training"].repeated, "training"),
        accuracy_score=_recall_of(scores.synthetic, label, scores.reason),
        accuracy_score_real=_recall_of(scores.real, label, scores.reason),
    )


def _numbers_to_draw(training: Sample, samples: Sequence[Sample]) -> dict[int, int]:
    """How many images of each class to draw from each sample: as many as all have, in the training's proportions.

    Generated images come with as many of each class, and real images do not. Without the proportions, a perfect
    generator would be as far from the training images as another mixture of classes is. A class that one sample lacks
    is drawn from none.
    """
    counts = pd.DataFrame([pd.Series(sample.labels).value_counts() for sample in (training, *samples)]).dropna(axis=1)
    shares = counts.iloc[0] / counts.iloc[0].sum()
    total = min(LARGEST_DRAW, (counts / shares).min(axis=None))
    # A whole number may come out as a little less.
    return {int(label): math.floor(share * total + 1e-9) for label, share in shares.items()}


def _drawn(sample: Sample, numbers: Mapping[int, int], rng: np.random.Generator) -> Sample:
    rows = [rng.permutation(np.flatnonzero(sample.labels == label))[:number] for label, number in numbers.items()]
    chosen = np.concatenate(rows)
    # Squares of distances are differences of large sums, which single precision does not keep.
    return Sample(sample.values[chosen].astype(np.float64), sample.labels[chosen])


def _too_few(count: int, which: str, needed: int) -> str:
    return f"{count} {which} images: at least {needed} are needed"


def _kid_ratio(kid: Measurement, untrained: Measurement) -> Measurement:
    if kid.value is None or untrained.value is None:
        return Measurement(reason=kid.reason or untrained.reason)
    if untrained.value <= 0:
        return Measurement(reason="these features cannot tell an untrained generator from training images")
    return Measurement(value=kid.value / untrained.value)


def _share_of(flags: Array | None, which: str, reason: str = "") -> Measurement:
    if flags is None:
        return Measurement(reason="it was not looked for")
    if reason or not len(flags):
        return Measurement(reason=reason or f"there are no {which} images")
    return Measurement(value=float(np.nanmean(flags)))


def _recall_of(recall: Array, label: int | None, reason: str) -> Measurement:
    if reason:
        return Measurement(reason=reason)
    return Measurement(value=float(recall.mean() if label is None else recall[label]))
