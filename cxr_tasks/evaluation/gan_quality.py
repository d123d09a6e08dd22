"""How good generated images are, measured on features of images.

Features come from ``training.features``; no network is run here. Every distance means something only beside
its floor (real against real, as many images), its sizes and the extractor of the features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from cxr_tasks.evaluation.gan_distances import (
    Array,
    Sample,
    density_and_coverage,
    frechet_distance,
    kernel_distance,
    nearness,
    recalls,
)
from cxr_tasks.evaluation.metrics import slug
from cxr_tasks.training.randomness import keyed

OVERALL = "all"
# Fewer say nothing about a distribution.
SMALLEST_SAMPLE = 10
KID_DRAWS, FID_DRAWS, COVERAGE_DRAWS = 50, 5, 10
# Bounds n² memory and n³ time; the papers' own subsets for KID have 1,000 images.
LARGEST_DRAW = 1000
# Of held-out images; of few it is close to the smallest of them, and a copy lies well below that.
MEMORISED_QUANTILE = 0.05


class Figure(BaseModel):
    """One number, or why there is none. ``sd``: over draws of images, not an error of the mean."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    value: float | None = None
    sd: float | None = None
    reason: str = ""


class ClassQuality(BaseModel):
    """The figures of one class, or of all images (``name`` = ``all``).

    ``training``, ``held_out``, ``synthetic`` and ``untrained`` count images. ``drawn``: images a side that every
    distance of this row, floors included, is computed on, over all in the training images' mixture of classes. A
    floor is that of held-out real images in the place of the synthetic ones. ``kid_ratio`` is ``kid`` over
    ``kid_untrained``. Shares (``memorised``, ``repeated``) and accuracies lie between 0 and 1;
    ``memorised_held_out`` is what the same test says of real images that nobody copied. ``accuracy_score`` is the
    balanced accuracy for all, the recall for a class; ``accuracy_score_real`` that of as many real training images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    training: int
    held_out: int
    synthetic: int
    untrained: int
    drawn: int
    kid: Figure
    kid_floor: Figure
    kid_untrained: Figure
    kid_ratio: Figure
    fid: Figure
    fid_floor: Figure
    density: Figure
    density_floor: Figure
    coverage: Figure
    coverage_floor: Figure
    memorised: Figure
    memorised_held_out: Figure
    repeated: Figure
    repeated_training: Figure
    accuracy_score: Figure
    accuracy_score_real: Figure

    def figures(self) -> dict[str, Figure]:
        """The figures by name, in the order of the fields."""
        return {name: value for name in type(self).model_fields if isinstance(value := getattr(self, name), Figure)}


class GanQuality(BaseModel):
    """Everything measured about one set of generated images. ``extractor`` belongs beside every figure.

    KID and its ratio compare between sizes; FID is biased upwards for few images (Chong and Forsyth,
    "Effectively unbiased FID and Inception score", 2020), so read it against its floor only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    extractor: str
    dimensions: int
    seed: int
    overall: ClassQuality
    classes: list[ClassQuality]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values; ``GanQuality.model_validate`` takes it back."""
        return self.model_dump(mode="json")

    def to_frame(self) -> pd.DataFrame:
        """A row for all images and one for each class; a figure, its ``_sd`` where it has one, sizes, extractor."""
        rows = []
        for row in (self.overall, *self.classes):
            cells: dict[str, Any] = {"class": row.name, **row.model_dump(include=set(SIZES))}
            for name, figure in row.figures().items():
                cells[name] = figure.value
                if name in WITH_SD:
                    cells[f"{name}_sd"] = figure.sd
            rows.append({**cells, "extractor": self.extractor})
        frame = pd.DataFrame(rows)
        numbers = [column for column in frame if column not in ("class", "extractor", *SIZES)]
        return frame.astype(dict.fromkeys(numbers, float))

    def metrics(self) -> dict[str, float]:
        """The figures that there are, with names that MLflow takes: ``gan_kid``, ``gan_kid_COVID``."""
        flat = {}
        for row in (self.overall, *self.classes):
            ending = "" if row is self.overall else f"_{slug(row.name)}"
            for name, figure in row.figures().items():
                if figure.value is not None:
                    flat[f"gan_{name}{ending}"] = figure.value
        return flat


SIZES = ("training", "held_out", "synthetic", "untrained", "drawn")
WITH_SD = (
    *("kid", "kid_floor", "kid_untrained", "fid", "fid_floor"),
    *("density", "density_floor", "coverage", "coverage_floor"),
)


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

    What cannot be computed, for want of images, is a figure without a value and with the reason.

    Args:
        synthetic: generated images. training: the real images that the GAN was trained on.
        held_out: real validation images; never those of the test.
        untrained: images of a generator of the same kind before its training.
        extractor: what the features come from, in words.
        seed: of the subsets that are drawn.

    Raises:
        ValueError: the samples differ in their number of features.
    """
    present = [sample for sample in (synthetic, training, held_out, untrained) if sample is not None]
    if len({sample.values.shape[1] for sample in present}) > 1:
        raise ValueError(f"features differ in length: {[sample.values.shape[1] for sample in present]}")
    dimensions = synthetic.values.shape[1]
    # Squares of distances are differences of large sums, which single precision does not keep.
    synthetic, training, held_out, reference = (
        Sample(sample.values.astype(np.float64), sample.labels, sample.repeated)
        for sample in (synthetic, training, held_out, untrained or _nobody(dimensions))
    )
    copies = _memorised(synthetic, training, held_out)
    scores = _accuracy_scores(synthetic, training, held_out, classes, seed)
    samples = {"synthetic": synthetic, "training": training, "held-out": held_out, "untrained": reference}
    rows = [_row(name, label, samples, copies, scores, seed) for label, name in [(None, OVERALL), *enumerate(classes)]]
    return GanQuality(extractor=extractor, dimensions=dimensions, seed=seed, overall=rows[0], classes=rows[1:])


