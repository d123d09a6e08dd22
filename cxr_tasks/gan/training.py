"""Trains CovidGAN from its last checkpoint to its last epoch, or for as many hours as one sitting may take."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from cxr_tasks.checkpoints import all_finite, checkpoint_numbers
from cxr_tasks.config import GanSettings
from cxr_tasks.data.stacks import Rows
from cxr_tasks.durations import time_taken
from cxr_tasks.errors import UserError
from cxr_tasks.gan.checkpoints import Checkpoints
from cxr_tasks.gan.clock import Clock
from cxr_tasks.gan.device import TrainingImages
from cxr_tasks.gan.sampling import sample_images
from cxr_tasks.gan.step import CovidGan
from cxr_tasks.gan.watch import (
    COLLAPSED,
    GRID_PER_CLASS,
    diversity,
    real_spreads,
    thin_out,
)
from cxr_tasks.precision import gan_in_bfloat16
from cxr_tasks.randomness import keyed
from cxr_tasks.setbacks import diverged, setback_told

log = logging.getLogger(__name__)

# In earlier epochs generated images are alike because nothing is learned yet.
DIVERSITY_FROM_EPOCH = 3


@dataclass(frozen=True)
class FittedGan:
    """What a training leaves, or one sitting of a training.

    Attributes:
        gan: Both networks and their optimisers.
        generator: Makes the images: the averaged generator where ``settings.ema`` asks for one.
        history: A row an epoch.
        grids: Step → (classes · GRID_PER_CLASS, S, S) uint8 of fixed latents, classes in order.
        resumed_from: The step where this sitting began.
        steps: The step where the training stands.
        total_steps: The step where the training ends.
        finished: Whether the training is at its end. If not, the hours of this sitting are used up.
        hours: Spent training, over all sittings.
        setbacks: A sentence for each time that numbers were not finite and the training went back.
        checkpoints: The folder of the checkpoints; ``None`` where nothing says so.
    """

    gan: CovidGan
    generator: keras.Model
    history: pd.DataFrame
    grids: dict[int, np.ndarray]
    resumed_from: int
    steps: int
    total_steps: int
    finished: bool
    hours: float
    setbacks: tuple[str, ...] = ()
    checkpoints: Path | None = None


@dataclass(frozen=True)
class _Callbacks:
    """Whom a training tells of its events; see :func:`fit_gan`."""

    on_checkpoint: Callable[[], None]
    on_epoch: Callable[[int, dict[str, float]], None]
    on_grid: Callable[[int, np.ndarray], None]
    on_steps: Callable[[int, int], None]


def fit_gan(
    pixels: Rows,
    labels: np.ndarray,
    classes: int,
    settings: GanSettings,
    seed: int,
    checkpoints: Path,
    *,
    on_checkpoint: Callable[[], None] = lambda: None,
    on_epoch: Callable[[int, dict[str, float]], None] = lambda step, metrics: None,
    on_grid: Callable[[int, np.ndarray], None] = lambda step, grid: None,
    on_steps: Callable[[int, int], None] = lambda done, total: None,
    devices: list[str] | None = None,
) -> FittedGan:
    """Train for ``settings.epochs`` epochs, going on from the newest usable checkpoint in ``checkpoints``.

    ``settings.max_hours`` holds for one call. When the hours are used up, the training stops at a checkpoint. The next
    call goes on from there with its own hours.

    Nothing of a training depends on how many epochs it is to have. So a training of more epochs goes on from the
    checkpoints of a shorter one. Where ``checkpoints`` holds those of a longer one, a folder in it takes this one's.

    Where numbers are no longer finite, the training goes back to its newest checkpoint, or to its first weights. Random
    draws are keyed anew from there on, because the same draws would lead to the same numbers. No setting is changed.

    Args:
        pixels: (n, S, S) uint8, the real images of the training split and nothing else.
        labels: (n,) classes.
        classes: Number of classes.
        settings: Of the GAN.
        seed: Of first weights and of all draws.
        checkpoints: Folder of the checkpoints.
        on_checkpoint: Called after a checkpoint is written, so that it can be copied to safety.
        on_epoch: Called with the step number and metrics. After an epoch these are its mean losses, images a second
            and hours left. At a checkpoint they are ``diversity``, of the class that varies least (1: as real images
            do).
        on_grid: Called with the step number and a fixed grid of generated images.
        on_steps: Called after some steps with the steps that are done and the steps in total.
        devices: See :class:`CovidGan`.

    Raises:
        UserError: No checkpoint is usable; a batch cannot be divided among the devices; or numbers are not finite
            after ``settings.setbacks`` times of going back.
    """

    def new_gan() -> CovidGan:
        return CovidGan(settings, classes, seed, devices)

    gan = new_gan()
    if settings.batch_size % gan.replicas:
        raise UserError(
            f"A batch of {settings.batch_size} images cannot be divided among {gan.replicas} devices: make "
            "gan.batch_size a multiple of that, or switch gan.distribute off."
        )
    plan = _Plan.of(gan, len(pixels))
    if max(checkpoint_numbers(checkpoints), default=0) > plan.total:
        checkpoints = checkpoints / f"epochs-{settings.epochs}"
    keeper = Checkpoints(gan, checkpoints, settings.keep_checkpoints)
    if keeper.restore():
        log.info("Going on from the checkpoint of step %d", int(gan.step_number))
    callbacks = _Callbacks(on_checkpoint, on_epoch, on_grid, on_steps)
    return _Sitting(gan, new_gan, plan, keeper, pixels, labels, callbacks).train()


@dataclass(frozen=True)
class _Plan:
    """The length of a training. ``batch``: images a step. ``per_epoch`` and ``total``: steps."""

    batch: int
    per_epoch: int
    total: int

    @classmethod
    def of(cls, gan: CovidGan, images: int) -> _Plan:
        """The plan of ``gan``'s training on so many images."""
        # A batch is never cut short: batch statistics of a few images would disturb both networks.
        batch = min(gan.settings.batch_size, images) // gan.replicas * gan.replicas
        return cls(batch, images // batch, gan.settings.epochs * (images // batch))


class _Sitting:
    """One call of :func:`fit_gan`, from the step that was restored to the last one, or until its hours are used up."""

    def __init__(
        self,
        gan: CovidGan,
        new_gan: Callable[[], CovidGan],
        plan: _Plan,
        keeper: Checkpoints,
        pixels: Rows,
        labels: np.ndarray,
        callbacks: _Callbacks,
    ) -> None:
        self.gan, self.new_gan, self.keeper, self.callbacks = gan, new_gan, keeper, callbacks
        self.settings, self.seed, classes = gan.settings, gan.seed, gan.classes
        self.images = len(pixels)
        self.batch, self.per_epoch, self.total = plan.batch, plan.per_epoch, plan.total
        self.grid_labels = np.repeat(np.arange(classes), GRID_PER_CLASS)
        self.real_spreads = real_spreads(pixels, labels, classes, self.seed)
        self.training_images = TrainingImages(pixels, labels, self.settings.steps_per_call)
        self.step = self.resumed_from = int(gan.step_number)
        self._order = np.empty((0, 0), np.int32)
        self._order_of = -1
        self.clock = Clock(self.step, self.batch, keeper.seconds)
        self.limit = self.settings.max_hours * 3600 if self.settings.max_hours else float("inf")
        self.out_of_time = False

    def train(self) -> FittedGan:
        """Train, keep checkpoints, and tell of what happens."""
        while self.step < self.total and not self.out_of_time:
            epoch, position = divmod(self.step, self.per_epoch)
            count = self._steps_of_next_call(position)
            images = self.training_images.for_call(self._order_in(epoch), position, count)
            sums = self.gan.train_steps(*images, count)
            self.step += count
            self.clock.call_ended(self.step)
            self.out_of_time = self.clock.this_sitting() >= self.limit
            # Grids and checkpoints show and keep the state: what is not finite must not get there.
            looked_at = self.step in self.settings.grid_steps or self._is_checkpoint_due()
            if broken := self._not_finite(sums, looked_at):
                self._go_back(broken)
                continue
            self._tell_progress(sums / (position + count))
            if self.step % self.per_epoch == 0:
                self._end_epoch(epoch)
            if self.step in self.settings.grid_steps:
                self._draw_grid()
            if self._is_checkpoint_due():
                self._keep_checkpoint(epoch)
        if self.step < self.total:
            log.info(
                "The GAN stops at the checkpoint of step %d of %d: this sitting's %.2f hours are used up, and the "
                "next run goes on from here",
                self.step,
                self.total,
                self.settings.max_hours,
            )
        return FittedGan(
            gan=self.gan,
            generator=self.gan.sampler,
            history=pd.DataFrame(self.keeper.history),
            grids=dict(sorted(self.keeper.grids.items())),
            resumed_from=self.resumed_from,
            steps=self.step,
            total_steps=self.total,
            finished=self.step >= self.total,
            hours=self.keeper.seconds / 3600,
            setbacks=tuple(setback_told("The GAN", setback) for setback in self.keeper.setbacks),
            checkpoints=self.keeper.folder,
        )

    def _not_finite(self, sums: np.ndarray, looked_at: bool) -> str:
        """What is not finite, in words; nothing where all is. The whole state is asked only where it is looked at."""
        if not np.isfinite(sums).all():
            return "losses"
        return "" if not looked_at or all_finite(self.gan.state()) else "weights, or what is kept with them,"

    def _go_back(self, broken: str) -> None:
        """Go back to the newest checkpoint, or to the first weights, and draw otherwise from there on.

        Raises:
            UserError: The training went back as often as it may.
        """
        at, setbacks = self.step, self.keeper.setbacks
        if len(setbacks) >= self.settings.setbacks:
            rates = "gan.learning_rate" + (" and gan.d_learning_rate" if self.settings.d_learning_rate else "")
            half = ", or switch gan.mixed_precision off" if gan_in_bfloat16(self.settings.mixed_precision) else ""
            advice = f"its checkpoints before that are kept in {self.keeper.folder}. Lower {rates}{half}."
            raise diverged("The GAN", broken, f"step {at:,}", setbacks, advice)
        if not self.keeper.restore():
            self._begin_again()
        self.step = int(self.gan.step_number)
        self.keeper.setbacks = [*setbacks, {"at": at, "back_to": self.step}]
        self.gan.take_detour(len(self.keeper.setbacks))
        self._order_of = -1
        self.out_of_time = False
        self.clock.went_back(self.step)
        log.warning(setback_told("The GAN", self.keeper.setbacks[-1]))

    def _begin_again(self) -> None:
        """Give the networks and optimisers what they began with."""
        for variable, first in zip(self.gan.state(), self.new_gan().state(), strict=True):
            variable.assign(tf.convert_to_tensor(first))
        self.keeper.history, self.keeper.grids = [], {}

    def _steps_of_next_call(self, position: int) -> int:
        """How many steps to take in one call: none beyond the end of the epoch or the next grid."""
        next_grid = min((at for at in self.settings.grid_steps if at > self.step), default=self.total)
        return min(self.settings.steps_per_call, self.per_epoch - position, next_grid - self.step)

    def _order_in(self, epoch: int) -> np.ndarray:
        """(batches, batch) int32, the images of each batch of ``epoch``."""
        if epoch != self._order_of:
            # After a setback the batches are others; without one they are what they always were.
            detour = [len(self.keeper.setbacks)] if self.keeper.setbacks else []
            keys = keyed(self.seed, "gan order", epoch, *detour)
            shuffled = keys.permutation(self.images)[: self.per_epoch * self.batch]
            self._order = shuffled.reshape(self.per_epoch, self.batch).astype(np.int32)
            self._order_of = epoch
        return self._order

    def _tell_progress(self, means: np.ndarray) -> None:
        """Say how far the training is; ``means`` are the mean losses of the epoch so far."""
        self.callbacks.on_steps(self.step, self.total)
        if self.clock.is_time_to_speak() or self.step == self.total:
            log.info(
                "GAN step %d of %d: %.0f images/s, about %s left; in this epoch d_loss %.3f, g_loss %.3f",
                self.step,
                self.total,
                self.clock.speed(self.step),
                time_taken(self.clock.seconds_left(self.step, self.total)),
                means[0],
                means[1],
            )

    def _end_epoch(self, epoch: int) -> None:
        """Note the mean losses of an epoch and tell of them."""
        means = {name: value / self.per_epoch for name, value in self.gan.take_sums().items()}
        self.keeper.history.append({"epoch": epoch + 1, "step": self.step, **means})
        pace = {
            "images_per_second": self.clock.speed(self.step),
            "hours_left": self.clock.seconds_left(self.step, self.total) / 3600,
        }
        self.callbacks.on_epoch(self.step, means | pace)

    def _draw_grid(self) -> None:
        """Make the images of the fixed latents, as they are now."""
        grid = sample_images(self.gan.sampler, self.grid_labels, self.settings, self.seed, "fixed grid")
        self.keeper.grids[self.step] = grid
        self.callbacks.on_grid(self.step, grid)

    def _is_checkpoint_due(self) -> bool:
        is_late = self.clock.since_checkpoint() >= self.settings.checkpoint_seconds
        return is_late or self.out_of_time or self.step == self.total

    def _keep_checkpoint(self, epoch: int) -> None:
        """Write a checkpoint with a grid of this step, and tell of the grid's diversity."""
        if self.step not in self.keeper.grids:
            self._draw_grid()
        found = _check_diversity(self.keeper.grids[self.step], self.real_spreads, epoch, self.step)
        self.callbacks.on_epoch(self.step, found)
        thin_out(self.keeper.grids, self.settings.grid_steps)
        self.keeper.seconds = self.clock.all_sittings()
        self.keeper.save()
        self.callbacks.on_checkpoint()
        self.clock.checkpoint_written()


def _check_diversity(grid: np.ndarray, real: np.ndarray, epoch: int, step: int) -> dict[str, float]:
    """The metric ``diversity``, if there is one, and a warning for each class that has collapsed."""
    found = diversity(grid, real)
    collapsed = np.flatnonzero(found < COLLAPSED) if epoch + 1 >= DIVERSITY_FROM_EPOCH else ()
    for number in collapsed:
        log.warning(
            "The GAN may have collapsed: at step %d its images of class %d vary %.0f %% as much as real ones do",
            step,
            number,
            100 * found[number],
        )
    return {"diversity": float(np.nanmin(found))} if np.isfinite(found).any() else {}
