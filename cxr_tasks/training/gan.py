"""Trains CovidGAN: one compiled step with two optimisers, checkpoints that hold everything, exact resume.

Every random draw of a step is keyed by the step's number and the dropout states are part of the checkpoint,
so a training that was interrupted goes on as if it had not been.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from cxr_tasks.config import GanSettings
from cxr_tasks.errors import UserError
from cxr_tasks.networks.covidgan import build_discriminator, build_generator
from cxr_tasks.training.randomness import keyed

log = logging.getLogger(__name__)

LOSSES = ("d_loss", "g_loss", "d_accuracy_real", "d_accuracy_fake", "class_accuracy_real")
PROGRESS_SECONDS = 10.0
GRID_PER_CLASS = 6


class CovidGan:
    """Generator, discriminator, their optimisers and one compiled training step.

    The discriminator step trains on a real and a fake batch, passed through it separately; the generator
    step then trains through the updated discriminator. Each optimiser is given one network's weights only,
    which replaces the ``trainable = False`` of older code (in Keras 3 that leaves nothing to train).
    """

    def __init__(self, settings: GanSettings, classes: int, seed: int) -> None:
        self.settings, self.classes, self.seed = settings, classes, seed
        # Dropout layers without a seed of their own, and the optimisers, start from this.
        keras.utils.set_random_seed(seed)
        self.generator = build_generator(
            classes=classes,
            image_size=settings.image_size,
            width=settings.width,
            latent_dim=settings.latent_dim,
            embedding_dim=settings.embedding_dim,
            seed=seed * 1000,
        )
        self.discriminator = build_discriminator(
            settings.discriminator,
            classes=classes,
            image_size=settings.image_size,
            width=settings.width,
            dropout=settings.dropout,
            seed=seed * 1000 + 100,
        )
        self.g_optimizer = keras.optimizers.Adam(settings.learning_rate, beta_1=settings.beta_1)
        self.d_optimizer = keras.optimizers.Adam(settings.learning_rate, beta_1=settings.beta_1)
        self.g_optimizer.build(self.generator.trainable_variables)
        self.d_optimizer.build(self.discriminator.trainable_variables)
        self.step_number = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        self._train_step = tf.function(self._step, jit_compile=settings.xla)

    def state(self) -> list[tf.Variable]:
        """Every variable that the next step depends on."""
        parts = (self.generator, self.discriminator, self.g_optimizer, self.d_optimizer)
        return [self.step_number, *(variable.value for part in parts for variable in part.variables)]

    def train_step(self, pixels: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """One step of D, then one of G.

        Args:
            pixels: (batch, S, S) uint8 real images. labels: (batch,) their classes.
        """
        return {k: float(v) for k, v in self._train_step(tf.constant(pixels), tf.constant(labels)).items()}

    def _step(self, pixels: tf.Tensor, labels: tf.Tensor) -> dict[str, tf.Tensor]:
        batch = tf.shape(pixels)[0]
        real = tf.repeat(tf.cast(pixels, tf.float32)[..., None] / 127.5 - 1.0, 3, axis=-1)

        d_latent, d_labels = self._draw(batch, 0)
        fake = self.generator([d_latent, d_labels[:, None]], training=True)
        with tf.GradientTape() as tape:
            real_score, real_class = self.discriminator(real, training=True)
            fake_score, fake_class = self.discriminator(tf.stop_gradient(fake), training=True)
            d_loss = (
                _adversarial(real_score, 1.0)
                + _adversarial(fake_score, 0.0)
                + _classification(labels, real_class)
                + _classification(d_labels, fake_class)
            ) / 2
        d_weights = self.discriminator.trainable_variables
        self.d_optimizer.apply(tape.gradient(d_loss, [v.value for v in d_weights]), d_weights)

        g_latent, g_labels = self._draw(batch, 1)
        with tf.GradientTape() as tape:
            score, kind = self.discriminator(
                self.generator([g_latent, g_labels[:, None]], training=True), training=True
            )
            g_loss = _adversarial(score, 1.0) + _classification(g_labels, kind)
        g_weights = self.generator.trainable_variables
        self.g_optimizer.apply(tape.gradient(g_loss, [v.value for v in g_weights]), g_weights)

        self.step_number.assign_add(1)
        return {
            "d_loss": d_loss,
            "g_loss": g_loss,
            "d_accuracy_real": tf.reduce_mean(tf.cast(real_score > 0.5, tf.float32)),
            "d_accuracy_fake": tf.reduce_mean(tf.cast(fake_score <= 0.5, tf.float32)),
            "class_accuracy_real": tf.reduce_mean(
                tf.cast(tf.argmax(real_class, axis=-1) == tf.cast(labels, tf.int64), tf.float32)
            ),
        }

    def _draw(self, batch: tf.Tensor, use: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Latent points N(0, latent_sd) and labels drawn uniformly from all classes, keyed by the step."""
        key = tf.stack([tf.constant(self.seed, tf.int64), self.step_number * 4 + use * 2])
        latent = tf.random.stateless_normal((batch, self.settings.latent_dim), key, stddev=self.settings.latent_sd)
        labels = tf.random.stateless_uniform(
            (batch,), key + tf.constant([0, 1], tf.int64), maxval=self.classes, dtype=tf.int32
        )
        return latent, labels


