"""Trains a head from its last checkpoint to its last epoch, and goes back where its numbers are no longer finite."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from cxr_tasks.checkpoints import CheckpointFolder, Restored, all_finite
from cxr_tasks.config import ClassifierSettings
from cxr_tasks.data.stacks import Rows
from cxr_tasks.errors import UserError
from cxr_tasks.setbacks import Setback, diverged, setback_told

log = logging.getLogger(__name__)

BEST, METRIC = "best", "metric"


class NumbersLost(Exception):
    """Numbers of a training are not finite. ``broken``: which ones, in words."""

    def __init__(self, broken: str) -> None:
        """Note what is broken."""
        super().__init__(broken)
        self.broken = broken


class EarlyStop(keras.callbacks.EarlyStopping):
    """Keras' early stopping, with a state that can be kept: what it knows outlives one call of ``fit``."""

    def __init__(self, patience: int) -> None:
        """Stop after so many epochs without a better validation loss."""
        super().__init__("val_loss", patience=patience, restore_best_weights=True)
        self.best_epoch = 0

    def on_train_begin(self, logs: Any = None) -> None:
        """Forget nothing."""

    def on_train_end(self, logs: Any = None) -> None:
        """Restore nothing: the training may go on."""

    def state(self) -> dict[str, Any]:
        """What it knows besides the best weights."""
        return {"wait": self.wait, "best": self.best, "best_epoch": self.best_epoch}

    def load(self, state: dict[str, Any], best_weights: list[np.ndarray] | None) -> None:
        """Know what was known at a checkpoint."""
        self.wait, self.best, self.best_epoch = state["wait"], state["best"], state["best_epoch"]
        self.best_weights = best_weights


