"""What ``train_arm`` keeps with a model for those who give it image files, and how a model is logged to MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cxr_tasks import tracking
from cxr_tasks.artifacts import Dataset, TrainedModel, write_json
from cxr_tasks.config import Settings
from cxr_tasks.store import open_store

if TYPE_CHECKING:
    import pandas as pd

# What is looked at of each split, evenly spread: more images change the limits by less than they vary.
MOST_LOOKED_AT = 10_000
OF_USUAL = ("image_id", "provenance", "shard", "row", "width", "height")


def save_facts(settings: Settings, dataset: Dataset, predictions: pd.DataFrame, folder: Path) -> None:
    """Write what is known of a trained network into its artifact.

    Args:
        settings: Of the run.
        dataset: What the network was trained on.
        predictions: The network's prediction table of validation and test, of which validation sets the thresholds.
        folder: Of the artifact.
    """
    from cxr_tasks.evaluation.calibration import operating_points
    from cxr_tasks.serving.model_facts import FileReading, ModelFacts, Usual
    from cxr_tasks.serving.typical import TypicalImages

    classes, chosen = list(settings.data.classes), settings.serving
    validation = _some_rows(dataset, "validation")
    typical = TypicalImages.of(dataset.thumbnails(_some_rows(dataset, "train")))
    typical.save(folder / ModelFacts.TYPICAL)
    points = operating_points(predictions, classes, chosen.sensitivity)
    facts = ModelFacts(
        classes=tuple(classes),
        image_size=settings.classifiers.image_size,
        reading=FileReading.of(_how_read(settings, dataset)),
        thresholds={point.class_name: point.threshold for point in points},
        usual=Usual.of(typical, dataset.thumbnails(validation), validation, chosen.false_alarms),
    )
    write_json(folder / ModelFacts.FILE, facts)


def log_trained(folder: Path) -> str:
    """Log the model of an artifact to the active MLflow run; returns its address, empty where nothing is tracked."""
    if not tracking.is_on():
        return ""
    from cxr_tasks.serving import protocol
    from cxr_tasks.serving.model_facts import ModelFacts

    facts = ModelFacts.model_validate_json((folder / ModelFacts.FILE).read_text("utf-8"))
    names = (TrainedModel.MODEL, ModelFacts.FILE, ModelFacts.TYPICAL)
    return tracking.log_model(
        {name: folder / name for name in names if (folder / name).is_file()},
        protocol.MODEL_CODE,
        protocol.signature(),
        protocol.input_example(),
        protocol.pinned_requirements(),
        {
            "classes": list(facts.classes),
            "image_size": facts.image_size,
            "resize": facts.reading.resize,
            "thresholds": facts.thresholds,
        },
    )


def _some_rows(dataset: Dataset, split: str) -> pd.DataFrame:
    """Rows of the manifest, of one split."""
    import numpy as np

    from cxr_tasks.data.dataset import rows_of

    rows = rows_of(dataset.manifest((*OF_USUAL, "split"), split), split)
    places = np.linspace(0, len(rows) - 1, min(len(rows), MOST_LOOKED_AT)).astype(int)
    return rows.iloc[places].reset_index(drop=True)


def _how_read(settings: Settings, dataset: Dataset) -> dict[str, object]:
    """How the files of a dataset were read: as its shards say, for the settings may be those of another run."""
    record = open_store().record(dataset.shards[0]) if dataset.shards else None
    return {**settings.data.model_dump(mode="json"), **(record or {}).get("settings", {})}
