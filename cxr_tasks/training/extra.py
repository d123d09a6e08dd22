"""What joins the real training images of an arm: the synthetic set, or the controls that are held against it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cxr_tasks.arms import Arm
from cxr_tasks.config import Settings
from cxr_tasks.data.dataset import Images
from cxr_tasks.data.synthetic import counts_per_class
from cxr_tasks.errors import SettingsError
from cxr_tasks.execution import StepResult
from cxr_tasks.store import open_store
from cxr_tasks.training.randomness import keyed


@dataclass(frozen=True)
class ExtraImages:
    """``images`` that join the training set; ``content`` says which pixels these are, for ever.

    ``positions``: of the training images that they are, pixel by pixel, or ``None`` where they are new.
    """

    images: Images
    content: dict[str, Any]
    positions: np.ndarray | None = None


def extra_images(
    arm: Arm, settings: Settings, dataset: StepResult, synthetic: StepResult | None, train: Images
) -> ExtraImages | None:
    """What ``arm`` adds to ``train``, its real training images in full; ``None`` where it adds nothing.

    The controls add as many images of each class as the synthetic set is asked for, and all seeds the same ones.
    """
    size = settings.classifiers.image_size
    if arm.extra is None:
        return None
    if arm.extra == "synthetic":
        assert synthetic is not None  # the step has looked
        made = load_synthetic(synthetic, list(settings.data.classes)).resized(size)
        return ExtraImages(made, synthetic_content(synthetic, size))
    counts = planned_counts(settings, dataset)
    if not any(counts.values()):
        raise SettingsError(
            f"The arm {arm.extra!r} would add nothing, because no synthetic images are asked for: raise "
            "synthetic.counts, or leave the arm out."
        )
    positions = chosen_again(train, counts, settings.seed)
    again = train.take(positions)
    if arm.extra == "oversample":
        return ExtraImages(again, {}, positions)
    content = {"dataset": dataset["ref"], "counts": counts, "seed": settings.seed, "through": settings.gan.image_size}
    return ExtraImages(again.resized(settings.gan.image_size).resized(size), {**content, "size": size})


def synthetic_content(synthetic: StepResult, size: int) -> dict[str, Any]:
    """Which pixels those of a synthetic set at ``size`` are: made anew with the same settings, it may hold others."""
    record = open_store().record(synthetic["ref"]) or {}
    return {"synthetic": synthetic["ref"], "made_by": record.get("mlflow_run_id"), "size": size}


def planned_counts(settings: Settings, dataset: StepResult) -> dict[str, int]:
    """Synthetic images that the settings ask for, by class, in the order of the classes."""
    real = {label: dataset["summary"]["counts"]["train"][label] for label in settings.data.classes}
    return counts_per_class(settings.synthetic, real)


def chosen_again(train: Images, counts: Mapping[str, int], seed: int) -> np.ndarray:
    """Positions of training images that are shown again: so many of each class as ``counts`` says.

    Within a class each comes up equally often, give or take one; which ones do is keyed by ``seed``.

    Returns:
        (n,) int64.
    """
    labels, positions = train.rows["label"].to_numpy(), [np.empty(0, np.int64)]
    for number, (label, count) in enumerate(counts.items()):
        members = np.flatnonzero(labels == label)
        turns = -(-count // max(1, len(members)))
        order = [keyed(seed, "shown again", number, turn).permutation(members) for turn in range(turns)]
        positions.append(np.concatenate([np.empty(0, np.int64), *order])[:count])
    return np.concatenate(positions)


def load_synthetic(synthetic: StepResult, classes: list[str]) -> Images:
    """A published synthetic set, at the GAN's size."""
    folder = open_store().fetch(synthetic["ref"])
    rows = pd.read_parquet(folder / "manifest.parquet")
    labels = rows["label"].map({name: i for i, name in enumerate(classes)}).to_numpy(np.int64)
    return Images(np.load(folder / "pixels.npy"), labels, rows["image_id"].to_numpy(str), rows)
