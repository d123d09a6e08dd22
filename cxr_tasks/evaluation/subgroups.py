"""How models do on subgroups of the test images: by age, sex, view, site or source.

The figure that subgroups are compared by is balanced accuracy, the mean sensitivity of the classes present. Accuracy
and macro F1 move with how many images of each class a subgroup has, also where a model finds each class equally often
everywhere. Subgroups that lack a class are compared by the classes that both have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr_tasks.config import EvaluationSettings
from cxr_tasks.data.subgroups import members
from cxr_tasks.evaluation.comparison import aligned
from cxr_tasks.evaluation.external import SureFigure, mean_f1
from cxr_tasks.evaluation.intervals import (
    Estimate,
    accuracy,
    balanced_accuracy,
    disagreement_degrees,
    group_counts,
    least_variance,
    resampled,
)
from cxr_tasks.evaluation.metrics import encode
from cxr_tasks.strict import Strict


class SubgroupRow(Strict):
    """What models do on the images of one subgroup: a mean over the models. Figures are fractions.

    Attributes:
        subgroup: Such as ``under 18``.
        groups: Patients or pictures that the images are of.
        by_class: Images of each class.
        balanced_accuracy: Over the classes present.
        sensitivity: Of each class with enough groups in the subgroup.
        macro_f1: Over the classes present.
    """

    subgroup: str
    images: int
    groups: int
    by_class: dict[str, int]
    balanced_accuracy: SureFigure
    accuracy: SureFigure
    sensitivity: dict[str, SureFigure]
    macro_f1: float


class AttributeFindings(Strict):
    """The subgroups by one attribute.

    Attributes:
        attribute: Such as ``age``.
        rows: Subgroups with enough groups.
        small: How many subgroups have fewer groups than are measured.
        small_images: Their images together.
        unknown_images: Images of which the attribute is not known.
    """

    attribute: str
    rows: list[SubgroupRow]
    small: int
    small_images: int
    unknown_images: int


class SubgroupGap(Strict):
    """The gap in balanced accuracy between two subgroups by one attribute.

    Attributes:
        classes: Those that both have, over which balanced accuracy is.
        difference: Better less worse, with an interval that holds together with those of all pairs asked.
        pairs: How many pairs of subgroups were asked.
    """

    attribute: str
    better: str
    worse: str
    classes: list[str]
    difference: SureFigure
    pairs: int

    @property
    def is_certain(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.difference.low > 0


class SubgroupFindings(Strict):
    """Models by subgroup.

    Attributes:
        whole: All test images.
        attributes: Those that are known of any test image.
        gap: The largest that is certain, or else the largest; ``None`` where no two subgroups were compared.
        confidence: Of the intervals.
    """

    whole: SubgroupRow
    attributes: list[AttributeFindings]
    gap: SubgroupGap | None
    confidence: float


class SubgroupChange(Strict):
    """How balanced accuracy on a subgroup changed from one arm to another. ``None``: the arms agreed on every image."""

    attribute: str
    subgroup: str
    change: SureFigure | None


def subgroup_findings(
    tables: Sequence[pd.DataFrame],
    subgroups: pd.DataFrame,
    classes: Sequence[str],
    settings: EvaluationSettings,
    seed: int,
    *,
    told_together: int = 1,
) -> SubgroupFindings | None:
    """Measure models on each subgroup of the test images, as a mean over the models.

    Intervals are about these models on other images like these. The gap is corrected for all pairs of subgroups that
    are compared (Bonferroni). Errors of two subgroups are added up as if they had no patient in common. Where a patient
    is in both, as with two views, the interval is too wide rather than too narrow.

    Args:
        tables: The prediction tables of the models, on the same images. Only test rows count.
        subgroups: As ``data.subgroups`` makes it, with image ids as index.
        classes: Of the models, in their order.
        settings: What is measured.
        seed: Of the bootstrap.
        told_together: How many such findings stand beside each other, for the correction.

    Returns:
        ``None`` where nothing is known by which test images could be divided, or there are too few.

    Raises:
        DataError: A table is no prediction table, or the tables are not of the same images.
    """
    tests = _Tests.of(tables, classes)
    told = subgroups.reindex(tests.rows["image_id"]).reset_index(drop=True)
    least = settings.subgroups.min_groups
    if not told.notna().any(axis=None) or tests.rows["group"].nunique() < least:
        return None
    attributes, measured = [], []
    for attribute, of_attribute in told.items():
        if not of_attribute.notna().any():
            continue
        rows = []
        for name, inside in members(tests.rows, of_attribute, settings.subgroups):
            each = _Measured.of(tests.among(inside.index), settings.bootstrap_samples, seed)
            rows.append(_subgroup_row(name, each, tests, inside, settings))
            measured.append((str(attribute), name, each))
        attributes.append(
            AttributeFindings(
                attribute=str(attribute),
                rows=rows,
                small=of_attribute.nunique() - len(rows),
                small_images=int(of_attribute.notna().sum()) - sum(row.images for row in rows),
                unknown_images=int(of_attribute.isna().sum()),
            )
        )
    everything = _Measured.of(tests.among(tests.rows.index), settings.bootstrap_samples, seed)
    return SubgroupFindings(
        whole=_subgroup_row("all", everything, tests, tests.rows, settings),
        attributes=attributes,
        gap=_largest_gap(measured, tests.classes, settings.confidence, told_together),
        confidence=settings.confidence,
    )


def subgroup_changes(
    pairs: Sequence[tuple[pd.DataFrame, pd.DataFrame]],
    subgroups: pd.DataFrame,
    classes: Sequence[str],
    settings: EvaluationSettings,
    seed: int,
) -> list[SubgroupChange]:
    """The change of balanced accuracy on each subgroup from one arm to another, as a mean over pairs of models.

    Intervals are those of the paired bootstrap, and not corrected for how many subgroups there are.

    Args:
        pairs: The prediction tables of both arms, for each classifier and seed.
        subgroups: As for :func:`subgroup_findings`, as what follows.
        classes: Of the models.
        settings: What is measured.
        seed: Of the bootstrap.
    """
    tests = _Tests.of([table for pair in pairs for table in pair], classes)
    told = subgroups.reindex(tests.rows["image_id"]).reset_index(drop=True)
    changes = []
    for attribute, of_attribute in told.items():
        for name, inside in members(tests.rows, of_attribute, settings.subgroups):
            counts = tests.among(inside.index)
            counts = counts.reshape(len(counts), len(pairs), 2, *counts.shape[2:])
            change = None
            if (counts[:, :, 0] != counts[:, :, 1]).any():
                draws = resampled(counts, samples=settings.bootstrap_samples, seed=seed)
                value, means = (
                    np.diff(balanced_accuracy(each), axis=-1).mean(axis=(-1, -2))
                    for each in (counts.sum(axis=0), draws)
                )
                degrees = disagreement_degrees(counts[:, :, 0], counts[:, :, 1])
                estimate = Estimate(float(value), (float(means.var(ddof=1)),), (degrees,))
                change = _sure(estimate, settings.confidence, -1.0)
            changes.append(SubgroupChange(attribute=str(attribute), subgroup=name, change=change))
    return changes


@dataclass(frozen=True)
class _Tests:
    """Test images in the order of their ids, and what each model says of them.

    Attributes:
        rows: (n) with ``image_id``, ``group`` and ``label``; the index counts from 0.
        y_true: (n,).
        y_pred: (models, n).
    """

    rows: pd.DataFrame
    y_true: NDArray[np.int64]
    y_pred: NDArray[np.int64]
    classes: list[str]

    @classmethod
    def of(cls, tables: Sequence[pd.DataFrame], classes: Sequence[str]) -> _Tests:
        predicted = []
        for table in tables:
            _, rows = aligned(tables[0], table, classes)
            test = rows[rows["split"] == "test"].reset_index(drop=True)
            y_true, y_pred, _ = encode(test, classes)
            predicted.append(y_pred)
        return cls(test[["image_id", "group", "label"]], y_true, np.stack(predicted), list(classes))

    def among(self, chosen: pd.Index) -> NDArray[np.int64]:
        """Confusion counts (groups, models, classes, classes) of some images."""
        groups = self.rows["group"].to_numpy(dtype=str)[chosen]
        counts = [group_counts(groups, self.y_true[chosen], said[chosen], len(self.classes)) for said in self.y_pred]
        return np.stack(counts, axis=1)


@dataclass(frozen=True)
class _Measured:
    """Confusion counts of a subgroup (groups, models, classes, classes), and of its resamples (samples, …)."""

    counts: NDArray[np.int64]
    draws: NDArray[np.float64]

    @classmethod
    def of(cls, counts: NDArray[np.int64], samples: int, seed: int) -> _Measured:
        return cls(counts, resampled(counts, samples=samples, seed=seed))

    @property
    def with_class(self) -> NDArray[np.int64]:
        """Groups that have an image of each class (classes,)."""
        found: NDArray[np.int64] = (self.counts[:, 0].sum(axis=2) > 0).sum(axis=0)
        return found

    def mean_recall(self, places: Sequence[int]) -> Estimate:
        """The mean recall of some classes, all of which have images."""
        recall, groups = _recall(self.counts.sum(axis=0)).mean(axis=0)[places], self.with_class[places]
        drawn = _recall(self.draws)[..., places]
        # A class that was not drawn is left out, and a resample without any of them.
        there = np.isfinite(drawn).any(axis=(-1, -2))
        spread = np.nanmean(drawn[there], axis=-1).mean(axis=-1).var(ddof=1)
        least = sum(map(least_variance, recall, groups)) / len(places) ** 2
        # Every class has the same weight, so the class of fewest groups limits how well the mean is known.
        return Estimate(float(recall.mean()), (max(float(spread), least),), (max(1, int(groups.min()) - 1),))

    def accuracy(self) -> Estimate:
        """The share of images that are classified right."""
        value, groups = float(accuracy(self.counts.sum(axis=0)).mean()), len(self.counts)
        spread = float(accuracy(self.draws).mean(axis=-1).var(ddof=1))
        return Estimate(value, (max(spread, least_variance(value, groups)),), (groups - 1,))


def _recall(counts: NDArray[np.int64] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Recall (..., classes) of confusion counts (..., classes, classes), NaN for a class without images."""
    support = counts.sum(axis=-1).astype(np.float64)
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    return np.divide(hits, support, out=np.full_like(support, np.nan), where=support > 0)


