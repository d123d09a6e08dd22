"""Where a CovidGAN trains: its images on the device, and the devices that share a batch."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from cxr_tasks.config import GanSettings
from cxr_tasks.data.stacks import Rows

log = logging.getLogger(__name__)

# Up to so many bytes, the training images lie on the device. More of them are sent there call by call.
MOST_ON_DEVICE = 512 * 2**20


def on_device(pixels: np.ndarray, labels: np.ndarray) -> tuple[tf.Tensor, tf.Tensor]:
    """Put all training images on the device as one tensor, a byte a pixel, with their labels.

    Args:
        pixels: (n, S, S) uint8; S is a multiple of 16.
        labels: (n,) classes.

    Returns:
        The images (n, S·S/8) int64 and the labels (n,) int32. Each int64 holds the bytes of eight pixels, because GPUs
        gather words and have no kernel to gather bytes.
    """
    words = np.ascontiguousarray(pixels).reshape(len(pixels), -1).view(np.int64)
    return tf.constant(words), tf.constant(np.asarray(labels, np.int32))


class TrainingImages:
    """The training images as a call of ``CovidGan.train_steps`` takes them: all at once, or those that it needs."""

    def __init__(self, pixels: Rows, labels: np.ndarray, steps_per_call: int) -> None:
        """Put the images on the device if they are few enough.

        Args:
            pixels: (n, S, S) uint8; S is a multiple of 16.
            labels: (n,) classes.
            steps_per_call: Steps that a call takes at most.
        """
        self._pixels, self._labels, self._steps = pixels, labels, steps_per_call
        there = math.prod(pixels.shape) <= MOST_ON_DEVICE
        self._there = on_device(pixels[:], labels) if there else None
        self._order: tf.Tensor | None = None
        self._order_from: np.ndarray | None = None

    def for_call(self, order: np.ndarray, first: int, count: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, int]:
        """What a call takes, but for the number of its steps.

        Args:
            order: (batches, batch) int32, the images of each batch of the epoch.
            first: The first batch of ``order`` to take.
            count: How many batches to take.

        Returns:
            Images and labels as :func:`on_device` made them, the order of the batches among these images, and the
            first batch to take.
        """
        if self._there is not None:
            if order is not self._order_from:
                self._order, self._order_from = tf.constant(order), order
            return *self._there, self._order, first
        # Always as many images, the last batch over again: TensorFlow would trace a call of each number anew.
        taken = np.minimum(np.arange(first, first + self._steps), first + count - 1)
        rows = order[taken].ravel()
        places = np.arange(len(rows), dtype=np.int32).reshape(self._steps, -1)
        return *on_device(self._pixels[rows], self._labels[rows]), tf.constant(places), 0


def strategy_for(settings: GanSettings, devices: Sequence[str] | None = None) -> tf.distribute.Strategy:
    """How a step is spread over devices. On one device, TensorFlow's default strategy spreads nothing.

    Args:
        settings: ``distribute`` asks for all GPUs of this machine.
        devices: Names of the devices to mirror the networks on; ``None`` follows ``settings``.
    """
    if devices is None:
        devices = [device.name for device in tf.config.list_logical_devices("GPU")] if settings.distribute else []
        if settings.distribute and len(devices) < 2:
            log.info("The GAN trains on one device: spreading it takes two GPUs, and there are %d", len(devices))
    return tf.distribute.MirroredStrategy(list(devices)) if len(devices) > 1 else tf.distribute.get_strategy()
