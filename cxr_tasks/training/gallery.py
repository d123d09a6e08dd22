"""The gallery of a pair: test images that its arms disagree on, and where each arm looks in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from cxr_tasks import tracking
from cxr_tasks.config import Settings
from cxr_tasks.data.dataset import load_images
from cxr_tasks.evaluation.figures import png_bytes
from cxr_tasks.evaluation.figures_gallery import disagreement_gallery, disagreements
from cxr_tasks.execution import StepResult
from cxr_tasks.store import open_store
from cxr_tasks.training.arm import MODEL, PREDICTIONS
from cxr_tasks.training.grad_cam import grad_cam

GALLERY = "gallery.png"


def draw_gallery(
    settings: Settings, dataset: StepResult, arms: Mapping[str, StepResult], label: str, folder: Path
) -> int:
    """Draw the gallery of the arms ``baseline`` and ``augmented`` into ``folder`` and the active MLflow run.

    Returns:
        How many images it shows; where the arms never disagree nothing is drawn.
    """
    classes, folders = list(settings.data.classes), {role: open_store().fetch(a["ref"]) for role, a in arms.items()}
    tables = {role: pd.read_parquet(path / PREDICTIONS) for role, path in folders.items()}
    chosen = disagreements(tables["baseline"], tables["augmented"], classes, most=settings.evaluation.gallery)
    if chosen.empty:
        return 0
    test = load_images(dataset["ref"], "test", settings.classifiers.image_size, classes)
    position = pd.Series(np.arange(len(test)), index=test.ids)
    pixels = test.pixels[position.loc[chosen["image_id"]].to_numpy()]
    heat = {
        role: grad_cam(
            keras.models.load_model(path / MODEL, compile=False),
            pixels,
            np.array([classes.index(name) for name in chosen[role]]),
        )
        for role, path in folders.items()
    }
    figure = disagreement_gallery(
        chosen, pixels, heat["baseline"], heat["augmented"], f"{label}: test images that the arms disagree on"
    )
    (folder / GALLERY).write_bytes(png_bytes(figure))
    tracking.log_figure(figure, GALLERY)
    return len(chosen)
