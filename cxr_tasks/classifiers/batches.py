"""The batches of a classifier's training, in an order keyed by seed and pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np

from cxr_tasks.randomness import keyed


@dataclass(frozen=True)
class BatchOrder:
    """Which images each batch of a training holds: pass after pass over all images.

    Attributes:
        images: How many there are.
        batch_size: Images in a batch; the last batch of a pass is as small as it must be.
        seed: Of the order.
        detour: Counts how often the training went back; each time the order is another one from there on.
    """

    images: int
    batch_size: int
    seed: int
    detour: int = 0

    def positions(self, turn: int) -> np.ndarray:
        """(images,) in the order of the pass number ``turn``."""
        keys = [self.detour] if self.detour else []
        return keyed(self.seed, "batch order", turn, *keys).permutation(self.images)

    def of_batch(self, number: int) -> tuple[int, np.ndarray]:
        """The pass that holds the batch ``number`` of a training, counted from 0, and the batch's positions (b,)."""
        turn, place = divmod(number, batches_of(self.images, self.batch_size))
        return turn, self.positions(turn)[place * self.batch_size : (place + 1) * self.batch_size]


def training_batches(
    features: Callable[[np.ndarray, int], np.ndarray],
    targets: np.ndarray,
    weights: np.ndarray,
    order: BatchOrder,
    ahead: int = 1,
    first: int = 0,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Batches without end, in the given order.

    A generator and no Keras dataset, of which Keras asks the first batches of an epoch two or three times: with a
    frozen backbone behind them each costs as much as a training step.

    Args:
        features: Positions (b,) and the number of the pass → (b, …).
        targets: (n, classes) one-hot.
        weights: (n,) float32, of each image in the loss.
        order: Of the n images.
        ahead: Batches whose features are asked for at once.
        first: The batch to begin with. Those before it cost nothing.
    """
    begin, skipped = divmod(first, batches_of(len(targets), order.batch_size))
    # Features are asked for in the same portions wherever a training begins: their last bits may depend on that.
    at, portion = skipped * order.batch_size, ahead * order.batch_size
    for turn in count(begin):
        positions = order.positions(turn)
        for start in range(at // portion * portion, len(positions), portion):
            rows = positions[start : start + portion]
            made = features(rows, turn)
            for inside in range(max(0, at - start), len(rows), order.batch_size):
                batch = slice(inside, inside + order.batch_size)
                yield made[batch], targets[rows[batch]], weights[rows[batch]]
        at = 0


def batches_of(images: int, batch_size: int) -> int:
    """Batches that hold ``images`` images, the last one perhaps not full."""
    return -(-images // batch_size)
