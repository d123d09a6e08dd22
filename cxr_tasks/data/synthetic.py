"""How many synthetic images each class gets, and how they join a training set; generating them is training's."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from cxr_tasks.config import SyntheticSettings
from cxr_tasks.data.dataset import Images


def counts_per_class(settings: SyntheticSettings, real: Mapping[str, int]) -> dict[str, int]:
    """Images to make of each class, in the order of ``real`` (training images per class)."""
    if settings.counts == "balance":
        largest = max(real.values())
        return {label: largest - count for label, count in real.items()}
    return {label: settings.counts.get(label, 0) for label in real}


def with_synthetic(train: Images, synthetic: Images) -> Images:
    """The training images followed by the synthetic ones, resized to the same side."""
    pixels = np.concatenate([train.pixels, synthetic.resized(train.pixels.shape[1]).pixels])
    return Images(
        pixels,
        np.concatenate([train.labels, synthetic.labels]),
        np.concatenate([train.ids, synthetic.ids]),
        pd.concat([train.rows, synthetic.rows], ignore_index=True),
    )