def _subgroup_row(
    name: str, measured: _Measured, tests: _Tests, inside: pd.DataFrame, settings: EvaluationSettings
) -> SubgroupRow:
    groups = measured.with_class
    present = np.flatnonzero(groups)
    enough = np.flatnonzero(groups >= settings.subgroups.min_groups)
    return SubgroupRow(
        subgroup=name,
        images=len(inside),
        groups=len(measured.counts),
        by_class={label: int((inside["label"] == label).sum()) for label in tests.classes},
        balanced_accuracy=_sure(measured.mean_recall(present.tolist()), settings.confidence),
        accuracy=_sure(measured.accuracy(), settings.confidence),
        sensitivity={
            tests.classes[place]: _sure(measured.mean_recall([place]), settings.confidence) for place in enough.tolist()
        },
        macro_f1=float(mean_f1(measured.counts.sum(axis=0).astype(np.float64), present).mean()),
    )


def _largest_gap(
    measured: Sequence[tuple[str, str, _Measured]], classes: Sequence[str], confidence: float, told_together: int
) -> SubgroupGap | None:
    """The largest certain gap between subgroups by one attribute, or else the largest."""
    pairs = list(_pairs(measured))
    asked = len(pairs) * told_together
    gaps = []
    for attribute, (first, one), (second, other), shared in pairs:
        gap = one.mean_recall(shared).less(other.mean_recall(shared))
        if gap.value < 0:
            first, second, gap = second, first, Estimate(-gap.value, gap.variances, gap.degrees)
        gaps.append(
            SubgroupGap(
                attribute=attribute,
                better=first,
                worse=second,
                classes=[classes[place] for place in shared],
                difference=_sure(gap, 1 - (1 - confidence) / asked, -1.0),
                pairs=asked,
            )
        )
    return max(gaps, key=lambda gap: (gap.is_certain, gap.difference.value), default=None)


Named = tuple[str, _Measured]


def _pairs(measured: Sequence[tuple[str, str, _Measured]]) -> Iterator[tuple[str, Named, Named, list[int]]]:
    """Two subgroups by one attribute, with the places of the classes that both have."""
    for (attribute, first, one), (of_other, second, other) in combinations(measured, 2):
        shared = np.flatnonzero(np.minimum(one.with_class, other.with_class)).tolist()
        if attribute == of_other and shared:
            yield attribute, (first, one), (second, other), shared


def _sure(estimate: Estimate, confidence: float, least: float = 0.0) -> SureFigure:
    low, high = estimate.interval(confidence, least=least)
    return SureFigure(value=estimate.value, low=low, high=high)
