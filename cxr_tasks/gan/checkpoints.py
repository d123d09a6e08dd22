"""Checkpoints of a CovidGAN training: its state, with the history, grids and setbacks up to there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cxr_tasks.checkpoints import CheckpointFolder
from cxr_tasks.errors import UserError
from cxr_tasks.gan.step import CovidGan
from cxr_tasks.setbacks import Setback


class Checkpoints:
    """The last few checkpoints in a folder, with what was recorded up to each.

    Attributes:
        history: A row an epoch.
        grids: Step → (n, S, S) uint8, a grid of sample images.
        seconds: Time spent training.
        setbacks: The times that numbers were not finite.
    """

    def __init__(self, gan: CovidGan, folder: Path, keep: int) -> None:
        """Look into ``folder``, and restore nothing yet.

        Args:
            gan: Its state is saved and restored.
            folder: Made where it does not exist.
            keep: How many checkpoints stay; older ones are deleted.
        """
        self.gan, self.folder = gan, folder
        self.kept = CheckpointFolder(gan.state(), folder, keep)
        self.history: list[dict[str, Any]] = []
        self.grids: dict[int, np.ndarray] = {}
        self.seconds = 0.0
        self.setbacks: list[Setback] = []

    def restore(self) -> int:
        """Restore the newest checkpoint that is whole and finite.

        Returns:
            The step that the checkpoint stands at; 0 if the folder holds no checkpoint, and nothing was changed.

        Raises:
            UserError: There are checkpoints and none is usable.
        """
        found = self.kept.restore()
        if found is not None:
            self.grids = {int(name): grid for name, grid in found.arrays.items()}
            self.history, self.seconds = found.record["history"], found.record["seconds"]
            self.setbacks = found.record["setbacks"]
            self.gan.take_detour(len(self.setbacks))
            return found.number
        if there := len(self.kept.numbers()):
            raise UserError(
                f"None of the {there} checkpoints in {self.folder} is usable: "
                "make train_gan anew, in the field Make anew of the form, to start the training afresh."
            )
        return 0

    def save(self) -> None:
        """Write a checkpoint of the state as it is now."""
        record = {"history": self.history, "seconds": self.seconds, "setbacks": self.setbacks}
        self.kept.save(int(self.gan.step_number), record, {str(at): grid for at, grid in self.grids.items()})
