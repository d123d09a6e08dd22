"""A training of the GAN in a process or a thread of its own; the training itself only waits."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr_tasks import steps
from cxr_tasks.gan import training
from cxr_tasks.gan.watch import GRID_PER_CLASS
from tests.steps import handles


class SlowFit:
    """Stands for ``fit_gan``: two sections with a checkpoint after each, and a line in a file for each.

    Attributes:
        told: The file. Its lines are ``begin``, ``end`` and the names of the checkpoints that were found.
        linger: Called after the first checkpoint.
    """

    def __init__(self, networks: Any, told: Path, linger: Callable[[], object]) -> None:
        self.networks, self.told, self.linger = networks, told, linger

    def tell(self, words: str) -> None:
        with self.told.open("a") as lines:
            lines.write(f"{words}\n")

    def __call__(
        self, pixels: Any, labels: Any, classes: int, settings: Any, seed: int, checkpoints: Path, **hooks: Any
    ) -> Any:
        found = sorted(path.name for path in checkpoints.glob("ckpt-*.index"))
        self.tell(" ".join(["begin", *found]))
        for number in (1, 2):
            if f"ckpt-{number}.index" not in found:
                (checkpoints / f"ckpt-{number}.index").touch()
                hooks["on_checkpoint"]()
                self.linger()
        self.tell("end")
        return training.FittedGan(
            gan=self.networks,
            generator=self.networks.generator,
            history=pd.DataFrame({"epoch": [1], "step": [4], "g_loss": [2.0]}),
            grids={1: np.zeros((classes * GRID_PER_CLASS, 32, 32), np.uint8)},
            resumed_from=4 * len(found),
            steps=8,
            total_steps=8,
            finished=True,
            hours=0.1,
            checkpoints=checkpoints,
        )


def train_in_a_process(name: str, told: str, seconds: float, pipe: Any) -> None:
    """Train as the run ``name``, lingering so long at each checkpoint; sends ``ready``, waits, and sends the handle."""
    from cxr_tasks.config import resolve
    from cxr_tasks.gan.step import CovidGan

    networks = CovidGan(resolve("quick", handles.SMALL).gan, len(handles.CLASSES), seed=0)
    training.fit_gan = SlowFit(networks, Path(told), lambda: time.sleep(seconds))  # type: ignore[assignment]
    run = handles.begin().model_copy(update={"dag_run": name})
    dataset = handles.dataset()
    pipe.send(("ready", os.getpid()))
    pipe.recv()
    pipe.send(steps.train_gan(run, dataset).model_dump(mode="json"))
