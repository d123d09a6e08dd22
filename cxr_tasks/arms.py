"""The arms: what a classifier's training set is made of. Two switches, classical × synthetic, and controls.

The controls tell what the synthetic images do from what any further images would do. Each adds as many images of
each class as the synthetic set has: real images over again, or real images at the GAN's resolution, which makes them
as soft as generated images. Where the counts of real and synthetic training sets were matched, a gain of synthetic
images has been seen to go away (Pink and Sykes 2026). How each kind of extra images is made is in
``classifiers.training_set``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Extra = Literal["synthetic", "oversample", "real_resized"]


@dataclass(frozen=True)
class Arm:
    """What one arm trains on.

    Attributes:
        classical: Whether training images are augmented.
        extra: What joins the real training images.
        meaning: The training set in a few words.
        treatment: What adding ``extra`` is called in a sentence; empty where nothing is added.
    """

    classical: bool
    extra: Extra | None
    meaning: str
    treatment: str = ""


ARMS: dict[str, Arm] = {
    "none": Arm(False, None, "real images as they are"),
    "classical": Arm(True, None, "real images, augmented classically"),
    "synthetic": Arm(False, "synthetic", "real and synthetic images", "synthetic augmentation"),
    "both": Arm(True, "synthetic", "real and synthetic images, augmented classically", "synthetic augmentation"),
    "oversample": Arm(False, "oversample", "real images, some of them over again", "showing real images over again"),
    "oversample_classical": Arm(
        True,
        "oversample",
        "real images, some of them over again, augmented classically",
        "showing real images over again",
    ),
    "real_resized": Arm(
        False,
        "real_resized",
        "real images, some of them again at the GAN's resolution",
        "adding real images at the GAN's resolution",
    ),
}


def needs_synthetic(arm: str) -> bool:
    """Whether the arm trains with synthetic images."""
    return ARMS[arm].extra == "synthetic"


def is_control(arm: str) -> bool:
    """Whether the arm adds images that are not new: it is held against others, and is no treatment of its own."""
    return arm in ARMS and ARMS[arm].extra in ("oversample", "real_resized")


def control_of(arm: str) -> str | None:
    """The control that shows as many real images again as ``arm`` shows synthetic ones, and differs in nothing else."""
    of = ARMS[arm]
    if of.extra != "synthetic":
        return None
    return next(
        (name for name, other in ARMS.items() if other.extra == "oversample" and other.classical == of.classical), None
    )
