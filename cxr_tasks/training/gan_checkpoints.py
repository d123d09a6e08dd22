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
from cxr_tasks.training.gan_step import CovidGan

log = logging.getLogger(__name__)

DAMAGE = (
    *(tf.errors.OpError, OSError, EOFError, ValueError, IndexError, KeyError, AssertionError),
    zipfile.BadZipFile,
)


class Checkpoints:
    """The last few checkpoints in a folder, with the history, the sample grids and the time up to each.

    ``history``: a row an epoch. ``grids``: step → (n, S, S) uint8. ``seconds``: time spent training.
    """

    def __init__(self, gan: CovidGan, folder: Path, keep: int) -> None:
        self.gan, self.folder = gan, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.manager = tf.train.CheckpointManager(
            tf.train.Checkpoint(state=gan.state()), str(folder), max_to_keep=keep, step_counter=gan.step_number
        )
        self.history: list[dict[str, Any]] = []
        self.grids: dict[int, np.ndarray] = {}
        self.seconds = 0.0

    def restore(self, *, must_resume: bool = False) -> int:
        """Restore the newest checkpoint that is whole; 0 if there is none. Returns the step it stands at.

        Raises:
            UserError: there are checkpoints and none is whole, or ``must_resume`` and there are none.
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
        """Write a checkpoint. What belongs to it is written first, so that a listed one is complete."""
        step = int(self.gan.step_number)
        path = self.folder / f"ckpt-{step}"
        np.savez(f"{path}.npz", allow_pickle=False, **{str(at): grid for at, grid in self.grids.items()})
        progress = {"history": self.history, "seconds": self.seconds}
        Path(f"{path}.json").write_text(json.dumps(progress), encoding="utf-8")
        self.manager.save(checkpoint_number=step)
        kept = {Path(checkpoint).name for checkpoint in self.manager.checkpoints}
        for extra in (*self.folder.glob("ckpt-*.json"), *self.folder.glob("ckpt-*.npz")):
            if extra.stem not in kept:
                extra.unlink()
