"""In which precision networks compute: as the settings say, or as the hardware of this machine does it fast.

Weights, heads, losses and whatever is saved stay in float32 either way. See docs/decisions/precision.md.
"""

from __future__ import annotations

import logging
import re
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)

AUTO, FULL, HALF, BRAIN = "auto", "float32", "float16", "bfloat16"
CPU_INFO = Path("/proc/cpuinfo")
# Instructions of processors for products in bfloat16. Without them it is computed by way of float32, and slower.
CPU_FLAGS = {"avx512_bf16", "amx_bf16"}
# The compute capability of NVIDIA's GPUs from which tensor cores take a format: Volta, and Ampere.
HALF_SINCE, BRAIN_SINCE = (7, 0), (8, 0)


def backbone_precision(asked: str) -> str:
    """``float32``, ``float16`` or ``bfloat16``: in what a frozen backbone computes on this machine.

    Args:
        asked: Of ``classifiers.precision``.
    """
    return asked if asked != AUTO else _of_gpus(otherwise=HALF) or _of_processors()


def gan_in_bfloat16(asked: bool | str) -> bool:
    """Whether the networks of a GAN compute in bfloat16 on this machine: by ``auto`` on GPUs that have it.

    Never in float16, whose small gradients become zero unless the loss is scaled. On processors bfloat16 was slower.

    Args:
        asked: Of ``gan.mixed_precision``.
    """
    return bool(asked) if asked != AUTO else _of_gpus(otherwise=FULL) == BRAIN


@cache
def _of_gpus(otherwise: str) -> str:
    """``bfloat16`` where all GPUs have it, ``otherwise`` where they have float16, else ``float32``; '' without GPUs."""
    capabilities = gpu_capabilities()
    if not capabilities:
        return ""
    # The weakest, since a training may be spread over all.
    weakest = min(capabilities)
    chosen = BRAIN if weakest >= BRAIN_SINCE else otherwise if weakest >= HALF_SINCE else FULL
    log.info("Precision auto: %s, on GPUs of compute capability %d.%d and above", chosen, *weakest)
    return chosen


@cache
def _of_processors() -> str:
    """``bfloat16`` where the processors have instructions for it, or else ``float32``."""
    flags = sorted(cpu_flags() & CPU_FLAGS)
    chosen = BRAIN if flags else FULL
    log.info("Precision auto: %s, on processors with %s", chosen, " and ".join(flags) or "no instructions for bfloat16")
    return chosen


def gpu_capabilities() -> list[tuple[int, int]]:
    """The compute capability of each GPU that TensorFlow sees; (0, 0) of one that tells none."""
    import tensorflow as tf

    told = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    return [details.get("compute_capability", (0, 0)) for details in told]


def cpu_flags() -> set[str]:
    """What the kernel says that this machine's processors can do; nothing where it says nothing."""
    try:
        text = CPU_INFO.read_text(encoding="utf-8")
    except OSError:
        return set()
    flags = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return set(flags[1].split()) if flags else set()
