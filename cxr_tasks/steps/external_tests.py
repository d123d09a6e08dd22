"""What tests of models on external sets have in common, whatever model is tested."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr_tasks import tracking
from cxr_tasks.artifacts import ExternalSet, ExternalTest, write_json
from cxr_tasks.config import Settings
from cxr_tasks.names import slug
from cxr_tasks.steps.told_subgroups import subgroup_metrics, subgroup_table

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from cxr_tasks.evaluation.external import ExternalFindings

SURE_FIGURES = ("macro_f1", "accuracy", "internal_macro_f1", "internal_accuracy", "macro_f1_drop", "accuracy_drop")


def how_measured(settings: Settings) -> dict[str, Any]:
    """What figures of an external set depend on besides predictions."""
    names = {"bootstrap_samples", "confidence", "subgroups"}
    return {**settings.evaluation.model_dump(mode="json", include=names), "seed": settings.seeds.bootstrap}


def figures_of(
    table: pd.DataFrame, internal: pd.DataFrame | None, classes: Sequence[str], settings: Settings
) -> ExternalFindings:
    """Measure a model on images, with intervals, as the settings of the run say.

    Args:
        table: The prediction table of the images; rows may have any index.
        internal: That of the images to compare with; ``None`` where there are none.
        classes: Of the model, in their order.
        settings: Say how intervals are made.

    Raises:
        DataError: A table is no prediction table, or all of its images are of one group.
    """
    from cxr_tasks.evaluation.external import external_findings

    how, seed = settings.evaluation, settings.seeds.bootstrap
    given = table.reset_index(drop=True), internal, list(classes)
    return external_findings(*given, bootstrap_samples=how.bootstrap_samples, confidence=how.confidence, seed=seed)


def external_table(rows: pd.DataFrame, probabilities: np.ndarray, classes: Sequence[str]) -> pd.DataFrame:
    """The prediction table of the images ``rows`` of an external set, all of which test."""
    table = rows[["image_id", "group", "label", "source"]].reset_index(drop=True)
    table.insert(1, "split", "test")
    table[list(classes)] = probabilities
    return table


def keep_test(
    folder: Path,
    settings: Settings,
    external: ExternalSet,
    table: pd.DataFrame,
    internal: pd.DataFrame | None,
    classes: Sequence[str],
) -> dict[str, float]:
    """Measure a model on an external set, and keep predictions and findings in ``folder`` and with the MLflow run.

    Args:
        folder: Of the artifact.
        settings: Say what is measured.
        external: The set.
        table: The prediction table of the set.
        internal: That of the internal test; ``None`` where it is not known.
        classes: Of the model, in their order.

    Returns:
        Metrics, which begin with the set's name.
    """
    from cxr_tasks.data.subgroups import subgroups_by_image
    from cxr_tasks.evaluation.subgroups import subgroup_findings

    table.to_parquet(folder / ExternalTest.PREDICTIONS, index=False)
    found = figures_of(table, internal, classes, settings)
    write_json(folder / ExternalTest.FINDINGS, found)
    key, metrics = slug(external.name), {**found.metrics, **flat_findings(found)}
    tracking.log_table(table.drop(columns=["group", "source"]), f"{key}-predictions.json")
    told = subgroups_by_image(external.table(), settings.evaluation.subgroups)
    divided = subgroup_findings([table], told, classes, settings.evaluation, settings.seeds.bootstrap)
    if divided is not None:
        write_json(folder / ExternalTest.SUBGROUPS, divided)
        tracking.log_table(subgroup_table(divided), f"{key}-subgroups.json")
        metrics |= subgroup_metrics(divided)
    return {f"{key}_{metric}": value for metric, value in metrics.items()}


def flat_findings(found: ExternalFindings) -> dict[str, float]:
    """The figures with their intervals, as ``macro_f1``, ``macro_f1_low``, ``macro_f1_high`` and so on."""
    flat: dict[str, float] = {"images": found.images}
    for name in SURE_FIGURES:
        figure = getattr(found, name)
        if figure is not None:
            flat |= {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high}
    return flat