def _adversarial(score: tf.Tensor, real: float) -> tf.Tensor:
    return tf.reduce_mean(keras.losses.binary_crossentropy(tf.fill(tf.shape(score), real), score))


def _classification(labels: tf.Tensor, probabilities: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(labels, probabilities))


def generate(
    generator: keras.Model, labels: np.ndarray, settings: GanSettings, seed: int, purpose: str = "synthetic set"
) -> np.ndarray:
    """Images of the given classes: (n,) labels → (n, S, S) uint8 gray, the mean of the three channels."""
    latent = keyed(seed, purpose).normal(0, settings.latent_sd, (len(labels), settings.latent_dim))
    images = generator.predict([latent.astype("float32"), labels.astype("int32")[:, None]], batch_size=64, verbose=0)
    return np.clip(np.rint((images.mean(axis=-1) + 1) * 127.5), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class TrainedGan:
    """``history``: a row an epoch. ``grids``: step → (n, S, S) uint8 of a fixed latent grid, classes in order."""

    gan: CovidGan
    history: pd.DataFrame
    grids: dict[int, np.ndarray]
    resumed_from: int
    steps: int


def train_gan(
    pixels: np.ndarray,
    labels: np.ndarray,
    classes: int,
    settings: GanSettings,
    seed: int,
    checkpoints: Path,
    *,
    on_checkpoint: Callable[[], None] = lambda: None,
    on_epoch: Callable[[int, dict[str, float]], None] = lambda step, metrics: None,
    on_grid: Callable[[int, np.ndarray], None] = lambda step, grid: None,
) -> TrainedGan:
    """Train for ``settings.epochs`` epochs, going on from the newest usable checkpoint in ``checkpoints``.

    Args:
        pixels: (n, S, S) uint8, the real images of the training split and nothing else.
        labels: (n,) classes.
        on_checkpoint: called after a checkpoint is written, so that it can be copied to safety.
        on_epoch: called with the step number and the epoch's mean losses and images a second.
        on_grid: called with the step number and a fixed grid of generated images.
    """
    gan = CovidGan(settings, classes, seed)
    keeper = Checkpoints(gan, checkpoints, settings.keep_checkpoints)
    resumed_from = keeper.restore()
    if resumed_from:
        log.info("Going on from the checkpoint of step %d", resumed_from)

    # A batch is never cut short: batch statistics of a few images would disturb both networks.
    batch = min(settings.batch_size, len(pixels))
    per_epoch = len(pixels) // batch
    total = settings.epochs * per_epoch
    grid_labels = np.repeat(np.arange(classes), GRID_PER_CLASS)
    labels = labels.astype(np.int32)
    history, sums, grids = keeper.history, keeper.sums, keeper.grids

    def draw_grid(step: int) -> None:
        grids[step] = generate(gan.generator, grid_labels, settings, seed, "fixed grid")
        on_grid(step, grids[step])

    started = spoken = saved = time.monotonic()
    for step in range(resumed_from, total):
        epoch, position = divmod(step, per_epoch)
        if position == 0 or step == resumed_from:
            order = keyed(seed, "gan order", epoch).permutation(len(pixels))
        chosen = order[position * batch : (position + 1) * batch]
        losses = gan.train_step(pixels[chosen], labels[chosen])
        for name in LOSSES:
            sums[name] = sums.get(name, 0.0) + losses[name]

        now = time.monotonic()
        speed = (step + 1 - resumed_from) * batch / (now - started)
        if position == per_epoch - 1:
            means = {name: sums[name] / per_epoch for name in LOSSES}
            sums.clear()
            history.append({"epoch": epoch + 1, "step": step + 1, **means})
            on_epoch(step + 1, {**means, "images_per_second": speed})
        if now - spoken >= PROGRESS_SECONDS or step + 1 == total:
            spoken = now
            left = (total - step - 1) * batch / speed
            log.info(
                "GAN step %d of %d: %.0f images/s, about %.0f s left; d_loss %.3f, g_loss %.3f",
                *(step + 1, total, speed, left, losses["d_loss"], losses["g_loss"]),
            )
        if step + 1 in settings.grid_steps:
            draw_grid(step + 1)
        if now - saved >= settings.checkpoint_seconds or step + 1 == total:
            if step + 1 not in grids:
                draw_grid(step + 1)
            keeper.save()
            on_checkpoint()
            saved = time.monotonic()
    return TrainedGan(gan, pd.DataFrame(history), dict(sorted(grids.items())), resumed_from, total)


class Checkpoints:
    """The last few checkpoints of a training, with the history and the sample grids up to them."""

    def __init__(self, gan: CovidGan, folder: Path, keep: int) -> None:
        self.gan, self.folder = gan, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.manager = tf.train.CheckpointManager(
            tf.train.Checkpoint(state=gan.state()), str(folder), max_to_keep=keep, step_counter=gan.step_number
        )
        self.history: list[dict[str, Any]] = []
        self.sums: dict[str, float] = {}
        self.grids: dict[int, np.ndarray] = {}

    def restore(self) -> int:
        """Restore the newest checkpoint that is whole; 0 if there is none. Returns the step it stands at."""
        for path in reversed(self.manager.checkpoints):
            try:
                progress = json.loads(Path(f"{path}.json").read_text(encoding="utf-8"))
                self.manager.checkpoint.restore(path).assert_consumed()
                grids = np.load(f"{path}.npz")
            except (tf.errors.OpError, OSError, ValueError, IndexError, AssertionError) as error:
                log.warning("Checkpoint %s is damaged (%s): trying the one before", path, error)
                continue
            self.history, self.sums = progress["history"], progress["sums"]
            self.grids = {int(name): grids[name] for name in grids.files}
            return int(self.gan.step_number)
        if self.manager.checkpoints:
            raise UserError(
                f"None of the {len(self.manager.checkpoints)} checkpoints in {self.folder} is usable: "
                "remove that folder to start the training afresh."
            )
        return 0

    def save(self) -> None:
        """Write a checkpoint. What belongs to it is written first, so that a listed one is complete."""
        path = self.folder / f"ckpt-{int(self.gan.step_number)}"
        np.savez(f"{path}.npz", allow_pickle=False, **{str(step): grid for step, grid in self.grids.items()})
        Path(f"{path}.json").write_text(json.dumps({"history": self.history, "sums": self.sums}), encoding="utf-8")
        self.manager.save(checkpoint_number=int(self.gan.step_number))
        kept = {Path(checkpoint).name for checkpoint in self.manager.checkpoints}
        for extra in (*self.folder.glob("ckpt-*.json"), *self.folder.glob("ckpt-*.npz")):
            if extra.stem not in kept:
                extra.unlink()
