"""What joins the real training images of an arm: the synthetic set, or the controls that are held against it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cxr_tasks.arms import Arm
from cxr_tasks.config import Settings
from cxr_tasks.data.added import counts_to_add
from cxr_tasks.data.dataset import Images
from cxr_tasks.errors import SettingsError
from cxr_tasks.image_settings import FIRST_RESIZE, ResizeName
from cxr_tasks.randomness import keyed


@dataclass(frozen=True)
class ExtraImages:
    """Images that join a training set.

    Attributes:
        images: At the classifiers' size.
        content: Says which pixels these are, for ever.
        positions: Of the training images that they are, pixel by pixel; ``None`` where they are new.
    """

    images: Images
    content: Mapping[str, Any]
    positions: np.ndarray | None = None


def extra_images(
    arm: Arm,
    settings: Settings,
    real: Images,
    content: Mapping[str, Any],
    synthetic: ExtraImages | None,
    counts: Mapping[str, int] | None = None,
    resize: ResizeName = FIRST_RESIZE,
) -> ExtraImages | None:
    """What ``arm`` adds to its real training images; ``None`` where it adds nothing.

    All seeds get the same images.

    Args:
        arm: The arm.
        settings: Of the run.
        real: The real training images in full.
        content: Says which pixels those are.
        synthetic: The synthetic set, for an arm that trains with one.
        counts: How many images a control adds, by class: as many as the synthetic set has. Where there is no such set,
            as many as the settings ask for.
        resize: How the images of a control go through the GAN's resolution.

    Raises:
        SettingsError: The arm would add nothing, or trains with a synthetic set and is given none.
    """
    if arm.extra is None:
        return None
    if arm.extra == "synthetic":
        if synthetic is None:
            raise SettingsError("An arm that trains on synthetic images was given none: generate them first.")
        return synthetic
    counts = planned_counts(settings, real) if counts is None else dict(counts)
    if not any(counts.values()):
        raise SettingsError(
            f"The arm {arm.extra!r} would add nothing, because no synthetic images are asked for: raise "
            "synthetic.counts, or leave the arm out."
        )
    positions = chosen_again(real, counts, settings.seeds.synthetic)
    again = real.take(positions)
    if arm.extra == "oversample":
        return ExtraImages(again, {}, positions)
    size, through = real.pixels.shape[1], settings.gan.image_size
    named = {**content, "counts": counts, "seed": settings.seeds.synthetic, "through": through, "size": size}
    return ExtraImages(again.resized(through, resize).resized(size, resize), named)


def planned_counts(settings: Settings, real: Images) -> dict[str, int]:
    """Synthetic images that the settings ask for, by class, in the order of the classes."""
    there = real.rows["label"].value_counts()
    return counts_to_add(settings.synthetic, {label: int(there.get(label, 0)) for label in settings.data.classes})


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
