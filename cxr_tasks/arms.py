"""The arms: what a classifier's training set is made of. Two switches, classical × synthetic, and two controls.

The controls tell what the synthetic images do from what any further images would do. Each adds as many images of
each class as the synthetic set is asked for: real images over again, or real images at the GAN's resolution, which
makes them as soft as generated images. How each kind of extra images is made is in ``classifiers.training_set``.
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
