"""The tables of a report that are about single arms: thresholds and shortcuts."""

from __future__ import annotations

from collections.abc import Sequence

from cxr_tasks.evaluation.findings import ArmFindings
from cxr_tasks.evaluation.shortcuts import Score
from cxr_tasks.report.render import Table
from cxr_tasks.strict import Strict


class NamedFindings(Strict):
    """An arm's findings, with what it is an arm of."""

    network: str
    seed: int
    found: ArmFindings

    @property
    def name(self) -> str:
        """What the arm is called among those of its run."""
        return f"{self.network}, {self.found.arm}, seed {self.seed}"


def thresholds_table(arms: Sequence[ArmFindings], min_sensitivity: float) -> Table:
    """Operating points of the arms of one pair."""
    rows = [
        [
            arm.arm,
            point.class_name,
            f"{point.threshold:.3f}",
            percent(point.validation_sensitivity),
            percent(point.test_sensitivity),
            percent(point.test_specificity),
        ]
        for arm in arms
        for point in arm.thresholds
    ]
    return Table(
        title="Operating thresholds",
        note="A class is called present where its probability reaches the threshold. The threshold is the largest that "
        f"finds {100 * min_sensitivity:g} % of the class's validation images. The last two columns show what it does "
        "to test images.",
        columns=["Arm", "Class", "Threshold", "Sensitivity, validation", "Sensitivity, test", "Specificity, test"],
        rows=rows,
    )


def shortcuts_table(arms: Sequence[NamedFindings]) -> tuple[list[Table], list[str]]:
    """What each model still knows with the lungs, or all but the lungs, blanked; and a warning where that is much."""
    probed = [(arm, arm.found.shortcuts) for arm in arms if arm.found.shortcuts]
    if not probed:
        return [], []
    rows = [
        [
            arm.name,
            _with_interval(s.full),
            _with_interval(s.lungs_blanked),
            _with_interval(s.background_blanked),
            "–" if s.kept is None else f"{100 * s.kept:.0f}",
        ]
        for arm, s in probed
    ]
    chance = 100 * probed[0][1].chance
    table = Table(
        title="Shortcuts: does it look at the lungs?",
        note=f"Balanced accuracy in percent, with its interval, of the same model on the same {probed[0][1].images:,} "
        "test images: as they are, with the rectangle around the lungs painted gray, and with all but this rectangle "
        f"painted gray. Chance is {chance:.1f}. A model that goes by the disease falls to chance without the lungs.",
        columns=["Model", "As they are", "Lungs blanked", "All but the lungs blanked", "Kept without lungs, %"],
        rows=rows,
    )
    warned = [(arm, s) for arm, s in probed if s.warning]
    if not warned:
        return [table], []
    left = sorted(100 * s.lungs_blanked.balanced_accuracy for _, s in warned)
    span = f"{left[0]:.0f} %" if len(left) == 1 else f"{left[0]:.0f} to {left[-1]:.0f} %"
    which = "The trained model" if len(probed) == 1 else f"{len(warned)} of {len(probed)} trained models"
    return [table], [
        f"{which} still tell{'s' if len(warned) == 1 else ''} the classes apart with the lungs blanked (balanced "
        f"accuracy {span} where chance is {chance:.0f} %). What is beside the lungs, or where the lungs lie, gives the "
        "class away. Figures on these images may not hold in another hospital. See “Shortcuts”."
    ]


def _with_interval(score: Score) -> str:
    return f"{100 * score.balanced_accuracy:.1f} ({100 * score.low:.1f} to {100 * score.high:.1f})"


def percent(share: float | None) -> str:
    """A share in percent, with a dash where there is none."""
    return "–" if share is None else f"{100 * share:.1f}"
