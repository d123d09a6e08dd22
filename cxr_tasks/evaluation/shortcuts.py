"""Does the model look at the lungs, and could it tell the classes apart by where the images come from?

Judged from prediction tables, as ``metrics`` describes them: of the test images as they are, of the same images
with parts blanked, and by source. Blanking images and predicting them is not done here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from cxr_tasks.errors import DataError
from cxr_tasks.evaluation.comparison import aligned, join_words
from cxr_tasks.evaluation.intervals import Estimate, balanced_accuracy, group_counts, resampled
from cxr_tasks.evaluation.metrics import check_predictions, encode

# A model that keeps this share of what it has above chance cannot be said to rest on the lungs.
SHARE_KEPT = 0.5


class Score(BaseModel):
    """Balanced accuracy (mean recall of the classes present, 0 to 1) with its interval over groups."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    balanced_accuracy: float
    low: float
    high: float


class BlankedLungs(BaseModel):
    """One model on the same images as they are, with the lungs blanked, and with all but the lungs blanked.

    ``kept`` is the share of the balanced accuracy above ``chance`` that is left with the lungs blanked, None
    where the full images give none. ``warning`` is one sentence, or None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: int
    groups: int
    chance: float
    full: Score
    lungs_blanked: Score
    background_blanked: Score
    kept: float | None
    warning: str | None


class SourceRow(BaseModel):
    """The images of one source: how many, which classes are among them, and the share classified right."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    images: int
    classes: list[str]
    accuracy: float


class Sources(BaseModel):
    """Metrics by source, and one sentence if the classes come from different ones; else None."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: list[SourceRow]
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
    """Compare one model's predictions of the test rows of three tables, which are about the same images.

    Chance is 1 / classes present. The warning is given when the interval with the lungs blanked lies above chance and
    at least half of what the full images have above chance is kept: what is left beside the lungs (the
    frame, letters, the device) then tells the classes apart, which no disease of the lungs explains (Maguolo
    and Nanni, Information Fusion 76, 2021; DeGrave, Janizek and Lee, Nature Machine Intelligence 3, 2021).

    Raises
    ------
    DataError
        If a table is not a prediction table, the tables are not of the same images, there is no test row,
        or the test rows are all of one group.
    """
    counts = []
    for table in (full, lungs_blanked, background_blanked):
        _, rows = aligned(full, table, classes)
        test = rows[rows["split"] == "test"]
        if test.empty:
            raise DataError("Blanking the lungs is judged on test images; the prediction table has none.")
        y_true, y_pred, _ = encode(test, classes)
        counts.append(group_counts(test["group"].to_numpy(dtype=str), y_true, y_pred, len(classes)))
    per_group = np.stack(counts, axis=1)
    values = balanced_accuracy(per_group.sum(axis=0))
    variances = balanced_accuracy(resampled(per_group, samples=bootstrap_samples, seed=seed)).var(axis=0, ddof=1)
    # Every class has the same weight, so the mean is known no better than the class of fewest groups.
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
            f"The model still tells the classes apart with the lungs blanked: balanced accuracy "
            f"{100 * scores[1].balanced_accuracy:.1f} % ({confidence * 100:g} % interval {100 * scores[1].low:.1f} to "
            f"{100 * scores[1].high:.1f}) where chance is {100 * chance:.1f} % and the full images give "
            f"{100 * scores[0].balanced_accuracy:.1f} %, so that it need not be looking at the lungs."
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


def by_source(table: pd.DataFrame, classes: Sequence[str]) -> Sources:
    """Rows for the sources in the column ``source`` of a prediction table, in alphabetical order.

    Images without a source are left out. Which rows count, such as the test images, is the caller's choice.

    Raises
    ------
    DataError
        If ``table`` is not a prediction table or lacks the column ``source``.
    """
    check_predictions(table, classes)
    if "source" not in table.columns:
        raise DataError("The prediction table lacks the column source.")
    y_true, y_pred, _ = encode(table, classes)
    # The manifest leaves the field of an unknown source empty.
    known = table.assign(right=y_pred == y_true)[table["source"].fillna("") != ""]
    rows = [
        SourceRow(
            source=str(source),
            images=len(images),
            classes=[name for name in classes if name in set(images["label"])],
            accuracy=float(images["right"].mean()),
        )
        for source, images in known.groupby("source")
    ]
    return Sources(rows=rows, warning=_source_warning(rows, classes))


def _source_warning(rows: Sequence[SourceRow], classes: Sequence[str]) -> str | None:
    """A sentence about classes that share no source with any other class."""
    present = [name for name in classes if any(name in row.classes for row in rows)]
    alone = [name for name in present if all(row.classes == [name] for row in rows if name in row.classes)]
    if len(present) < 2 or not alone:
        return None
    if len(alone) == len(present):
        return (
            "Every class comes from sources of its own: source and class cannot be told apart, so that these figures "
            "may be about where the images come from."
        )
    share = "shares no source with another class, and can" if len(alone) == 1 else "share no source, and can"
    return f"{join_words(alone)} {share} be told from the rest by where the images come from."
