"""All that is known of one arm by itself, from its saved predictions: written once, with the arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from cxr_tasks.config import EvaluationSettings
from cxr_tasks.evaluation.calibration import Calibration, OperatingPoint, calibrate, operating_points
from cxr_tasks.evaluation.metrics import classification_metrics
from cxr_tasks.evaluation.shortcuts import BlankedLungs, blanked_lungs
from cxr_tasks.evaluation.subgroups import SubgroupFindings, subgroup_findings
from cxr_tasks.strict import Strict


class ArmFindings(Strict):
    """What is known of one arm by itself.

    Attributes:
        arm: What the arm is trained on, such as ``both``.
        validation: Metrics of the validation images.
        test: Metrics of the test images.
        calibration: How far its probabilities can be trusted.
        thresholds: An operating point for each class.
        shortcuts: What is left of it with the lungs blanked; ``None`` where the probes were not asked for.
        subgroups: It by subgroup; ``None`` where nothing is known by which test images could be divided.
    """

    arm: str
    validation: dict[str, float]
    test: dict[str, float]
    calibration: Calibration
    thresholds: list[OperatingPoint]
    shortcuts: BlankedLungs | None
    subgroups: SubgroupFindings | None


def arm_findings(
    arm: str,
    predictions: pd.DataFrame,
    blanked: Mapping[str, pd.DataFrame],
    subgroups: pd.DataFrame,
    classes: Sequence[str],
    settings: EvaluationSettings,
    seed: int,
) -> ArmFindings:
    """Evaluate one arm.

    Args:
        arm: What the arm is trained on.
        predictions: The prediction table of validation and test.
        blanked: Prediction tables of the test images with ``lungs`` or ``background`` blanked; empty where the
            probes were not asked for.
        subgroups: Those of each image, as ``data.subgroups`` makes it, with image ids as index.
        classes: The classes in their order.
        settings: What is measured.
        seed: Of the bootstrap.
    """
    test = predictions[predictions["split"] == "test"].reset_index(drop=True)
    by_split = {str(split): classification_metrics(rows, classes) for split, rows in predictions.groupby("split")}
    shortcuts = None
    if blanked:
        shortcuts = blanked_lungs(
            test,
            blanked["lungs"],
            blanked["background"],
            classes,
            bootstrap_samples=settings.bootstrap_samples,
            confidence=settings.confidence,
            seed=seed,
        )
    return ArmFindings(
        arm=arm,
        validation=by_split["validation"],
        test=by_split["test"],
        calibration=calibrate(predictions, classes),
        thresholds=operating_points(predictions, classes, settings.min_sensitivity),
        shortcuts=shortcuts,
        subgroups=subgroup_findings([test], subgroups, classes, settings, seed),
    )
