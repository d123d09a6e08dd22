"""Checkpoints of a CovidGAN training: everything the next step depends on, and what was recorded up to it."""

from __future__ import annotations

import json
import logging
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from cxr_tasks.errors import UserError
from cxr_tasks.gan.step import CovidGan

log = logging.getLogger(__name__)

# What reading a damaged checkpoint raises.
DAMAGE = (
    tf.errors.OpError,
    OSError,
    EOFError,
    ValueError,
    IndexError,
    KeyError,
    AssertionError,
    zipfile.BadZipFile,
)


class Checkpoints:
    """The last few checkpoints in a folder, with what was recorded up to each.

    Attributes:
        history: A row an epoch.
        grids: Step → (n, S, S) uint8, a grid of sample images.
        seconds: Time spent training.
    """

    def __init__(self, gan: CovidGan, folder: Path, keep: int) -> None:
        """Look into ``folder``, and restore nothing yet.

        Args:
            gan: Its state is saved and restored.
            folder: Made where it does not exist.
            keep: How many checkpoints stay; older ones are deleted.
        """
        self.gan, self.folder = gan, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.manager = tf.train.CheckpointManager(
            tf.train.Checkpoint(state=gan.state()), str(folder), max_to_keep=keep, step_counter=gan.step_number
        )
        self.history: list[dict[str, Any]] = []
        self.grids: dict[int, np.ndarray] = {}
        self.seconds = 0.0

    def restore(self, *, must_resume: bool = False) -> int:
        """Restore the newest checkpoint that is whole.

        Returns:
            The step that the checkpoint stands at; 0 if the folder holds no checkpoint.

        Raises:
            UserError: There are checkpoints and none is whole, or ``must_resume`` is set and there are none.
        """
        for path in reversed(self.manager.checkpoints):
            try:
                progress = json.loads(Path(f"{path}.json").read_text(encoding="utf-8"))
                with np.load(f"{path}.npz") as grids:
                    self.grids = {int(name): grids[name] for name in grids.files}
                self.history, self.seconds = progress["history"], progress["seconds"]
                self.manager.checkpoint.restore(path).assert_consumed()
            except DAMAGE as error:
                log.warning("Checkpoint %s is damaged (%s): trying the one before", path, error)
                continue
            return int(self.gan.step_number)
        if self.manager.checkpoints:
            raise UserError(
                f"None of the {len(self.manager.checkpoints)} checkpoints in {self.folder} is usable: "
                "remove that folder to start the training afresh."
            )
        if must_resume:
            raise UserError(
                f"The GAN was to go on from a checkpoint and {self.folder} holds none: "
                "bring the checkpoint back, or start the training without asking to resume."
            )
        return 0

    def save(self) -> None:
        """Write a checkpoint. The files that belong to a checkpoint are written first: a listed one is complete."""
        step = int(self.gan.step_number)
        path = self.folder / f"ckpt-{step}"
        grids = {str(at): grid for at, grid in self.grids.items()}
        np.savez(f"{path}.npz", allow_pickle=False, **grids)
        progress = {"history": self.history, "seconds": self.seconds}
        Path(f"{path}.json").write_text(json.dumps(progress), encoding="utf-8")
        self.manager.save(checkpoint_number=step)
        kept = {Path(checkpoint).name for checkpoint in self.manager.checkpoints}
        for extra in (*self.folder.glob("ckpt-*.json"), *self.folder.glob("ckpt-*.npz")):
            if extra.stem not in kept:
                extra.unlink()
