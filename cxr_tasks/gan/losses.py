"""The losses of an auxiliary-classifier GAN, from logits, and what is reported beside them."""

from __future__ import annotations

import tensorflow as tf


def adversarial(score: tf.Tensor, target: float) -> tf.Tensor:
    """Mean binary cross-entropy of logits (n, 1) against one target: 1 is real, 0 generated."""
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(tf.fill(tf.shape(score), target), score))


def classification(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Mean cross-entropy of class logits (n, classes) against labels (n,) int32."""
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))


def gradient_penalty(gradient: tf.Tensor) -> tf.Tensor:
    """The R1 penalty without its weight: E |∇D(x)|² / 2 over real images (n, S, S, C).

    Mescheder et al., "Which training methods for GANs do actually converge?", ICML 2018, eq. 9.
    """
    return tf.reduce_mean(tf.reduce_sum(gradient**2, axis=(1, 2, 3))) / 2


def share(right: tf.Tensor) -> tf.Tensor:
    """The share of true values, float32."""
    return tf.reduce_mean(tf.cast(right, tf.float32))
