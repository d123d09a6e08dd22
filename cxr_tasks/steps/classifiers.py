"""Steps of the classifiers: one arm of a pair, the comparison of both, and what follows from all comparisons."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from cxr_tasks import tracking
from cxr_tasks.config import DISPLAY_NAMES
from cxr_tasks.errors import SettingsError
from cxr_tasks.execution import Record, RunContext, StepResult, load_settings, perform
from cxr_tasks.steps.shared import dataset_tags, weights_identity
from cxr_tasks.store import open_store

log = logging.getLogger(__name__)

SYNTHETIC_ARMS = ("synthetic", "both")


def pairs(run: RunContext) -> list[dict[str, Any]]:
    """One entry for each classifier and seed; the DAG maps over them."""
    chosen = load_settings(run).classifiers
    return [{"classifier": name, "seed": seed} for seed in chosen.seeds for name in chosen.names]


def needs_synthetic(run: RunContext, role: str) -> bool:
    """Whether the arm in this role trains with synthetic images."""
    return getattr(load_settings(run).pair, role) in SYNTHETIC_ARMS


def train_arm(
    run: RunContext, dataset: StepResult, pair: Mapping[str, Any], role: str, synthetic: StepResult | None = None
) -> StepResult:
    """Train one arm of a pair and keep its model, its predictions and its curves.

    Args:
        role: ``baseline`` or ``augmented``; the settings say which augmentation that is.
        synthetic: the synthetic set, for arms that train with one.
    """
    settings = load_settings(run)
    arm = getattr(settings.pair, role)
    name, seed = pair["classifier"], pair["seed"]
    classical, with_synthetic = arm in ("classical", "both"), needs_synthetic(run, role)
    if with_synthetic and synthetic is None:
        raise SettingsError(f"The {role} arm trains on synthetic images ({arm}) but was given none.")
    chosen = settings.classifiers.model_dump(mode="json", exclude={"names", "seeds", "weights"})
    inputs: dict[str, StepResult | str] = {"dataset": dataset}
    if not with_synthetic:
        synthetic = None
    elif synthetic is not None:
        inputs["synthetic"] = synthetic

    def make(folder: Path, record: Record) -> None:
        from cxr_tasks.training.arm import fit_and_save

        fit_and_save(settings, dataset, synthetic, name, role, arm, seed, folder, record)

    result = perform(
        run,
        "train_arm",
        make,
        settings={
            "classifier": name,
            "arm": arm,
            "seed": seed,
            "weights": weights_identity(settings.classifiers.weights.get(name)),
            "weights_seed": settings.seed,
            **chosen,
            "augmentation": settings.augmentation.model_dump(mode="json") if classical else "none",
        },
        inputs=inputs,
        label=f"{name} {role} seed {seed}",
        tags=dataset_tags(run, dataset)
        | {"cxr.classifier": name, "cxr.role": role, "cxr.arm": arm, "cxr.seed": str(seed)},
    )
    result["summary"]["role"] = role
    return result


def compare(
    run: RunContext, dataset: StepResult, pair: Mapping[str, Any], baseline: StepResult, augmented: StepResult | None
) -> StepResult:
    """Compare the two arms of a pair on the same real test images, from their saved predictions.

    Args:
        augmented: ``None`` where it was not trained; the baseline then stands alone.
    """
    settings = load_settings(run)
    name, seed = pair["classifier"], pair["seed"]
    label = DISPLAY_NAMES[name] + (f", seed {seed}" if len(settings.classifiers.seeds) > 1 else "")
    inputs: dict[str, StepResult | str] = {"baseline": baseline}
    if augmented is not None:
        inputs["augmented"] = augmented

    def make(folder: Path, record: Record) -> None:
        import mlflow
        import numpy as np
        import pandas as pd

        from cxr_tasks.evaluation import comparison, figures, metrics

        store, classes = open_store(), list(settings.data.classes)
        folders = {role: store.fetch(arm["ref"]) for role, arm in inputs.items() if not isinstance(arm, str)}
        tables = {role: pd.read_parquet(path / "predictions.parquet") for role, path in folders.items()}
        histories = {role: pd.read_parquet(path / "history.parquet") for role, path in folders.items()}
        curves = figures.learning_curves(histories, f"{label}: training")
        (folder / "curves.png").write_bytes(figures.png_bytes(curves))
        tracking.log_figure(curves, "curves.png")
        for role, table in tables.items():
            per_class = metrics.per_class_table(table[table["split"] == "test"], classes)
            tracking.log_table(per_class.reset_index(names="class"), f"{role}-per-class.json")
        if augmented is None:
            alone = {
                split: metrics.classification_metrics(t, classes) for split, t in tables["baseline"].groupby("split")
            }
            (folder / "alone.json").write_text(json.dumps(alone), encoding="utf-8")
            record["summary"] = {"verdict": "not compared"}
            return
        result = comparison.compare(
            tables["baseline"],
            tables["augmented"],
            classes,
            name=label,
            bootstrap_samples=settings.evaluation.bootstrap_samples,
            confidence=settings.evaluation.confidence,
            seed=settings.seed,
        )
        log.info(result.sentence)
        (folder / "comparison.json").write_text(result.model_dump_json(indent=2), encoding="utf-8")
        tracking.log_figure(
            figures.confusion_matrices(
                np.array(result.baseline_confusion),
                np.array(result.augmented_confusion),
                classes,
                f"{label}: test images",
            ),
            "confusion.png",
        )
        mlflow.log_dict(result.to_dict(), "comparison.json")
        record["metrics"] = {
            "macro_f1_difference": result.macro_f1_difference,
            "macro_f1_difference_low": result.macro_f1_low,
            "macro_f1_difference_high": result.macro_f1_high,
            "accuracy_difference": result.accuracy_difference,
            "mcnemar_p": result.mcnemar_p,
        }
        record["summary"] = {"verdict": result.verdict, "notes": [result.sentence]}

    result = perform(
        run,
        "compare",
        make,
        settings={**settings.evaluation.model_dump(mode="json"), "seed": settings.seed, "name": label},
        inputs=inputs,
        label=f"{name} seed {seed}",
        tags=dataset_tags(run, dataset) | {"cxr.classifier": name, "cxr.seed": str(seed)},
    )
    result["summary"] |= {"pair": dict(pair), "baseline": baseline, "augmented": augmented}
    return result


def promote(run: RunContext, dataset: StepResult, comparisons: Sequence[StepResult] | StepResult) -> StepResult:
    """Register the better arm of each classifier, and of all, by validation macro F1."""
    from cxr_tasks.registry import promote_best

    return promote_best(run, dataset, _each(comparisons), load_settings(run).data.classes)


def report(
    run: RunContext,
    dataset: StepResult,
    gan: StepResult,
    judged: StepResult,
    synthetic: StepResult | None,
    comparisons: Sequence[StepResult] | StepResult,
    promoted: StepResult,
) -> StepResult:
    """Write the run's report and keep it with the run in MLflow."""
    from cxr_tasks.reporting import write_report

    return write_report(run, dataset, gan, judged, synthetic, _each(comparisons), promoted)


def _each(comparisons: Sequence[StepResult] | StepResult) -> list[StepResult]:
    """Of a task group that was mapped over one thing Airflow hands on the result itself."""
    return [cast(StepResult, comparisons)] if isinstance(comparisons, Mapping) else list(comparisons)
