"""Which of the synthetic images that others have made are judged, and which join a training set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from cxr_tasks.config import SyntheticSettings
from cxr_tasks.data.copies import are_held_out, are_training
from cxr_tasks.gan.filtering import NEAR_COPY
from cxr_tasks.gan.measuring import SMALLEST_SAMPLE
from cxr_tasks.randomness import image_key, keyed

HELD_OUT_COPY = "copy of a validation or test image"


def drawn_rows(table: pd.DataFrame, numbers: Mapping[str, int], seed: int, purpose: str) -> pd.DataFrame:
    """So many rows of each class, or all where there are not as many, class by class.

    An image is drawn by its content: whatever else is there, and in whatever order, it has the same rank among the
    images of its class.

    Args:
        table: ``image_id`` and ``label``.
        numbers: Images of each class.
        seed: Of the draw.
        purpose: Keys the draw with ``seed``.
    """
    chosen = [table.iloc[:0]]
    for label, number in numbers.items():
        members = table[table["label"] == label]
        ranks = [keyed(seed, purpose, image_key(each)).random() for each in members["image_id"]]
        chosen.append(members.iloc[np.argsort(ranks, kind="stable")[:number]])
    return pd.concat(chosen).reset_index(drop=True)


def judged_rows(table: pd.DataFrame, copies: pd.DataFrame, number: int, seed: int) -> pd.DataFrame:
    """At most ``number`` images of each class that can be judged, without copies of validation and test images.

    Of fewer images than the judge needs nothing can be said, and they would leave it too few to compare in all.

    Args:
        table: All imported images: ``image_id`` and ``label``.
        copies: Those that copy real images, as ``data.copies`` finds them.
        number: Images of each class.
        seed: Of the draw.
    """
    may = table[~are_held_out(table, copies)]
    there = may["label"].value_counts()
    enough = sorted(there.index[there >= SMALLEST_SAMPLE])
    return drawn_rows(may, dict.fromkeys(enough, number), seed, "judged")


def choose_set(
    table: pd.DataFrame, copies: pd.DataFrame, counts: Mapping[str, int], settings: SyntheticSettings, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The images of a synthetic set.

    Copies of validation and test images never join one. Copies of training images do where
    ``synthetic.drop_near_copies`` is off.

    Args:
        table: All imported images: ``image_id`` and ``label``.
        copies: Those that copy real images, as ``data.copies`` finds them.
        counts: Images of each class that are asked for, in the order of the classes.
        settings: What to drop.
        seed: Of the draw.

    Returns:
        The rows that were drawn; and for each class with the columns ``asked``, ``there``, one for each reason to
        leave images out, and ``kept``, the numbers of images.
    """
    reasons = np.full(len(table), "", dtype=object)
    if settings.drop_near_copies:
        reasons[are_training(table, copies)] = NEAR_COPY
    reasons[are_held_out(table, copies)] = HELD_OUT_COPY
    kept = drawn_rows(table[reasons == ""], counts, seed, "synthetic set")
    columns = {"there": table["label"]}
    columns |= {reason: table["label"][reasons == reason] for reason in (HELD_OUT_COPY, NEAR_COPY)}
    columns["kept"] = kept["label"]
    told = pd.DataFrame(
        {"asked": pd.Series(counts)}
        | {name: labels.value_counts().reindex(list(counts), fill_value=0) for name, labels in columns.items()},
        index=pd.Index(list(counts), name="class"),
    )
    return kept, told.astype(int)


def too_few_left(table: pd.DataFrame, copies: pd.DataFrame, classes: Sequence[str]) -> list[str]:
    """A sentence for each class of which too few images are left to be judged without copies of held-out images."""
    held_out, told = are_held_out(table, copies), []
    for label in classes:
        there, copied = int((table["label"] == label).sum()), int((table["label"][held_out] == label).sum())
        if copied and there - copied < SMALLEST_SAMPLE:
            told.append(
                f"{label}: {copied:,} of {there:,} copy validation or test images; of the others at least "
                f"{SMALLEST_SAMPLE} are needed."
            )
    return told
