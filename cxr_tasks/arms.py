"""The arms: what a classifier's training set is made of. Two switches, classical × synthetic, and two controls.

The controls tell what the synthetic images do from what any further images would do. Each adds as many images of
each class as the synthetic set is asked for: real ones over again, or real ones taken down to the GAN's size and up
again, which makes them as soft as generated ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

ArmName = Literal["none", "classical", "synthetic", "both", "oversample", "real_resized"]
Extra = Literal["synthetic", "oversample", "real_resized"]


@dataclass(frozen=True)
class Arm:
    """``classical``: whether training images are augmented. ``extra``: what joins them. ``meaning``: in a few words."""

    classical: bool
    extra: Extra | None
    meaning: str


ARMS: dict[ArmName, Arm] = {
    "none": Arm(False, None, "real images as they are"),
    "classical": Arm(True, None, "real images, augmented classically"),
    "synthetic": Arm(False, "synthetic", "real and synthetic images"),
    "both": Arm(True, "synthetic", "real and synthetic images, augmented classically"),
    "oversample": Arm(False, "oversample", "real images, some of them over again"),
    "real_resized": Arm(False, "real_resized", "real images, some of them again at the GAN's resolution"),
}
ARM_NAMES: tuple[ArmName, ...] = get_args(ArmName)


def needs_synthetic(arm: str) -> bool:
    """Whether the arm trains with synthetic images."""
    return ARMS[arm].extra == "synthetic"  # type: ignore[index]
