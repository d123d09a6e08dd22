"""What tests of models on external sets have in common, whatever model is tested."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr_tasks import tracking
from cxr_tasks.artifacts import ExternalTest, write_json
from cxr_tasks.config import Settings
from cxr_tasks.names import slug

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from cxr_tasks.evaluation.external import ExternalFindings

SURE_FIGURES = ("macro_f1", "accuracy", "internal_macro_f1", "internal_accuracy", "macro_f1_drop", "accuracy_drop")


def how_measured(settings: Settings) -> dict[str, Any]:
    """What figures of an external set depend on besides predictions."""
    chosen = settings.evaluation
    measured = {"bootstrap_samples": chosen.bootstrap_samples, "confidence": chosen.confidence}
    return {**measured, "seed": settings.seeds.bootstrap}


def external_table(rows: pd.DataFrame, probabilities: np.ndarray, classes: Sequence[str]) -> pd.DataFrame:
    """The prediction table of the images ``rows`` of an external set, all of which test."""
    table = rows[["image_id", "group", "label", "source"]].reset_index(drop=True)
    table.insert(1, "split", "test")
    table[list(classes)] = probabilities
    return table


def keep_test(
    folder: Path, settings: Settings, table: pd.DataFrame, internal: pd.DataFrame | None, classes: Sequence[str]
) -> ExternalFindings:
    """Measure a model on an external set, and keep predictions and findings in ``folder``.

    Args:
        folder: Of the artifact.
        settings: Say what is measured.
        table: The prediction table of the external set.
        internal: That of the internal test; ``None`` where it is not known.
        classes: Of the model, in their order.
    """
    from cxr_tasks.evaluation.external import external_findings

    table.to_parquet(folder / ExternalTest.PREDICTIONS, index=False)
    found = external_findings(
        table,
        internal,
        list(classes),
        bootstrap_samples=settings.evaluation.bootstrap_samples,
        confidence=settings.evaluation.confidence,
        seed=settings.seeds.bootstrap,
    )
    write_json(folder / ExternalTest.FINDINGS, found)
    return found


def log_external(name: str, table: pd.DataFrame, found: ExternalFindings) -> dict[str, float]:
    """Keep the predictions with the active MLflow run; returns metrics, which begin with the set's name."""
    key = slug(name)
    tracking.log_table(table.drop(columns=["group", "source"]), f"{key}-predictions.json")
    return {f"{key}_{metric}": value for metric, value in {**found.metrics, **flat_findings(found)}.items()}


def flat_findings(found: ExternalFindings) -> dict[str, float]:
    """The figures with their intervals, as ``macro_f1``, ``macro_f1_low``, ``macro_f1_high`` and so on."""
    flat: dict[str, float] = {"images": found.images}
    for name in SURE_FIGURES:
        figure = getattr(found, name)
        if figure is not None:
            flat |= {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high}
    return flat
