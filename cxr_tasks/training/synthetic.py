"""Generates the synthetic set: images of each class with their provenance."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from PIL import Image

from cxr_tasks.config import GanSettings
from cxr_tasks.data.dataset import Images
from cxr_tasks.training.gan_watch import generate


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


def class_probabilities(discriminator: keras.Model, pixels: np.ndarray) -> np.ndarray:
    """What the discriminator's class head makes of (n, S, S) uint8 images: (n, classes), rows summing to 1."""
    channels = np.repeat(pixels[..., None].astype(np.float32) / 127.5 - 1, 3, axis=-1)
    if not len(channels):
        return np.empty((0, discriminator.output_shape[1][-1]), np.float32)
    return discriminator.predict(channels, batch_size=64, verbose=0)[1]


def write_png(pixels: np.ndarray, rows: pd.DataFrame, folder: Path) -> None:
    """Write the set as ``<label>/<image id>.png`` too, for people and for other programs."""
    for image, label, name in zip(pixels, rows["label"], rows["image_id"], strict=True):
        (folder / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / label / f"{name}.png")
