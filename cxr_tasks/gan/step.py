"""CovidGAN's two networks, their optimisers, and the compiled call that trains both for a number of steps.

The step's number keys every random draw of a step, and the states of dropout and spectral normalisation are part of
the state. So results do not depend on where a training was interrupted, or on how its steps were grouped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from cxr_tasks.config import GanSettings
from cxr_tasks.gan.device import on_device, strategy_for
from cxr_tasks.gan.draws import AUGMENT_FAKE, AUGMENT_FAKE_G, AUGMENT_REAL, StepDraws
from cxr_tasks.gan.losses import adversarial, classification, gradient_penalty, share
from cxr_tasks.gan.networks import before_activation, build_discriminator, build_generator
from cxr_tasks.precision import gan_in_bfloat16

# What a step reports, in this order; without a class head there is no class accuracy.
LOSSES = ("d_loss", "g_loss", "d_accuracy_real", "d_accuracy_fake", "class_accuracy_real")

# Detours are so far apart in the numbers that key draws. No training has so many steps.
DETOUR = 2**40


class CovidGan:
    """Generator, discriminator, their optimisers, and :meth:`train_steps`.

    In a step the generator makes one batch. The discriminator trains on a real batch and on the generated one, in two
    separate passes. Then the generator trains on the same generated batch through the updated discriminator. A second
    generated batch would take another pass through the generator, by far the larger network. Each optimiser is given
    one network's weights only. That replaces the ``trainable = False`` of older code, which in Keras 3 leaves nothing
    to train.

    Attributes:
        generator: Latent points and labels → images.
        discriminator: Images → probabilities of being real and of each class.
        averaged: The averaged generator; ``None`` without ``settings.ema``.
        logits: The discriminator up to its logits.
        draws: The random draws of a step.
        losses: The names of what a step reports, in their order.
        step_number: How many steps were taken.
        replicas: How many devices share a batch.
    """

    def __init__(self, settings: GanSettings, classes: int, seed: int, devices: Sequence[str] | None = None) -> None:
        """Build both networks and their optimisers with their first weights.

        Args:
            settings: Of the GAN.
            classes: Number of classes.
            seed: Of first weights, dropout and draws; it becomes Keras' global seed.
            devices: Names of the devices to spread a batch over. ``None`` takes all GPUs of this machine if
                ``settings.distribute`` asks for them and there are two or more.
        """
        self.settings, self.classes, self.seed = settings, classes, seed
        self.draws = StepDraws(settings, classes, seed)
        self.strategy = strategy_for(settings, devices)
        self.replicas = self.strategy.num_replicas_in_sync
        # Dropout layers without a seed of their own, and the optimisers, start from this.
        keras.utils.set_random_seed(seed)
        with self.strategy.scope():
            self.generator = self._new_generator()
            self.discriminator = self._new_discriminator()
            d_rate = settings.d_learning_rate or settings.learning_rate
            self.g_optimizer = keras.optimizers.Adam(settings.learning_rate, beta_1=settings.beta_1)
            self.d_optimizer = keras.optimizers.Adam(d_rate, beta_1=settings.beta_1)
            self.g_optimizer.build(self.generator.trainable_variables)
            self.d_optimizer.build(self.discriminator.trainable_variables)
        self.logits = before_activation(self.discriminator)
        # The average is a network of its own, and makes images as the trained one does.
        self.averaged = self._new_generator() if settings.ema else None
        self.losses = LOSSES[:-1] if settings.projection else LOSSES
        self.step_number = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        # Added to the step's number where that keys draws. No part of the state: see :meth:`take_detour`.
        self._detour = tf.Variable(0, dtype=tf.int64, trainable=False, name="detour")
        self.sums = tf.Variable(tf.zeros(len(self.losses)), trainable=False, name="sums")
        # XLA compiles the step and not the loop around it: on CPUs, XLA has fast convolutions only outside of loops.
        # Replicas exchange gradients within a step, and XLA cannot compile that as one program.
        jit = settings.xla and self.replicas == 1
        self._one_step = (
            tf.function(self._counted_step, jit_compile=True, autograph=False) if jit else self._counted_step
        )
        self._train_steps = tf.function(self._steps, autograph=False)

    @property
    def _dtype(self) -> str:
        return "mixed_bfloat16" if gan_in_bfloat16(self.settings.mixed_precision) else "float32"

    def _new_generator(self) -> keras.Model:
        return build_generator(
            classes=self.classes,
            image_size=self.settings.image_size,
            width=self.settings.width,
            latent_dim=self.settings.latent_dim,
            embedding_dim=self.settings.embedding_dim,
            batch_norm_momentum=self.settings.batch_norm_momentum,
            seed=self.seed * 1000,
            dtype=self._dtype,
            synchronized=self.replicas > 1,
        )

    def _new_discriminator(self) -> keras.Model:
        return build_discriminator(
            self.settings.discriminator,
            classes=self.classes,
            image_size=self.settings.image_size,
            width=self.settings.width,
            dropout=self.settings.dropout,
            batch_norm_momentum=self.settings.batch_norm_momentum,
            seed=self.seed * 1000 + 100,
            spectral_norm=self.settings.spectral_norm,
            projection=self.settings.projection,
            dtype=self._dtype,
            synchronized=self.replicas > 1,
        )

    @property
    def sampler(self) -> keras.Model:
        """The generator that makes images: the averaged one where there is one."""
        return self.averaged or self.generator

    def state(self) -> list[tf.Variable]:
        """Every variable that the next step depends on, and the running sums."""
        parts = [self.generator, self.discriminator, self.g_optimizer, self.d_optimizer]
        parts += [self.averaged] if self.averaged else []
        return [self.step_number, self.sums, *(variable.value for part in parts for variable in part.variables)]

    def take_detour(self, number: int) -> None:
        """Key the draws of all further steps anew: ``number`` counts the detours of a training, 0 is none."""
        self._detour.assign(number * DETOUR)

    def fingerprint(self) -> str:
        """SHA-256 over the bytes of every variable: equal where two trainings are, to the bit."""
        digest = hashlib.sha256()
        for variable in self.state():
            digest.update(np.asarray(variable).tobytes())
        return digest.hexdigest()

    def train_steps(self, images: tf.Tensor, labels: tf.Tensor, order: tf.Tensor, first: int, count: int) -> np.ndarray:
        """Take ``count`` steps of both networks in one compiled call.

        Args:
            images: The training images as :func:`on_device` made them.
            labels: Their labels as :func:`on_device` made them.
            order: (batches, batch) int32, the images of each batch of the epoch.
            first: The first batch of ``order`` to take.
            count: How many batches to take; ``first + count`` may not go beyond the end of ``order``.

        Returns:
            (losses,) float32, ``losses`` summed over the steps since the last :meth:`take_sums`.
        """
        return self._train_steps(images, labels, order, tf.constant(first), tf.constant(count)).numpy()

    def train_step(self, pixels: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Take one step on one batch: (batch, S, S) uint8 real images and their (batch,) classes → losses by name."""
        self.sums.assign(tf.zeros_like(self.sums))
        order = tf.range(len(pixels))[None]
        return dict(zip(self.losses, self.train_steps(*on_device(pixels, labels), order, 0, 1).tolist(), strict=True))

    def take_sums(self) -> dict[str, float]:
        """The summed losses by name; summing then starts again from nothing."""
        sums = dict(zip(self.losses, self.sums.numpy().tolist(), strict=True))
        self.sums.assign(tf.zeros_like(self.sums))
        return sums

    def _steps(
        self, images: tf.Tensor, labels: tf.Tensor, order: tf.Tensor, first: tf.Tensor, count: tf.Tensor
    ) -> tf.Tensor:
        # The running sums pass through the loop: their rounding must not depend on the grouping either.
        _, sums = tf.while_loop(
            lambda number, _: number < first + count,
            lambda number, sums: (number + 1, sums + self._one_step(images, labels, order[number])),
            (first, self.sums + 0.0),
            parallel_iterations=1,
        )
        self.sums.assign(sums)
        return sums

    def _counted_step(self, images: tf.Tensor, labels: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
        """Step on the chosen images (batch,), count the step and move the average → (losses,) float32."""
        side = self.settings.image_size
        pixels = tf.bitcast(tf.gather(images, chosen), tf.uint8)
        real = tf.cast(tf.reshape(pixels, (chosen.shape[0], side, side, 1)), tf.float32) / 127.5 - 1.0
        losses = self.strategy.run(self._step, args=(real, tf.gather(labels, chosen), self.step_number + self._detour))
        self.step_number.assign_add(1)
        self._average()
        return self.strategy.reduce("MEAN", losses, axis=None)

    def _step(self, gray: tf.Tensor, labels: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        """One step of a replica, on its part of the batch (batch, S, S, 1) in [−1, 1] → (losses,) float32."""
        latent, fake_labels = self.draws.generator_inputs(gray.shape[0], number)
        gray, labels, latent, fake_labels = map(self._part_of, (gray, labels, latent, fake_labels))
        real = tf.repeat(gray, 3, axis=-1)

        g_weights = [v.value for v in self.generator.trainable_variables]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(g_weights)
            fake = self.generator([latent, fake_labels[:, None]], training=True)
        d_losses = self.discriminator_step(real, labels, fake, fake_labels, number)
        g_loss, d_fake = self.generator_loss(fake, fake_labels, number)
        # The chain rule in two pieces: through D to the images above, from the images to G's weights here.
        gradients = tape.gradient(fake, g_weights, output_gradients=d_fake / self.replicas)
        self.g_optimizer.apply(gradients, self.generator.trainable_variables)
        return tf.stack([d_losses[0], g_loss, *d_losses[1:]])

    def discriminator_step(
        self, real: tf.Tensor, labels: tf.Tensor, fake: tf.Tensor, fake_labels: tf.Tensor, number: tf.Tensor
    ) -> list[tf.Tensor]:
        """Train D on a real and a generated batch.

        Args:
            real: (n, S, S, 3) real images in [−1, 1].
            labels: (n,) their classes.
            fake: (n, S, S, 3) generated images in [−1, 1].
            fake_labels: (n,) their classes.
            number: Of the step.

        Returns:
            D's loss and accuracies, in the order of ``losses`` without G's.
        """
        settings = self.settings
        real = self.draws.augment(real, number, AUGMENT_REAL)
        fake = tf.stop_gradient(self.draws.augment(fake, number, AUGMENT_FAKE))
        d_weights = [v.value for v in self.discriminator.trainable_variables]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(d_weights)
            with tf.GradientTape(watch_accessed_variables=False) as inner:
                inner.watch(real)
                real_score, real_class = self._discriminate(real, labels)
            fake_score, fake_class = self._discriminate(fake, fake_labels)
            loss = (adversarial(real_score, 1.0 - settings.label_smoothing) + adversarial(fake_score, 0.0)) / 2
            if settings.r1:
                loss += settings.r1 * gradient_penalty(inner.gradient(real_score, real))
            if real_class is not None:
                kind = classification(labels, real_class)
                loss += (kind + classification(fake_labels, fake_class)) / 2 if settings.fake_class_loss else kind
            scaled = loss / self.replicas
        self.d_optimizer.apply(tape.gradient(scaled, d_weights), self.discriminator.trainable_variables)
        found = [loss, share(real_score > 0), share(fake_score <= 0)]
        if real_class is not None:
            found.append(share(tf.argmax(real_class, axis=-1, output_type=tf.int32) == labels))
        return found

    def generator_loss(self, fake: tf.Tensor, fake_labels: tf.Tensor, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """G's loss and its gradient with respect to the images (n, S, S, 3); D's weights get no gradient."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(fake)
            score, kind = self._discriminate(self.draws.augment(fake, number, AUGMENT_FAKE_G), fake_labels)
            loss = adversarial(score, 1.0)
            if kind is not None:
                loss += classification(fake_labels, kind)
        return loss, tape.gradient(loss, fake)

    def _part_of(self, batch: tf.Tensor) -> tf.Tensor:
        """This replica's part of a batch. Every replica draws, or is given, the whole batch."""
        if self.replicas == 1:
            return batch
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return tf.reshape(batch, (self.replicas, -1, *batch.shape[1:]))[replica]

    def _discriminate(self, images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Logits of being real (n, 1) and of the classes (n, classes), float32."""
        if self.settings.projection:
            return self.logits([images, labels[:, None]], training=True), None
        return self.logits(images, training=True)

    def _average(self) -> None:
        """Move the averaged generator, batch statistics included, by one step."""
        if self.averaged is None:
            return
        # Early on the average is shorter, as in tf.train.ExponentialMovingAverage, lest untrained weights linger.
        taken = tf.cast(self.step_number, tf.float32)
        decay = tf.minimum(tf.constant(self.settings.ema, tf.float32), (1 + taken) / (10 + taken))
        for mean, variable in zip(self.averaged.variables, self.generator.variables, strict=True):
            mean.value.assign_add((1 - decay) * (tf.convert_to_tensor(variable.value) - mean.value))
