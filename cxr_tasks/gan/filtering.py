"""Which synthetic images are dropped: images that do not look like their class, and near-copies of training images.

Also says which images of one set repeat each other. Works on arrays: ``gan.sampling`` makes the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image

from cxr_tasks.config import NearDuplicateSettings, SyntheticSettings
from cxr_tasks.data.decode import THUMBNAIL_SIDE, difference_hash
from cxr_tasks.data.duplicates import altered, encoded_again_among, near_duplicates
from cxr_tasks.data.stacks import Rows, on_disk

UNLIKELY = "unlike its class"
NEAR_COPY = "near-copy of a training image"


@dataclass(frozen=True)
class Kept:
    """Which images stay, and why the others go.

    Attributes:
        mask: (n,) bool, True for images that stay.
        reasons: (n,) text, why an image goes; '' for images that stay.
        counts: A row a class with the columns ``made``, one for each reason, and ``kept``.
    """

    mask: np.ndarray
    reasons: np.ndarray
    counts: pd.DataFrame


def keep(
    pixels: Rows,
    labels: np.ndarray,
    probabilities: np.ndarray | None,
    training: Rows,
    classes: Sequence[str],
    settings: SyntheticSettings,
    near: NearDuplicateSettings,
) -> Kept:
    """Decide on every synthetic image. An image with both faults counts as unlike its class.

    Args:
        pixels: (n, S, S) uint8, the synthetic images.
        labels: (n,) the classes that the images were made for.
        probabilities: (n, classes) that each image is of each class. ``None`` will do where ``settings`` ask for no
            least probability.
        training: (m, T, T) uint8, the real training images, of every class.
        classes: The classes in their order.
        settings: What to drop.
        near: When the data stage calls two images one picture.

    Raises:
        ValueError: A least probability is asked for, and ``probabilities`` are missing or not one a class.
    """
    reasons = np.full(len(labels), "", dtype=object)
    if settings.drop_near_copies:
        reasons[copies(pixels, training, near)] = NEAR_COPY
    if settings.min_class_probability > 0:
        if probabilities is None or probabilities.shape != (len(labels), len(classes)):
            raise ValueError(f"probabilities of {len(classes)} classes are needed for {len(labels)} images")
        own = probabilities[np.arange(len(labels)), labels]
        # Every comparison with NaN is false, so that this drops NaN too.
        reasons[~(own >= settings.min_class_probability)] = UNLIKELY
    mask = reasons == ""
    sets = {"made": labels}
    for reason in (UNLIKELY, NEAR_COPY):
        sets[reason] = labels[reasons == reason]
    sets["kept"] = labels[mask]
    counts = pd.DataFrame(
        {column: np.bincount(members, minlength=len(classes)) for column, members in sets.items()},
        index=pd.Index(classes, name="class"),
    )
    return Kept(mask, reasons.astype(str), counts)


def copies(pixels: Rows, training: Rows, near: NearDuplicateSettings) -> np.ndarray:
    """(n,) bool: which of (n, S, S) ``pixels`` show the same picture as one of (m, T, T) ``training``."""
    found = np.zeros(len(pixels), bool)
    if not len(training):
        return found
    known_hashes, known = fingerprints(training)
    hashes, thumbnails = fingerprints(pixels)
    found[altered(thumbnails, near, known)[:, 0]] = True
    found[encoded_again_among(hashes, thumbnails, known_hashes, known, near)[:, 0]] = True
    return found


def repeated(pixels: np.ndarray, labels: np.ndarray, near: NearDuplicateSettings) -> np.ndarray:
    """(n,) bool: which images show the same picture as another one of their class, or are the same pixel by pixel.

    The more images there are, the more are repeated: shares compare only between sets of one size.

    Args:
        pixels: (n, S, S) uint8.
        labels: (n,) classes.
        near: When two images are one picture.
    """
    found = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        # A blank image has no details to correlate, so identical images are sought apart.
        flat = pixels[rows].reshape(len(rows), -1)
        _, group, sizes = np.unique(flat, axis=0, return_inverse=True, return_counts=True)
        found[rows] = sizes[group] > 1
        pairs = near_duplicates(*fingerprints(pixels[rows]), near)
        found[rows[np.unique(pairs)]] = True
    return found


def fingerprints(pixels: Rows) -> tuple[np.ndarray, np.ndarray]:
    """(n, S, S) uint8 → (n,) uint64 hashes and (n, 32, 32) uint8 thumbnails, as ``data.decode`` makes them."""
    side = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    hashes, thumbnails = np.empty(len(pixels), np.uint64), on_disk((len(pixels), *side), np.uint8)
    for n, image in enumerate(pixels):
        thumbnail = Image.fromarray(image).resize(side, Image.Resampling.BILINEAR, reducing_gap=2.0)
        hashes[n], thumbnails[n] = difference_hash(thumbnail), np.asarray(thumbnail)
    return hashes, thumbnails
