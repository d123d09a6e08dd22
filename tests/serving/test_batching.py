"""Callers who ask at once share a batch, and each gets its own answer or the error."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cxr_tasks.serving.batching import Batcher


def sums(pixels: np.ndarray) -> np.ndarray:
    return pixels.sum(axis=(1, 2))[:, None]


def images(*values: int) -> np.ndarray:
    return np.array(values, np.int64)[:, None, None]


def test_callers_who_gather_while_the_network_computes_share_a_batch() -> None:
    sizes: list[int] = []

    def slow(pixels: np.ndarray) -> np.ndarray:
        time.sleep(0.05)
        return sums(pixels)

    batcher = Batcher(8, sizes.append)
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda n: batcher.submit(slow, images(n, n + 1)).result(60), range(16)))

    assert [part[:, 0].tolist() for part in found] == [[n, n + 1] for n in range(16)]
    assert sum(sizes) == 32 and len(sizes) < 16 and max(sizes) <= 8
    batcher.close()


def test_an_error_is_that_of_its_batch_and_the_next_is_answered() -> None:
    def fragile(pixels: np.ndarray) -> np.ndarray:
        if (pixels < 0).any():
            raise ValueError("negative")
        return sums(pixels)

    batcher = Batcher(8)
    with pytest.raises(ValueError, match="negative"):
        batcher.submit(fragile, images(-1)).result(60)

    assert batcher.submit(fragile, images(3)).result(60).tolist() == [[3]]
    batcher.close()


class Held:
    """A network that computes nothing before it may."""

    def __init__(self, factor: int = 1) -> None:
        self.factor, self.began, self.go = factor, threading.Event(), threading.Event()
        self.batches: list[int] = []

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        self.batches.append(len(pixels))
        self.began.set()
        self.go.wait(60)
        return self.factor * sums(pixels)


def test_nobody_who_waits_is_lost_when_it_is_closed() -> None:
    held, batcher = Held(), Batcher(1)
    waiting = [batcher.submit(held, images(n)) for n in range(4)]
    held.began.wait(60)

    batcher.close()
    held.go.set()

    assert [part.result(60).item() for part in waiting] == [0, 1, 2, 3]
    with pytest.raises(RuntimeError, match="No more calls"):
        batcher.submit(held, images(7))


def test_callers_of_two_networks_share_no_batch() -> None:
    """A new champion is taken up between two calls: each is answered by the network that it asked."""
    old, new, batcher = Held(), Held(factor=100), Batcher(8)
    new.go.set()
    waiting = [batcher.submit(old, images(0))]
    old.began.wait(60)
    waiting += [batcher.submit(network, images(n)) for n, network in enumerate((old, old, new, new, old), 1)]

    old.go.set()

    assert [part.result(60).item() for part in waiting] == [0, 1, 2, 300, 400, 5]
    assert (old.batches, new.batches) == ([1, 2, 1], [2])
    batcher.close()


def test_a_caller_who_would_make_a_batch_too_large_is_in_the_next() -> None:
    held, batcher = Held(), Batcher(4)
    waiting = [batcher.submit(held, images(*range(n))) for n in (1, 3, 3, 1, 9)]
    held.go.set()

    assert [len(part.result(60)) for part in waiting] == [1, 3, 3, 1, 9]
    # The first may or may not have begun alone.
    assert held.batches in ([1, 3, 4, 9], [4, 4, 9])
    batcher.close()


def test_whoever_gives_up_costs_nobody_else_the_answer() -> None:
    held, batcher = Held(), Batcher(1)
    first, second = batcher.submit(held, images(1)), batcher.submit(held, images(2))

    given_up = second.cancel()
    held.go.set()

    assert not given_up and first.result(60).item() == 1
    assert batcher.submit(held, images(3)).result(60).item() == 3
    batcher.close()
