"""Asks whether a model looks at the lungs.

The evidence is prediction tables: of the test images as they are, and of the same images with parts blanked. Other
modules blank the images and predict them.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from cxr_tasks.errors import DataError
from cxr_tasks.evaluation.comparison import counts_on_test
from cxr_tasks.evaluation.intervals import Estimate, balanced_accuracy, resampled
from cxr_tasks.strict import Strict

# A model that keeps this share of what it has above chance cannot be said to rest on the lungs.
SHARE_KEPT = 0.5


class Score(Strict):
    """Balanced accuracy, the mean recall of the classes present (0 to 1), with its interval over groups."""

    balanced_accuracy: float
    low: float
    high: float


class BlankedLungs(Strict):
    """One model on the same images as they are, with the lungs blanked, and with all but the lungs blanked.

    Attributes:
        chance: The balanced accuracy of guessing, 1 / classes present.
        kept: The share of the balanced accuracy above chance that is left with the lungs blanked; None where the full
            images give nothing above chance.
        warning: Sentences, or None where nothing is to be warned of.
    """

    images: int
    groups: int
    chance: float
    full: Score
    lungs_blanked: Score
    background_blanked: Score
    kept: float | None
    warning: str | None


def blanked_lungs(
    full: pd.DataFrame,
    lungs_blanked: pd.DataFrame,
    background_blanked: pd.DataFrame,
    classes: Sequence[str],
    *,
    bootstrap_samples: int,
    confidence: float,
    seed: int,
) -> BlankedLungs:
    """Compare one model's predictions of the test rows of three tables.

    The warning has two conditions. The interval with the lungs blanked lies above chance, and at least half of what
    the full images have above chance is kept. What is left beside the lungs (the frame, letters, the device) then
    tells the classes apart. No disease of the lungs explains that (Maguolo and Nanni, Information Fusion 76, 2021;
    DeGrave, Janizek and Lee, Nature Machine Intelligence 3, 2021).

    Args:
        full: Predictions of the images as they are.
        lungs_blanked: Predictions of the same images with the lungs blanked.
        background_blanked: Predictions of the same images with all but the lungs blanked.
        classes: The classes that the tables have columns for.
        bootstrap_samples: How often the test groups are drawn again.
        confidence: The intervals' confidence, between 0 and 1.
        seed: Keys the bootstrap's draws.

    Raises:
        DataError: A table is not a prediction table, the tables are not of the same images, there is no test row, or
            all test rows are of one group.
    """
    per_group = counts_on_test([full, lungs_blanked, background_blanked], classes)
    if not len(per_group):
        raise DataError("Blanking the lungs is judged on test images; the prediction table has none.")
    values = balanced_accuracy(per_group.sum(axis=0))
    variances = balanced_accuracy(resampled(per_group, samples=bootstrap_samples, seed=seed)).var(axis=0, ddof=1)
    # Every class has the same weight, so the class of fewest groups limits how well the mean is known.
    with_class = (per_group[:, 0].sum(axis=2) > 0).sum(axis=0)
    present = with_class[with_class > 0]
    scores = []
    for value, variance in zip(values, variances, strict=True):
        estimate = Estimate(float(value), (float(variance),), (max(1, int(present.min()) - 1),))
        low, high = estimate.interval(confidence, least=0.0)
        scores.append(Score(balanced_accuracy=estimate.value, low=low, high=high))
    chance = 1 / len(present)
    above, left = scores[0].balanced_accuracy - chance, scores[1].balanced_accuracy - chance
    kept = left / above if above > 0 else None
    warning = None
    if scores[1].low > chance and kept is not None and kept >= SHARE_KEPT:
        warning = (
            "The model still tells the classes apart with the lungs blanked. Its balanced accuracy is then "
            f"{100 * scores[1].balanced_accuracy:.1f} % ({confidence * 100:g} % interval {100 * scores[1].low:.1f} to "
            f"{100 * scores[1].high:.1f}). Chance is {100 * chance:.1f} %, and the full images give "
            f"{100 * scores[0].balanced_accuracy:.1f} %. The model may not be looking at the lungs."
        )
    return BlankedLungs(
        images=int(per_group[:, 0].sum()),
        groups=len(per_group),
        chance=chance,
        full=scores[0],
        lungs_blanked=scores[1],
        background_blanked=scores[2],
        kept=kept,
        warning=warning,
    )
