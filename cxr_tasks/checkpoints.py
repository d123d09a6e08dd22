"""Checkpoints of a training in a folder: every variable that the next step depends on, and what was recorded so far.

The GAN and the classifiers keep theirs this way. A checkpoint that is damaged, or whose numbers are not finite, is
skipped for the one before.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from cxr_tasks.errors import in_one_line

log = logging.getLogger(__name__)

# What reading a damaged checkpoint raises.
DAMAGE = (
    tf.errors.OpError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    AssertionError,
    zipfile.BadZipFile,
)
# ``ckpt-12.index``, ``ckpt-12.data-00000-of-00001``, ``ckpt-12.json``, ``ckpt-12.npz``, and what a kill leaves of them.
CHECKPOINT_FILE = re.compile(r"ckpt-(\d+)(\D.*)?")


@dataclass(frozen=True)
class Restored:
    """What lies beside the variables of a checkpoint. ``number``: its step. ``record``: JSON. ``arrays``: by name."""

    number: int
    record: dict[str, Any]
    arrays: dict[str, np.ndarray]


class CheckpointFolder:
    """The last few checkpoints of one training."""

    def __init__(self, state: Sequence[tf.Variable], folder: Path, keep: int) -> None:
        """Look into ``folder``, and restore nothing yet.

        Args:
            state: The variables that are saved and restored.
            folder: Made where it does not exist.
            keep: How many checkpoints stay; older ones are deleted.
        """
        self.state, self.folder = list(state), folder
        folder.mkdir(parents=True, exist_ok=True)
        if _list_in(folder) is None:
            # An empty one would be an error.
            (folder / "checkpoint").unlink(missing_ok=True)
        self.manager = tf.train.CheckpointManager(tf.train.Checkpoint(state=self.state), str(folder), max_to_keep=keep)

    def numbers(self) -> list[int]:
        """The steps of the checkpoints, ascending."""
        return checkpoint_numbers(self.folder)

    def restore(self) -> Restored | None:
        """Restore the newest checkpoint that is whole and finite; ``None`` where there is no such checkpoint.

        Where ``None`` comes back, the variables may hold anything.
        """
        for number in reversed(self.numbers()):
            path = self.folder / f"ckpt-{number}"
            try:
                record = json.loads(path.with_name(f"{path.name}.json").read_text(encoding="utf-8"))
                with np.load(path.with_name(f"{path.name}.npz")) as archive:
                    arrays = {name: archive[name] for name in archive.files}
                self.manager.checkpoint.restore(str(path)).assert_consumed()
            except DAMAGE as error:
                log.warning("Checkpoint %s is damaged (%s): trying the one before", path, in_one_line(error))
                continue
            if all_finite(self.state):
                return Restored(number, record, arrays)
            log.warning("Checkpoint %s is damaged (its numbers are not all finite): trying the one before", path)
        return None

    def save(self, number: int, record: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Write a checkpoint. The files that belong to a checkpoint are written first: a listed one is complete."""
        path = self.folder / f"ckpt-{number}"
        np.savez(f"{path}.npz", allow_pickle=False, **arrays)
        Path(f"{path}.json").write_text(json.dumps(record), encoding="utf-8")
        self.manager.save(checkpoint_number=number)
        kept = {Path(checkpoint).name for checkpoint in self.manager.checkpoints}
        for left in self.folder.iterdir():
            named = CHECKPOINT_FILE.fullmatch(left.name)
            if named and f"ckpt-{named[1]}" not in kept:
                shutil.rmtree(left) if left.is_dir() else left.unlink()


def checkpoint_numbers(folder: Path) -> list[int]:
    """The steps of the checkpoints in ``folder``, ascending.

    A checkpoint counts from the moment when it is listed. Where the list itself was lost, its files speak for it.
    """
    listed = _list_in(folder)
    paths = list(listed.all_model_checkpoint_paths) if listed else [path.stem for path in folder.glob("ckpt-*.index")]
    named = (CHECKPOINT_FILE.fullmatch(Path(path).name) for path in paths)
    return sorted({int(found[1]) for found in named if found})


def _list_in(folder: Path) -> Any:
    """TensorFlow's list of the checkpoints in ``folder``; ``None`` where there is none, or it cannot be read."""
    try:
        return tf.train.get_checkpoint_state(str(folder))
    except ValueError:
        return None


def files_of_checkpoint(folder: Path, number: int) -> list[Path]:
    """The files of one checkpoint, without the list of all checkpoints."""
    named = ((path, CHECKPOINT_FILE.fullmatch(path.name)) for path in sorted(folder.iterdir()) if path.is_file())
    return [path for path, found in named if found and int(found[1]) == number]


def all_finite(variables: Sequence[tf.Variable]) -> bool:
    """Whether no number in ``variables`` is NaN or infinite; looked up where the variables lie."""
    values = (tf.convert_to_tensor(variable) for variable in variables)
    found = [tf.reduce_all(tf.math.is_finite(value)) for value in values if value.dtype.is_floating]
    return bool(tf.reduce_all(found)) if found else True
