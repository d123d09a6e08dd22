"""What ``evaluate_arm`` keeps for those who give image files to a model, and how the model is logged to MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cxr_tasks import tracking
from cxr_tasks.artifacts import Dataset, TrainedModel, write_json
from cxr_tasks.config import Settings
from cxr_tasks.store import open_store

if TYPE_CHECKING:
    import pandas as pd

    from cxr_tasks.data.typical import TypicalImages
    from cxr_tasks.evaluation.calibration import OperatingPoint

# What is looked at of each split, evenly spread: more images change the limits by less than they vary.
MOST_LOOKED_AT = 10_000
OF_USUAL = ("image_id", "provenance", "shard", "row", "width", "height")


def save_facts(settings: Settings, dataset: Dataset, points: Sequence[OperatingPoint], folder: Path) -> None:
    """Write what is known of a trained network into the artifact of its evaluation.

    Args:
        settings: Of the run.
        dataset: What the network was trained on.
        points: Its operating points, which validation images set.
        folder: Of the artifact.
    """
    from cxr_tasks.serving.model_facts import FileReading, ModelFacts, Usual

    validation = _some_rows(dataset, "validation")
    typical = typical_of(dataset)
    typical.save(folder / ModelFacts.TYPICAL)
    facts = ModelFacts(
        classes=tuple(settings.data.classes),
        image_size=settings.classifiers.image_size,
        reading=FileReading.of(_how_read(settings, dataset)),
        thresholds={point.class_name: point.threshold for point in points},
        usual=Usual.of(typical, dataset.thumbnails(validation), validation, settings.serving.false_alarms),
    )
    write_json(folder / ModelFacts.FILE, facts)


def typical_of(dataset: Dataset) -> TypicalImages:
    """What the training images of a dataset look like."""
    from cxr_tasks.data.typical import TypicalImages

    return TypicalImages.of(dataset.thumbnails(_some_rows(dataset, "train")))


def log_trained(model: Path, facts: Path) -> str:
    """Log a model to the active MLflow run.

    Args:
        model: The folder of the artifact of its training.
        facts: The folder of the artifact of its evaluation.

    Returns:
        Its address; empty where nothing is tracked.
    """
    if not tracking.is_on():
        return ""
    from cxr_tasks.serving import protocol
    from cxr_tasks.serving.model_facts import ModelFacts

    known = ModelFacts.model_validate_json((facts / ModelFacts.FILE).read_text("utf-8"))
    files = {TrainedModel.MODEL: model / TrainedModel.MODEL}
    files |= {name: facts / name for name in (ModelFacts.FILE, ModelFacts.TYPICAL)}
    return tracking.log_model(
        {name: path for name, path in files.items() if path.is_file()},
        protocol.MODEL_CODE,
        protocol.signature(),
        protocol.input_example(),
        protocol.pinned_requirements(),
        {
            "classes": list(known.classes),
            "image_size": known.image_size,
            "resize": known.reading.resize,
            "thresholds": known.thresholds,
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
