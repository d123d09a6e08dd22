"""The random draws of a CovidGAN step: latent points, labels and augmentation. The step's number keys every draw."""

from __future__ import annotations

import tensorflow as tf

from cxr_tasks.config import GanSettings
from cxr_tasks.gan.diff_augment import diff_augment

# These numbers tell the draws of a step apart. Each leaves room for eight draws.
LATENT, AUGMENT_REAL, AUGMENT_FAKE, AUGMENT_FAKE_G = range(4)


class StepDraws:
    """Draws what a step needs. The same seed and number give the same draws."""

    def __init__(self, settings: GanSettings, classes: int, seed: int) -> None:
        """Note what the draws depend on.

        Args:
            settings: Of the GAN.
            classes: Number of classes.
            seed: Of every draw, below 2**31.
        """
        self.settings, self.classes, self.seed = settings, classes, seed

    def generator_inputs(self, batch: int, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Draw what the generator makes a batch of.

        Args:
            batch: How many images.
            number: Of the step.

        Returns:
            Latent points N(0, latent_sd) (batch, latent_dim) float32, and labels (batch,) int32, uniformly from all
            classes.
        """
        key = self._key(number, LATENT)
        latent = tf.random.stateless_normal((batch, self.settings.latent_dim), key, stddev=self.settings.latent_sd)
        labels = tf.random.stateless_uniform(
            (batch,), key + tf.constant([0, 1], tf.int64), maxval=self.classes, dtype=tf.int32
        )
        return latent, labels

    def augment(self, images: tf.Tensor, number: tf.Tensor, use: int) -> tf.Tensor:
        """Augment images for the discriminator, if ``settings`` ask for it.

        Args:
            images: (n, S, S, C) float32 in [−1, 1].
            number: Of the step.
            use: One of this module's numbers.
        """
        if not self.settings.diff_augment:
            return images
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        # Replicas draw apart from each other: the seed is below 2**31, so their keys never meet.
        apart = tf.stack([tf.cast(replica, tf.int64) * 2**31, tf.constant(0, tf.int64)])
        return diff_augment(images, self._key(number, use) + apart)

    def _key(self, number: tf.Tensor, use: int) -> tf.Tensor:
        return tf.stack([tf.constant(self.seed, tf.int64), tf.cast(number, tf.int64) * 32 + use * 8])
