"""Random draws keyed by their purpose, so that resuming, caching and parallelism change nothing."""

from __future__ import annotations

import zlib

import numpy as np


def keyed(seed: int, purpose: str, *keys: int) -> np.random.Generator:
    """A generator of random numbers that depends on its arguments alone.

    Args:
        seed: One of the run's seeds; not negative.
        purpose: What the draws are for, such as ``"batch order"``. Two purposes never share draws.
        *keys: Tell the draws of one purpose apart, such as epoch and image number; not negative.
    """
    return np.random.default_rng([seed, zlib.crc32(purpose.encode()), *keys])


def image_key(image_id: str) -> int:
    """A stable number below 2**63 for an image id."""
    return int.from_bytes(image_id.encode()[-16:].rjust(16, b"\0")) % (2**63 - 25)
