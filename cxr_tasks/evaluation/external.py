"""How a model does on images of another source, and how much worse that is than its own test.

The two tests have no image in common, so the error of their difference is that of both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr_tasks.evaluation.intervals import Estimate, accuracy, group_counts, resampled
from cxr_tasks.evaluation.metrics import check_predictions, classification_metrics, encode
from cxr_tasks.strict import Strict


class SureFigure(Strict):
    """A figure, as a fraction, with the interval that it is known to."""

    value: float
    low: float
    high: float

    @property
    def percent(self) -> str:
        """In percent with its interval, as ``94.1 (90.0 to 97.2)``."""
        return f"{100 * self.value:.1f} ({100 * self.low:.1f} to {100 * self.high:.1f})"


class ExternalFindings(Strict):
    """What is known of a model on an external set. Figures are fractions.

    Attributes:
        images: How many it was tested on.
        groups: How many patients or pictures these are of.
        classes: The classes that the set has. Macro F1 is a mean over these, and the internal figures are of test
            images of these.
        macro_f1: On the external set.
        accuracy: On the external set.
        internal_images: Images of the internal test; 0 where it is not known.
        internal_macro_f1: On the internal test; ``None`` where it is not known, as what follows.
        internal_accuracy: On the internal test.
        macro_f1_drop: The internal macro F1 less the external one.
        accuracy_drop: The internal accuracy less the external one.
        metrics: All metrics of the external set, over all classes of the model.
        confidence: Of the intervals.
    """

    images: int
    groups: int
    classes: list[str]
    macro_f1: SureFigure
    accuracy: SureFigure
    internal_images: int = 0
    internal_macro_f1: SureFigure | None = None
    internal_accuracy: SureFigure | None = None
    macro_f1_drop: SureFigure | None = None
    accuracy_drop: SureFigure | None = None
    metrics: dict[str, float]
    confidence: float


def external_findings(
    external: pd.DataFrame,
    internal: pd.DataFrame | None,
    classes: Sequence[str],
    *,
    bootstrap_samples: int,
    confidence: float,
    seed: int,
) -> ExternalFindings:
    """Measure a model on an external set, beside its internal test.

    Args:
        external: The prediction table of the external set.
        internal: That of the internal test; ``None`` where it is not known.
        classes: Of the model, in their order.
        bootstrap_samples: How often groups are drawn again.
        confidence: Of the intervals.
        seed: Keys the draws.

    Raises:
        DataError: A table is no prediction table, or all of its images are of one group.
    """
    check_predictions(external, classes)
    present = [name for name in classes if name in set(external["label"])]
    places = np.array([classes.index(name) for name in present])

    def measured(table: pd.DataFrame) -> tuple[Estimate, Estimate, int]:
        y_true, y_pred, _ = encode(table, classes)
        counts = group_counts(table["group"].to_numpy(dtype=str), y_true, y_pred, len(classes))
        draws = resampled(counts, samples=bootstrap_samples, seed=seed)
        with_class = (counts.sum(axis=2) > 0).sum(axis=0)[places]

        def estimate(score: Callable[[NDArray[np.float64]], NDArray[np.float64]], groups: int) -> Estimate:
            value = float(score(counts.sum(axis=0).astype(np.float64)))
            return Estimate(value, (float(score(draws).var(ddof=1)),), (max(1, groups - 1),))

        # Every class has the same weight, so the class of fewest groups limits how well the mean is known.
        macro = estimate(lambda each: mean_f1(each, places), int(with_class[with_class > 0].min()))
        return macro, estimate(accuracy, len(counts)), len(counts)

    def sure(estimate: Estimate, least: float = 0.0) -> SureFigure:
        low, high = estimate.interval(confidence, least=least)
        return SureFigure(value=estimate.value, low=low, high=high)

    macro, accurate, groups = measured(external)
    found = ExternalFindings(
        images=len(external),
        groups=groups,
        classes=present,
        macro_f1=sure(macro),
        accuracy=sure(accurate),
        metrics=classification_metrics(external, classes),
        confidence=confidence,
    )
    beside = None if internal is None else internal[internal["label"].isin(present)]
    if beside is None or set(beside["label"]) != set(present):
        return found
    own_macro, own_accurate, _ = measured(beside)
    return found.model_copy(
        update={
            "internal_images": len(beside),
            "internal_macro_f1": sure(own_macro),
            "internal_accuracy": sure(own_accurate),
            "macro_f1_drop": sure(own_macro.less(macro), -1.0),
            "accuracy_drop": sure(own_accurate.less(accurate), -1.0),
        }
    )


def mean_f1(counts: NDArray[np.float64], places: NDArray[np.int64]) -> NDArray[np.float64]:
    """The mean F1 of the classes at ``places``, of confusion counts (..., classes, classes)."""
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    asked = counts.sum(axis=-1) + counts.sum(axis=-2)
    f1 = np.divide(2 * hits, asked, out=np.zeros_like(hits), where=asked > 0)
    mean: NDArray[np.float64] = f1[..., places].mean(axis=-1)
    return mean