class HeldOut(keras.utils.PyDataset):
    """Images that a training is tested on, read batch by batch: Keras would hold an array of them twice."""

    def __init__(self, seen: Rows, truth: np.ndarray, batch_size: int) -> None:
        """What the head sees of the images, their one-hot classes, and images in a batch."""
        super().__init__()
        self.seen, self.truth, self.batch_size = seen, truth, batch_size

    def __len__(self) -> int:
        """The number of batches."""
        return -(-len(self.truth) // self.batch_size)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """A batch."""
        batch = slice(number * self.batch_size, (number + 1) * self.batch_size)
        return self.seen[batch], self.truth[batch]


class Sitting(keras.callbacks.Callback):
    """One training of a compiled head.

    Attributes:
        rows: The history, a row an epoch.
        step: Optimiser steps that were taken.
        setbacks: The times that numbers were not finite.
    """

    def __init__(
        self,
        name: str,
        head: keras.Model,
        settings: ClassifierSettings,
        steps: int,
        checkpoints: Path | None,
        on_checkpoint: Callable[[], None],
        on_epoch: Callable[[int, dict[str, float]], None],
    ) -> None:
        """Note the head with its first weights, and restore nothing yet.

        Args:
            name: Of the classifier.
            head: What is trained.
            settings: How classifiers are trained.
            steps: Optimiser steps an epoch.
            checkpoints: Folder of the checkpoints; ``None`` keeps none.
            on_checkpoint: Called after a checkpoint is written.
            on_epoch: Called with the epoch's number from 1 and its losses and accuracies.
        """
        super().__init__()
        self.name, self.head, self.settings, self.steps = f"The classifier {name}", head, settings, steps
        self.on_checkpoint, self.on_epoch = on_checkpoint, on_epoch
        head.optimizer.build(head.trainable_variables)
        metrics = {id(variable) for variable in head.metrics_variables}
        variables = [variable for variable in head.variables if id(variable) not in metrics]
        self.state = [variable.value for variable in (*variables, *head.optimizer.variables)]
        self._first = [np.array(variable) for variable in self.state]
        self.stop = EarlyStop(settings.patience)
        self.stop.set_model(head)
        self.rows: list[dict[str, float]] = []
        self.setbacks: list[Setback] = []
        self.step, self.stopped = 0, False
        self._metrics: list[np.ndarray] = []
        self._fault: UserError | None = None
        self._saved = time.monotonic()
        self.kept = None
        if checkpoints is not None:
            self.kept = CheckpointFolder(self.state, checkpoints, settings.keep_checkpoints)

    def train(
        self,
        batches: Callable[[int, int], Iterator[Any]],
        validation: tuple[Rows, np.ndarray],
        validation_batch: int,
    ) -> None:
        """Train to the end, and leave the weights of the best epoch.

        Args:
            batches: The number of the first batch, and how often the training went back → batches without end.
            validation: What the head sees of the validation images, and their one-hot classes.
            validation_batch: Images in a batch of validation.

        Raises:
            UserError: Numbers are not finite after ``settings.setbacks`` times of going back.
        """
        self._restore()
        if self.step:
            log.info("%s goes on from its checkpoint of step %d", self.name, self.step)
        if self._metrics:
            # Keras makes the variables of its metrics at the first batch.
            self.head.evaluate(*(part[:1] for part in validation), verbose=0)
        held_out = HeldOut(*validation, validation_batch)
        while not self.stopped and self.step < self.settings.epochs * self.steps:
            epoch, batch = divmod(self.step, self.steps)
            try:
                self.head.fit(
                    self._noting_faults(batches(self.step, len(self.setbacks))),
                    # What is left of an epoch is a call of its own.
                    steps_per_epoch=self.steps - batch,
                    initial_epoch=epoch,
                    epochs=epoch + 1 if batch else self.settings.epochs,
                    validation_data=held_out,
                    callbacks=[self],
                    shuffle=False,
                    verbose=0,
                )
            except NumbersLost as lost:
                self._go_back(lost.broken)
            except tf.errors.OpError:
                # TensorFlow puts what a generator raises into an error of its own, which would be tried again.
                if self._fault is None:
                    raise
                raise self._fault from None
        self.head.set_weights(self.stop.best_weights)

    def _noting_faults(self, batches: Iterator[Any]) -> Iterator[Any]:
        try:
            yield from batches
        except UserError as fault:
            self._fault = fault
            raise

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """In the middle of an epoch its means go on from those of the checkpoint."""
        for variable, value in zip(self.head.metrics_variables if self._metrics else [], self._metrics, strict=True):
            variable.assign(value)
        self._metrics = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Count the step, look at the loss, and keep a checkpoint where one is due."""
        self.step += 1
        if not np.isfinite(logs["loss"]):
            raise NumbersLost("loss values")
        # The end of an epoch has a checkpoint of its own, with the validation.
        if self.step % self.steps and self._is_checkpoint_due():
            self._keep()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Note the epoch, stop where patience is at its end, and keep a checkpoint where one is due."""
        found = {name: float(value) for name, value in logs.items()}
        if not np.isfinite(list(found.values())).all():
            raise NumbersLost("loss values")
        if not all_finite(self.state):
            raise NumbersLost("weights, or what the optimiser keeps of them,")
        self.stop.on_epoch_end(epoch, found)
        self.stopped = self.head.stop_training
        self.rows.append({"epoch": epoch + 1, **found})
        self.on_epoch(epoch + 1, found)
        if self._is_checkpoint_due():
            self._keep()

    def _is_checkpoint_due(self) -> bool:
        return self.kept is not None and time.monotonic() - self._saved >= self.settings.checkpoint_seconds

    def _keep(self) -> None:
        """Write a checkpoint, of finite numbers only."""
        assert self.kept is not None  # else none is due
        if not all_finite(self.state):
            raise NumbersLost("weights, or what the optimiser keeps of them,")
        arrays = {f"{BEST} {n}": weights for n, weights in enumerate(self.stop.best_weights or [])}
        if self.step % self.steps:
            arrays |= {f"{METRIC} {n}": np.array(value) for n, value in enumerate(self.head.metrics_variables)}
        record = {"rows": self.rows, "stop": self.stop.state(), "stopped": self.stopped, "setbacks": self.setbacks}
        self.kept.save(self.step, record, arrays)
        self.on_checkpoint()
        self._saved = time.monotonic()

    def _restore(self) -> None:
        """Stand where the newest usable checkpoint stands, or at the beginning."""
        found = self.kept.restore() if self.kept is not None else None
        if found is None:
            found = Restored(0, {"rows": [], "stop": EarlyStop(1).state(), "stopped": False, "setbacks": []}, {})
            for variable, first in zip(self.state, self._first, strict=True):
                variable.assign(first)
        self.stop.load(found.record["stop"], _numbered(found, BEST) or None)
        self._metrics = _numbered(found, METRIC)
        self.step, self.stopped = found.number, found.record["stopped"]
        self.rows, self.setbacks = found.record["rows"], found.record["setbacks"]

    def _go_back(self, broken: str) -> None:
        """Go back to the newest checkpoint, or to the first weights, and shuffle otherwise from there on.

        Raises:
            UserError: The training went back as often as it may.
        """
        at, setbacks = self.step, self.setbacks
        if len(setbacks) >= self.settings.setbacks:
            place = f"step {at:,} (epoch {max(0, at - 1) // self.steps + 1})"
            raise diverged(self.name, broken, place, setbacks, "lower classifiers.learning_rate.")
        self._restore()
        self.setbacks = [*setbacks, {"at": at, "back_to": self.step}]
        log.warning(setback_told(self.name, self.setbacks[-1]))


def _numbered(kept: Restored, name: str) -> list[np.ndarray]:
    """The arrays that are called ``name`` and a number, in their order."""
    return [kept.arrays[f"{name} {n}"] for n in range(sum(key.startswith(f"{name} ") for key in kept.arrays))]
