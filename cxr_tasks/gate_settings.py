"""Settings of the gate that a challenger passes to become champion."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from cxr_tasks.names import composed
from cxr_tasks.strict import Fraction, Strict

OverZero = Annotated[float, Field(gt=0.0)]


class GateSettings(Strict):
    """What a challenger must show before it becomes champion. A limit is ``null`` where it is not asked.

    What models predict is measured on real validation images. The test set is never asked.

    Attributes:
        confidence: Of the interval of the difference from the champion. It is corrected for the number of candidates
            that the challenger is the best of, so a challenger that is no better is to pass in at
            most ``(1 - confidence) / 2`` of all cases.
        margin: The lower end of that interval must lie above this difference of macro F1.
        min_macro_f1: The least macro F1.
        min_recall: The least recall of every class, or of each class by its name.
        max_ece: The largest expected calibration error (15 bins).
        max_latency_ms: The longest time for one image alone, in milliseconds, on the machine of the task.
        max_size_mb: The largest file of a model, in megabytes.
        max_external_drop: The largest drop of macro F1 from the validation images to any set of ``data.external``.
        approval: Whether a person is asked before a challenger that passes becomes champion.
        approval_days: How long Airflow waits for the answer. Then the answer is no.
    """

    confidence: Annotated[float, Field(gt=0.5, lt=1.0)]
    margin: Fraction
    min_macro_f1: Fraction | None
    min_recall: Fraction | dict[Annotated[str, AfterValidator(composed)], Fraction] | None
    max_ece: Fraction | None
    max_latency_ms: OverZero | None
    max_size_mb: OverZero | None
    max_external_drop: Fraction | None
    approval: bool
    approval_days: OverZero

    def recall_floors(self, classes: list[str]) -> dict[str, float]:
        """The least recall of each class that has one."""
        if self.min_recall is None:
            return {}
        if isinstance(self.min_recall, dict):
            return {name: self.min_recall[name] for name in classes if name in self.min_recall}
        return dict.fromkeys(classes, self.min_recall)
