"""Random draws keyed by what they are for, so that resuming, caching and parallelism change nothing."""

from __future__ import annotations

import zlib

import numpy as np


def keyed(seed: int, purpose: str, *keys: int) -> np.random.Generator:
    """A generator that depends on nothing but its arguments.

    Args:
        seed: the run's seed, not negative.
        purpose: such as ``"batch order"``; two purposes never share draws.
        keys: such as epoch and image number, not negative.
    """
    return np.random.default_rng([seed, zlib.crc32(purpose.encode()), *keys])


def image_key(image_id: str) -> int:
    """A stable number below 2**63 for an image id."""
    return int.from_bytes(image_id.encode()[-16:].rjust(16, b"\0")) % (2**63 - 25)
