"""The batches of a classifier's training, in an order keyed by seed and pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import numpy as np

from cxr_tasks.randomness import keyed


def training_batches(
    features: Callable[[np.ndarray, int], np.ndarray],
    targets: np.ndarray,
    weights: np.ndarray,
    batch_size: int,
    seed: int,
    ahead: int = 1,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Batches without end: pass after pass over all images, the last batch of a pass as small as it must be.

    A generator and no Keras dataset, of which Keras asks the first batches of an epoch two or three times: with a
    frozen backbone behind them each costs as much as a training step.

    Args:
        features: Positions (b,) and the number of the pass → (b, …).
        targets: (n, classes) one-hot.
        weights: (n,) float32, of each image in the loss.
        batch_size: Images in a batch.
        seed: Of the order.
        ahead: Batches whose features are asked for at once.
    """
    for turn in count():
        order = keyed(seed, "batch order", turn).permutation(len(targets))
        for start in range(0, len(order), ahead * batch_size):
            rows = order[start : start + ahead * batch_size]
            made = features(rows, turn)
            for first in range(0, len(rows), batch_size):
                batch = slice(first, first + batch_size)
                yield made[batch], targets[rows[batch]], weights[rows[batch]]


def batches_of(images: int, batch_size: int) -> int:
    """Batches that hold ``images`` images, the last one perhaps not full."""
    return -(-images // batch_size)
