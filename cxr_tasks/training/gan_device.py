"""Where a CovidGAN trains: its images on the device, the devices that share a batch, and a processor's memory."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from cxr_tasks.config import GanSettings

log = logging.getLogger(__name__)

# M_MMAP_MAX, M_TRIM_THRESHOLD and M_ARENA_MAX of mallopt(3): no block of its own for a large tensor, nothing given
# back at the end of the heap, and one heap for all threads.
KEEP_MEMORY = {-4: 0, -1: 2**31 - 1, -8: 1}


def on_device(pixels: np.ndarray, labels: np.ndarray) -> tuple[tf.Tensor, tf.Tensor]:
    """All training images as one tensor, a byte a pixel, and their labels as int32.

    Args:
        pixels: (n, S, S) uint8, S a multiple of 16. labels: (n,).

    Returns:
        (n, S·S/8) int64, the same bytes in words: GPUs gather words, and have no kernel to gather bytes.
    """
    words = np.ascontiguousarray(pixels).reshape(len(pixels), -1).view(np.int64)
    return tf.constant(words), tf.constant(np.asarray(labels, np.int32))


def strategy_for(settings: GanSettings, devices: Sequence[str] | None = None) -> tf.distribute.Strategy:
    """Mirrors the networks on the given devices, or on all GPUs if ``settings.distribute``; on one, does nothing."""
    if devices is None:
        devices = [device.name for device in tf.config.list_logical_devices("GPU")] if settings.distribute else []
        if settings.distribute and len(devices) < 2:
            log.info("The GAN trains on one device: spreading it takes two GPUs, and there are %d", len(devices))
    return tf.distribute.MirroredStrategy(list(devices)) if len(devices) > 1 else tf.distribute.get_strategy()


def keep_memory() -> bool:
    """Have this process keep the memory that it frees. Returns whether the C library could be told.

    glibc gives large blocks back to the system at once, and at the recipe's size the tensors of every step cost a
    million page faults to get again, an eighth of its time on two cores. It is for a process that trains and ends.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(option, value) == 1 for option, value in KEEP_MEMORY.items())
