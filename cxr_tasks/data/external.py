"""Which images of an external set a model may have seen: those that leak from its training or validation images.

An image leaks where it is the same file, a near-duplicate or an altered copy of one, or of the same patient. So does
whatever belongs to one patient or one picture with such an image.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from cxr_tasks.config import NearDuplicateSettings
from cxr_tasks.data.copies import copies_of_real
from cxr_tasks.data.given import TRAIN, VALIDATION

SAME_PATIENT, TIED_TO_LEAK = "the same patient", "tied to an image that leaks"
LEAK_COLUMNS = ["image_id", "path", "label", "leak", "split", "known_path"]
SHOWN_LEAKS = 3


def seen_in_training(manifest: pd.DataFrame) -> pd.DataFrame:
    """The rows of a dataset's manifest whose images a training sees: training and validation."""
    return manifest[manifest["split"].isin([TRAIN, VALIDATION])].reset_index(drop=True)


def find_leaks(
    external: pd.DataFrame,
    external_thumbnails: np.ndarray,
    seen: pd.DataFrame,
    seen_thumbnails: np.ndarray,
    near: NearDuplicateSettings,
    *,
    own_patients: bool = False,
) -> pd.DataFrame:
    """Find the images of an external set that leak.

    Args:
        external: Rows of its manifest: ``image_id``, ``path``, ``label``, ``dhash``, ``patient`` and ``group``.
        external_thumbnails: (n, 32, 32) uint8.
        seen: Rows of the dataset's manifest, with their ``split``; see :func:`seen_in_training`.
        seen_thumbnails: (m, 32, 32) uint8.
        near: When two images are one picture.
        own_patients: Whether the set numbers its patients on its own, so that none of them is one of the dataset's.

    Returns:
        A row a leak with ``LEAK_COLUMNS``, each image once, by the surest evidence: ``leak`` says how it leaks,
        ``split`` and ``known_path`` from where.
    """
    copies = copies_of_real(external, external_thumbnails, seen, seen_thumbnails, near)
    found = copies.rename(columns={"copy": "leak", "real_path": "known_path"})[LEAK_COLUMNS]
    # Pseudonyms are of one key, so that a patient is called the same in every source of one store.
    patients = seen.reindex(columns=["patient", "split", "path"]).fillna("")
    patients = patients[(patients["patient"] != "") & (not own_patients)]
    patients = patients.drop_duplicates("patient").set_index("patient")
    known = external[external["patient"].isin(patients.index)]
    shared = known.assign(
        leak=SAME_PATIENT,
        split=known["patient"].map(patients["split"]),
        known_path=known["patient"].map(patients["path"]),
    )
    found = pd.concat([found, shared[LEAK_COLUMNS]], ignore_index=True)
    leaking = external[["image_id", "group"]].merge(found, on="image_id")
    origin = leaking.drop_duplicates("group").set_index("group")
    tied = external[external["group"].isin(origin.index)]
    tied = tied.assign(
        leak=TIED_TO_LEAK, split=tied["group"].map(origin["split"]), known_path=tied["group"].map(origin["known_path"])
    )
    found = pd.concat([found, tied[LEAK_COLUMNS]], ignore_index=True)
    return found.drop_duplicates("image_id").reset_index(drop=True)


def leaks_in_words(leaks: pd.DataFrame, images: int, name: str) -> list[str]:
    """A sentence on the leaks of an external set, with some of them by name; none where there are none.

    Args:
        leaks: As :func:`find_leaks` gives them.
        images: How many images the set has in all.
        name: Of the set.
    """
    if leaks.empty:
        return []
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in leaks["leak"].value_counts().items())
    named = " and ".join(f"{row.path} ({row.known_path})" for row in leaks.head(SHOWN_LEAKS).itertuples())
    return [
        f"{len(leaks):,} of {images:,} images of the external set {name} are left out, because training or validation "
        f"images of the model show them or their patients ({kinds}), for example {named}"
    ]
