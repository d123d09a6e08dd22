"""How many synthetic images each class gets, and how images join a training set; generating them is training's."""

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


def with_extra(train: Images, extra: Images) -> Images:
    """The training images followed by ``extra`` ones, resized to the same side."""
    pixels = np.concatenate([train.pixels, extra.resized(train.pixels.shape[1]).pixels])
    return Images(
        pixels,
        np.concatenate([train.labels, extra.labels]),
        np.concatenate([train.ids, extra.ids]),
        pd.concat([train.rows, extra.rows], ignore_index=True),
    )