def _nobody(dimensions: int) -> Sample:
    return Sample(np.empty((0, dimensions)), np.empty(0, np.int64))


@dataclass(frozen=True)
class _Copies:
    """Which images lie as near to a training image as few held-out ones do."""

    synthetic: Array
    held_out: Array
    reason: str = ""


def _memorised(synthetic: Sample, training: Sample, held_out: Sample) -> _Copies:
    """Nearest neighbours are sought among training images of every class.

    That held-out images set the scale is from Meehan et al., "A non-parametric test to detect data-copying in
    generative models", AISTATS 2020.
    """
    nobody = _Copies(np.zeros(len(synthetic), bool), np.zeros(len(held_out), bool))
    if len(held_out) < SMALLEST_SAMPLE or len(training) < SMALLEST_SAMPLE:
        few, which = min((len(held_out), "held-out"), (len(training), "training"))
        return _Copies(nobody.synthetic, nobody.held_out, _too_few(few, which, SMALLEST_SAMPLE))
    if not len(synthetic):
        return nobody
    real = nearness(held_out.values, training.values)
    limit = np.quantile(real, MEMORISED_QUANTILE)
    return _Copies(nearness(synthetic.values, training.values) <= limit, real <= limit)


@dataclass(frozen=True)
class _Scores:
    synthetic: Array
    real: Array
    reason: str = ""


def _accuracy_scores(
    synthetic: Sample, training: Sample, held_out: Sample, classes: Sequence[str], seed: int
) -> _Scores:
    """The recalls of two models, trained on as many images of each class, generated and real."""
    nothing = np.full(len(classes), np.nan)
    sizes = {}
    for label, name in enumerate(classes):
        counts = {
            "synthetic": (synthetic.labels == label).sum(),
            "training": (training.labels == label).sum(),
        }
        which = min(counts, key=lambda key: counts[key])
        if counts[which] < SMALLEST_SAMPLE:
            return _Scores(nothing, nothing, f"{name}: {_too_few(counts[which], which, SMALLEST_SAMPLE)}")
        if not (held_out.labels == label).any():
            return _Scores(nothing, nothing, f"{name}: there are no held-out images")
        sizes[label] = int(counts[which])

    return _Scores(
        recalls(_drawn(synthetic, sizes, keyed(seed, "score synthetic")), held_out, len(classes)),
        recalls(_drawn(training, sizes, keyed(seed, "score training")), held_out, len(classes)),
    )


