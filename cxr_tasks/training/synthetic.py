"""Generates the synthetic set: images of each class with their provenance."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np
import pandas as pd

from cxr_tasks.config import GanSettings
from cxr_tasks.data.dataset import Images
from cxr_tasks.training.gan import generate


def synthesize(
    generator: keras.Model, counts: Mapping[str, int], settings: GanSettings, seed: int, generator_ref: str
) -> Images:
    """Generate ``counts`` images; the same generator and seed give the same set.

    ``rows`` has the manifest's columns that later steps read, ``provenance`` = ``synthetic`` and the
    reference of the GAN in ``source``.
    """
    labels = np.repeat(np.arange(len(counts)), list(counts.values())).astype(np.int64)
    size = settings.image_size
    pixels = generate(generator, labels, settings, seed) if len(labels) else np.empty((0, size, size), np.uint8)
    names = list(counts)
    ids = np.array([f"synthetic-{generator_ref.split('/')[-1]}-{seed}-{i:08d}" for i in range(len(labels))], dtype=str)
    rows = pd.DataFrame(
        {
            "image_id": ids,
            "label": [names[k] for k in labels],
            "group": ids,
            "source": generator_ref,
            "provenance": "synthetic",
        }
    )
    return Images(pixels, labels, ids, rows)
