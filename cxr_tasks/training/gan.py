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

from cxr_tasks.config import GanSettings
from cxr_tasks.errors import UserError
from cxr_tasks.training.gan_checkpoints import Checkpoints
from cxr_tasks.training.gan_clock import Clock, duration
from cxr_tasks.training.gan_device import keep_memory, on_device
from cxr_tasks.training.gan_step import CovidGan
from cxr_tasks.training.gan_watch import (
    COLLAPSED,
    GRID_PER_CLASS,
    diversity,
    generate,
    real_spreads,
    thin_out,
)
from cxr_tasks.training.randomness import keyed

log = logging.getLogger(__name__)

# Before that many epochs, generated images are alike because nothing is learned yet.
DIVERSITY_FROM_EPOCH = 3


@dataclass(frozen=True)
class TrainedGan:
    """What a training, or one sitting of it, leaves.

    ``generator``: makes the images, the averaged one where ``settings.ema`` asks for it. ``history``: a row an
    epoch. ``grids``: step → (classes · GRID_PER_CLASS, S, S) uint8 of fixed latents, classes in order.
    ``steps``: where it stands. ``total_steps``: where it ends. ``finished``: whether it is there; if not, the
    hours of this sitting are used up and another call goes on. ``hours``: spent training, over all sittings.
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


def train_gan(
    pixels: np.ndarray,
    labels: np.ndarray,
    classes: int,
    settings: GanSettings,
    seed: int,
    checkpoints: Path,
    *,
    must_resume: bool = False,
    on_checkpoint: Callable[[], None] = lambda: None,
    on_epoch: Callable[[int, dict[str, float]], None] = lambda step, metrics: None,
    on_grid: Callable[[int, np.ndarray], None] = lambda step, grid: None,
    devices: list[str] | None = None,
) -> TrainedGan:
    """Train for ``settings.epochs`` epochs, going on from the newest usable checkpoint in ``checkpoints``.

    ``settings.max_hours`` is for one call: when it is used up, the training stops at a checkpoint, and the next
    call goes on from there with its own hours.

    Args:
        pixels: (n, S, S) uint8, the real images of the training split and nothing else.
        labels: (n,) classes.
        must_resume: a checkpoint is expected, and its absence an error.
        on_checkpoint: called after a checkpoint is written, so that it can be copied to safety.
        on_epoch: called with the step number and metrics: after an epoch its mean losses, images a second and
            hours left; at a checkpoint ``diversity``, that of the class which varies least (1: as real images do).
        on_grid: called with the step number and a fixed grid of generated images.
        devices: see :class:`CovidGan`.

    Raises:
        UserError: no checkpoint is whole, or ``must_resume`` and there is none; a batch cannot be divided among the
            devices; or the losses are no longer finite.
    """
    if not tf.config.list_physical_devices("GPU"):
        keep_memory()
    gan = CovidGan(settings, classes, seed, devices)
    if settings.batch_size % gan.replicas:
        raise UserError(
            f"A batch of {settings.batch_size} images cannot be divided among {gan.replicas} devices: make "
            "gan.batch_size a multiple of that, or switch gan.distribute off."
        )
    keeper = Checkpoints(gan, checkpoints, settings.keep_checkpoints)
    resumed_from = keeper.restore(must_resume=must_resume)
    if resumed_from:
        log.info("Going on from the checkpoint of step %d", resumed_from)

    # A batch is never cut short: batch statistics of a few images would disturb both networks.
    batch = min(settings.batch_size, len(pixels)) // gan.replicas * gan.replicas
    per_epoch = len(pixels) // batch
    total = settings.epochs * per_epoch
    grid_labels = np.repeat(np.arange(classes), GRID_PER_CLASS)
    real = real_spreads(pixels, labels, classes, seed)
    on_chip = on_device(pixels, labels)

    def draw_grid(step: int) -> None:
        keeper.grids[step] = generate(gan.sampler, grid_labels, settings, seed, "fixed grid")
        on_grid(step, keeper.grids[step])

    step, order, order_of = resumed_from, None, -1
    clock = Clock(resumed_from, batch, keeper.seconds)
    limit = settings.max_hours * 3600 if settings.max_hours else float("inf")
    out_of_time = False
    while step < total and not out_of_time:
        epoch, position = divmod(step, per_epoch)
        if epoch != order_of:
            shuffled = keyed(seed, "gan order", epoch).permutation(len(pixels))[: per_epoch * batch]
            order, order_of = tf.constant(shuffled.reshape(per_epoch, batch), tf.int32), epoch
        next_grid = min((at for at in settings.grid_steps if at > step), default=total)
        count = min(settings.steps_per_call, per_epoch - position, next_grid - step)
        sums = gan.train_steps(*on_chip, order, position, count)
        step += count
        clock.call_ended(step)

        if clock.is_time_to_speak() or step == total:
            speed, left = clock.speed(step), clock.seconds_left(step, total)
            log.info(
                "GAN step %d of %d: %.0f images/s, about %s left; in this epoch d_loss %.3f, g_loss %.3f",
                *(step, total, speed, duration(left), *sums[:2] / (position + count)),
            )
        if step % per_epoch == 0:
            means = {name: value / per_epoch for name, value in gan.take_sums().items()}
            if not np.isfinite(list(means.values())).all():
                raise UserError(
                    f"The GAN's losses are no longer numbers at step {step:,}: its checkpoints before that are kept in "
                    f"{checkpoints}. Lower gan.learning_rate, or switch gan.mixed_precision off."
                )
            keeper.history.append({"epoch": epoch + 1, "step": step, **means})
            pace = {"images_per_second": clock.speed(step), "hours_left": clock.seconds_left(step, total) / 3600}
            on_epoch(step, means | pace)
        if step in settings.grid_steps:
            draw_grid(step)
        out_of_time = clock.this_sitting() >= limit
        if clock.since_checkpoint() >= settings.checkpoint_seconds or out_of_time or step == total:
            if step not in keeper.grids:
                draw_grid(step)
            on_epoch(step, _check_diversity(keeper.grids[step], real, epoch, step))
            thin_out(keeper.grids, settings.grid_steps)
            keeper.seconds = clock.all_sittings()
            keeper.save()
            on_checkpoint()
            clock.checkpoint_written()
    if step < total:
        log.info(
            "The GAN stops at the checkpoint of step %d of %d: this sitting's %.2f hours are used up, and the next "
            "run goes on from here",
            *(step, total, settings.max_hours),
        )
    return TrainedGan(
        gan=gan,
        generator=gan.sampler,
        history=pd.DataFrame(keeper.history),
        grids=dict(sorted(keeper.grids.items())),
        resumed_from=resumed_from,
        steps=step,
        total_steps=total,
        finished=step >= total,
        hours=keeper.seconds / 3600,
    )


def _check_diversity(grid: np.ndarray, real: np.ndarray, epoch: int, step: int) -> dict[str, float]:
    """The metric ``diversity``, if there is one, and a warning for each class that has collapsed."""
    found = diversity(grid, real)
    for number in np.flatnonzero(found < COLLAPSED) if epoch + 1 >= DIVERSITY_FROM_EPOCH else ():
        log.warning(
            "The GAN may have collapsed: at step %d its images of class %d vary %.0f %% as much as real ones do",
            *(step, number, 100 * found[number]),
        )
    return {"diversity": float(np.nanmin(found))} if np.isfinite(found).any() else {}
