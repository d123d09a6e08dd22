"""Where a CovidGAN trains: its images on the device, and the devices that share a batch."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from cxr_tasks.config import GanSettings

log = logging.getLogger(__name__)


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