def _row(
    name: str,
    label: int | None,
    everything: dict[str, Sample],
    copies: _Copies,
    scores: _Scores,
    seed: int,
) -> ClassQuality:
    samples = {which: sample.of(label) for which, sample in everything.items()}
    sizes = {which: len(sample) for which, sample in samples.items()}
    # A sample too small to be drawn from has no distances, and must not make the others small.
    numbers = _numbers(samples["training"], [s for s in samples.values() if len(s) >= SMALLEST_SAMPLE])
    drawn = sum(numbers.values())
    key = 0 if label is None else label + 1

    def distances(which: str, draws: int, purpose: str, measured: Callable[[Array, Array], Any]) -> list[Figure]:
        """Mean and sd over draws of as many images from training and from ``which``; a figure for each result."""
        for needed in ("training", which):
            if sizes[needed] < SMALLEST_SAMPLE:
                return [Figure(reason=_too_few(sizes[needed], needed, SMALLEST_SAMPLE))] * 2
        if drawn < SMALLEST_SAMPLE:
            return [Figure(reason=_too_few(drawn, "comparable", SMALLEST_SAMPLE))] * 2
        results = []
        for draw in range(draws):
            # The same training images for every sample, so that figures of one row differ less by chance.
            real = _drawn(samples["training"], numbers, keyed(seed, f"{purpose} training", key, draw))
            other = _drawn(samples[which], numbers, keyed(seed, f"{purpose} other", key, draw))
            results.append(measured(real.values, other.values))
        table = np.array(results).reshape(draws, -1)
        return [Figure(value=float(c.mean()), sd=float(c.std(ddof=1))) for c in table.T]

    kid, kid_floor, kid_untrained = (
        distances(which, KID_DRAWS, "kid", kernel_distance)[0] for which in ("synthetic", "held-out", "untrained")
    )
    fid, fid_floor = (distances(which, FID_DRAWS, "fid", frechet_distance)[0] for which in ("synthetic", "held-out"))
    (density, coverage), (density_floor, coverage_floor) = (
        distances(which, COVERAGE_DRAWS, "coverage", density_and_coverage) for which in ("synthetic", "held-out")
    )
    mine, real = (
        slice(None) if label is None else everything[which].labels == label for which in ("synthetic", "held-out")
    )
    return ClassQuality(
        name=name,
        training=sizes["training"],
        held_out=sizes["held-out"],
        synthetic=sizes["synthetic"],
        untrained=sizes["untrained"],
        drawn=drawn,
        kid=kid,
        kid_floor=kid_floor,
        kid_untrained=kid_untrained,
        kid_ratio=_ratio(kid, kid_untrained),
        fid=fid,
        fid_floor=fid_floor,
        density=density,
        density_floor=density_floor,
        coverage=coverage,
        coverage_floor=coverage_floor,
        memorised=_share(copies.synthetic[mine], "synthetic", copies.reason),
        memorised_held_out=_share(copies.held_out[real], "held-out", copies.reason),
        repeated=_share(samples["synthetic"].repeated, "synthetic"),
        repeated_training=_share(samples["training"].repeated, "training"),
        accuracy_score=_score(scores.synthetic, label, scores.reason),
        accuracy_score_real=_score(scores.real, label, scores.reason),
    )


def _numbers(training: Sample, samples: Sequence[Sample]) -> dict[int, int]:
    """How many images of each class to draw from each sample: as many as all have, in the training's proportions.

    Generated images come with as many of each class, real ones do not: a perfect generator would otherwise be as far
    from the training images as another mixture of classes is. A class that a sample lacks is drawn from none.
    """
    counts = pd.DataFrame([pd.Series(sample.labels).value_counts() for sample in (training, *samples)]).dropna(axis=1)
    shares = counts.iloc[0] / counts.iloc[0].sum()
    total = min(LARGEST_DRAW, (counts / shares).min(axis=None))
    # A whole number may come out as a little less.
    return {int(label): math.floor(share * total + 1e-9) for label, share in shares.items()}


def _drawn(sample: Sample, numbers: Mapping[int, int], rng: np.random.Generator) -> Sample:
    rows = [rng.permutation(np.flatnonzero(sample.labels == label))[:number] for label, number in numbers.items()]
    chosen = np.concatenate(rows)
    return Sample(sample.values[chosen], sample.labels[chosen])


def _too_few(count: int, which: str, needed: int) -> str:
    return f"{count} {which} images: at least {needed} are needed"


def _ratio(kid: Figure, untrained: Figure) -> Figure:
    if kid.value is None or untrained.value is None:
        return Figure(reason=kid.reason or untrained.reason)
    if untrained.value <= 0:
        return Figure(reason="these features cannot tell an untrained generator from training images")
    return Figure(value=kid.value / untrained.value)


def _share(flags: Array | None, which: str, reason: str = "") -> Figure:
    if flags is None:
        return Figure(reason="it was not looked for")
    if reason or not len(flags):
        return Figure(reason=reason or f"there are no {which} images")
    return Figure(value=float(np.nanmean(flags)))


def _score(recall: Array, label: int | None, reason: str) -> Figure:
    return Figure(reason=reason) if reason else Figure(value=float(recall.mean() if label is None else recall[label]))
