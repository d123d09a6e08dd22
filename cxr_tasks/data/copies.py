"""Which images that others have made show a picture of one's own: the same file, a near-duplicate, or an altered copy.

A copy of a training image adds nothing. A copy of a held-out image in a training set makes the test worthless.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from cxr_tasks.config import NearDuplicateSettings
from cxr_tasks.data.duplicates import altered, encoded_again_among
from cxr_tasks.data.given import SACRED, TEST, VALIDATION

HELD_OUT = (TEST, VALIDATION)
SAME_FILE, NEAR_DUPLICATE, ALTERED = "the same file", "a near-duplicate", "an altered copy"
# The surest evidence first.
_EVIDENCE = {SAME_FILE: 0, NEAR_DUPLICATE: 1, ALTERED: 2}
COPY_COLUMNS = ["image_id", "path", "label", "copy", "split", "real_id", "real_path"]
SHOWN_COPIES = 3


def copies_of_real(
    made: pd.DataFrame,
    made_thumbnails: np.ndarray,
    real: pd.DataFrame,
    real_thumbnails: np.ndarray,
    near: NearDuplicateSettings,
) -> pd.DataFrame:
    """Find the copies.

    Args:
        made: The images that others have made: ``image_id`` (SHA-256 of the file), ``path``, ``label`` and ``dhash``
            (16 hexadecimal digits).
        made_thumbnails: (n, 32, 32) uint8.
        real: Rows of a manifest, with their ``split``.
        real_thumbnails: (m, 32, 32) uint8.
        near: When two images are one picture.

    Returns:
        A row a copy with ``COPY_COLUMNS``, in the order of ``made``: ``copy`` says how it is one, ``split`` and
        ``real_id`` of which real image. Of several, the one counts that the test rests on.
    """
    same = pd.DataFrame({"image_id": made["image_id"].to_numpy()}).reset_index(names="made")
    known = pd.DataFrame({"image_id": real["image_id"].to_numpy()}).reset_index(names="real")
    found = [same.merge(known, on="image_id")[["made", "real"]].assign(copy=SAME_FILE)]
    again = encoded_again_among(_hash_numbers(made), made_thumbnails, _hash_numbers(real), real_thumbnails, near)
    for how, pairs in ((NEAR_DUPLICATE, again), (ALTERED, altered(made_thumbnails, near, real_thumbnails))):
        found.append(pd.DataFrame({"made": pairs[:, 0], "real": pairs[:, 1], "copy": how}))
    both = pd.concat(found, ignore_index=True)
    copied, shown = made.iloc[both["made"]], real.iloc[both["real"]]
    table = pd.DataFrame(
        {
            "made": both["made"],
            "copy": both["copy"],
            **{name: copied[name].to_numpy() for name in ("image_id", "path", "label")},
            "split": shown["split"].to_numpy(),
            "real_id": shown["image_id"].to_numpy(),
            "real_path": shown["path"].to_numpy(),
        }
    )
    order = table.assign(split=table["split"].map(SACRED), copy=table["copy"].map(_EVIDENCE))
    table = table.loc[order.sort_values(["made", "split", "copy", "real_id"]).index]
    return table.drop_duplicates("made")[COPY_COLUMNS].reset_index(drop=True)


def count_copies(copies: pd.DataFrame) -> dict[str, int]:
    """How many copies there are of images of each split; splits without any are left out."""
    counts = copies["split"].value_counts()
    return {split: int(counts[split]) for split in sorted(counts.index, key=SACRED.__getitem__)}


def copies_in_words(copies: pd.DataFrame, images: int) -> list[str]:
    """A sentence on copies of each split, with some of them by name.

    Args:
        copies: As :func:`copies_of_real` gives them.
        images: How many images there are in all.
    """
    told = []
    for split, number in count_copies(copies).items():
        rows = copies[copies["split"] == split]
        named = " and ".join(
            f"{row.path} ({row.copy} of {row.real_path})" for row in rows.head(SHOWN_COPIES).itertuples()
        )
        what = f"{number:,} of {images:,} synthetic images copy real {split} images, for example {named}"
        if split in HELD_OUT:
            what += (
                f". They are left out. Whatever made them has seen {split} images, so that the others may tell of them "
                "too: figures of arms with synthetic images may be too good"
            )
        told.append(what)
    return told


def are_held_out(images: pd.DataFrame, copies: pd.DataFrame) -> np.ndarray:
    """(n,) bool: which of ``images`` copy a validation or test image."""
    return _are_copies(images, copies[copies["split"].isin(HELD_OUT)])


def are_training(images: pd.DataFrame, copies: pd.DataFrame) -> np.ndarray:
    """(n,) bool: which of ``images`` copy a training image."""
    return _are_copies(images, copies[~copies["split"].isin(HELD_OUT)])


def _are_copies(images: pd.DataFrame, copies: pd.DataFrame) -> np.ndarray:
    return images["image_id"].isin(copies["image_id"]).to_numpy(bool)


def _hash_numbers(images: pd.DataFrame) -> np.ndarray:
    return np.array([int(value, 16) for value in images["dhash"]], np.uint64)
