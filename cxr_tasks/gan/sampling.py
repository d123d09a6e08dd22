"""Makes images with a generator: of given classes, and as the synthetic set with its provenance."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from PIL import Image

from cxr_tasks.config import GanSettings
from cxr_tasks.data.dataset import Images
from cxr_tasks.data.stacks import Rows, in_parts
from cxr_tasks.randomness import keyed


def sample_images(
    generator: keras.Model, labels: np.ndarray, settings: GanSettings, seed: int, purpose: str = "synthetic set"
) -> np.ndarray:
    """Generate an image of each of the given classes.

    Batch statistics are those of the training, and stay as they are.

    Args:
        generator: The network.
        labels: (n,) classes.
        settings: Of the GAN.
        seed: Of the latent points.
        purpose: Keys the latent points with ``seed``: the same generator, seed and purpose give the same images.

    Returns:
        (n, S, S) uint8 gray, the mean of the three channels.
    """
    latent = keyed(seed, purpose).normal(0, settings.latent_sd, (len(labels), settings.latent_dim)).astype("float32")
    columns = np.asarray(labels, "int32")[:, None]
    images = []
    for at in range(0, len(labels), 64):
        made = np.asarray(generator([latent[at : at + 64], columns[at : at + 64]], training=False)).mean(axis=-1)
        images.append(np.clip(np.rint((made + 1) * 127.5), 0, 255).astype(np.uint8))
    return np.concatenate(images)


def build_synthetic_set(
    generator: keras.Model, counts: Mapping[str, int], settings: GanSettings, seed: int, generator_ref: str
) -> Images:
    """Generate a synthetic set; the same generator and seed give the same set.

    Args:
        generator: The network.
        counts: Number of images by class, in the order of the classes.
        settings: Of the GAN.
        seed: Of the latent points.
        generator_ref: Reference of the GAN.

    Returns:
        The images. Their rows have the manifest's columns that later steps read, ``synthetic`` as ``provenance`` and
        ``generator_ref`` as ``source``.
    """
    labels = np.repeat(np.arange(len(counts)), list(counts.values())).astype(np.int64)
    size = settings.image_size
    pixels = sample_images(generator, labels, settings, seed) if len(labels) else np.empty((0, size, size), np.uint8)
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


def class_probabilities(discriminator: keras.Model, pixels: Rows) -> np.ndarray:
    """Ask the discriminator's class head about (n, S, S) uint8 images → (n, classes); each row sums to 1."""
    if not len(pixels):
        return np.empty((0, discriminator.output_shape[1][-1]), np.float32)
    found = []
    for part in in_parts(pixels):
        channels = np.repeat(part[..., None].astype(np.float32) / 127.5 - 1, 3, axis=-1)
        found.append(discriminator.predict(channels, batch_size=64, verbose=0)[1])
    return np.concatenate(found)


def write_png(pixels: Rows, rows: pd.DataFrame, folder: Path) -> None:
    """Write images (n, S, S) uint8 as ``<label>/<image id>.png``, for people and for other programs."""
    for image, label, name in zip(pixels, rows["label"], rows["image_id"], strict=True):
        (folder / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / label / f"{name}.png")
