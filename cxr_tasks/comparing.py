"""Fills the artifact of a comparison: what two arms' saved predictions say, as figures and as drawings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pydantic import BaseModel, ConfigDict

from cxr_tasks import tracking
from cxr_tasks.config import Settings
from cxr_tasks.evaluation import figures
from cxr_tasks.evaluation.calibration import Calibration, OperatingPoint, calibrate, operating_points
from cxr_tasks.evaluation.comparison import compare
from cxr_tasks.evaluation.figures_calibration import reliability_diagrams
from cxr_tasks.evaluation.metrics import classification_metrics, per_class_table
from cxr_tasks.evaluation.shortcuts import BlankedLungs, Sources, blanked_lungs, by_source
from cxr_tasks.execution import Record, StepResult
from cxr_tasks.store import open_store

COMPARISON, FINDINGS = "comparison.json", "arms.json"


class ArmFindings(BaseModel):
    """What is known of one arm by itself. ``shortcuts`` is ``None`` where the probes were not asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    arm: str
    validation: dict[str, float]
    test: dict[str, float]
    calibration: Calibration
    thresholds: list[OperatingPoint]
    shortcuts: BlankedLungs | None
    sources: Sources | None


def compare_and_draw(
    settings: Settings, label: str, arms: Mapping[str, StepResult], folder: Path, record: Record
) -> None:
    """Compare the arms ``baseline`` and ``augmented``, or describe the only one there is.

    Args:
        label: the pair's name.
    """
    store, classes = open_store(), list(settings.data.classes)
    folders = {role: store.fetch(arm["ref"]) for role, arm in arms.items()}
    names = {role: arm["summary"]["arm"] for role, arm in arms.items()}
    tables = {role: pd.read_parquet(path / "predictions.parquet") for role, path in folders.items()}
    findings = {role: find(settings, names[role], table, folders[role]) for role, table in tables.items()}
    text = json.dumps({role: found.model_dump(mode="json") for role, found in findings.items()}, indent=2)
    (folder / FINDINGS).write_text(text, encoding="utf-8")
    mlflow.log_artifact(str(folder / FINDINGS))
    if not arms:
        record["summary"] = {"verdict": "not trained"}
        return
    histories = {names[role]: pd.read_parquet(path / "history.parquet") for role, path in folders.items()}
    _draw(folder, "curves", figures.learning_curves(histories, f"{label}: training"))
    for role, table in tables.items():
        per_class = per_class_table(table[table["split"] == "test"], classes)
        tracking.log_table(per_class.reset_index(names="class"), f"{role}-per-class.json")
    if len(arms) < 2:
        record["summary"] = {"verdict": "not compared"}
        return
    result = compare(
        tables["baseline"],
        tables["augmented"],
        classes,
        name=label,
        bootstrap_samples=settings.evaluation.bootstrap_samples,
        confidence=settings.evaluation.confidence,
        seed=settings.seed,
        baseline_arm=names["baseline"],
        augmented_arm=names["augmented"],
    )
    (folder / COMPARISON).write_text(result.model_dump_json(indent=2), encoding="utf-8")
    mlflow.log_dict(result.to_dict(), COMPARISON)
    confusion = figures.confusion_matrices(
        np.array(result.baseline_confusion),
        np.array(result.augmented_confusion),
        classes,
        f"{label}: test images",
        arms=(names["baseline"], names["augmented"]),
    )
    _draw(folder, "confusion", confusion)
    reliability = reliability_diagrams(
        findings["baseline"].calibration,
        findings["augmented"].calibration,
        f"{label}: how far confidence can be trusted",
        arms=(names["baseline"], names["augmented"]),
    )
    _draw(folder, "reliability", reliability)
    record["metrics"] = {
        "macro_f1_difference": result.macro_f1_difference,
        "macro_f1_difference_low": result.macro_f1_low,
        "macro_f1_difference_high": result.macro_f1_high,
        "accuracy_difference": result.accuracy_difference,
        "accuracy_difference_low": result.accuracy_low,
        "accuracy_difference_high": result.accuracy_high,
        "mcnemar_p": result.mcnemar_p,
        **({} if result.detectable is None else {"detectable_difference": result.detectable}),
    }
    record["summary"] = {"verdict": result.verdict, "notes": [result.sentence]}


def find(settings: Settings, arm: str, table: pd.DataFrame, folder: Path) -> ArmFindings:
    """All findings on one arm, from its predictions and, in ``folder``, those of blanked images."""
    classes, how = list(settings.data.classes), settings.evaluation
    test = table[table["split"] == "test"].reset_index(drop=True)
    by_split = {split: classification_metrics(rows, classes) for split, rows in table.groupby("split")}
    shortcuts = None
    if how.shortcuts:
        blanked = pd.read_parquet(folder / "blanked.parquet")
        parts = {name: rows.drop(columns="blanked") for name, rows in blanked.groupby("blanked")}
        shortcuts = blanked_lungs(
            test,
            parts["lungs"],
            parts["background"],
            classes,
            bootstrap_samples=how.bootstrap_samples,
            confidence=how.confidence,
            seed=settings.seed,
        )
    return ArmFindings(
        arm=arm,
        validation=by_split["validation"],
        test=by_split["test"],
        calibration=calibrate(table, classes),
        thresholds=operating_points(table, classes, how.min_sensitivity),
        shortcuts=shortcuts,
        sources=by_source(test, classes) if (test["source"].fillna("") != "").any() else None,
    )


def _draw(folder: Path, name: str, figure: Figure) -> None:
    """Keep a figure in the artifact and with the active MLflow run."""
    (folder / f"{name}.png").write_bytes(figures.png_bytes(figure))
    tracking.log_figure(figure, f"{name}.png")
