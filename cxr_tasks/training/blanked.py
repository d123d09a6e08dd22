"""The test images of the shortcut probes: with the lungs blanked, and with everything else blanked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cxr_tasks.data.blanking import blank_background, blank_lungs
from cxr_tasks.data.dataset import Images, load_masks
from cxr_tasks.execution import StepResult

BLANKED = {"lungs": blank_lungs, "background": blank_background}


def blanked_images(dataset: StepResult, test: Images, train: Images) -> dict[str, tuple[Images, dict[str, Any]]]:
    """The test images, by what is blanked, each with words that say which pixels these are.

    What is blanked gets the mean gray of the training images, which tells nothing of the image at hand.
    """
    size, gray = test.pixels.shape[1], round(float(train.pixels.mean()))
    masks, _ = load_masks(dataset["ref"], "test", size)
    return {
        name: (replace(test, pixels=blank(test.pixels, masks, gray)), {"split": "test", "blanked": name, "gray": gray})
        for name, blank in BLANKED.items()
    }
