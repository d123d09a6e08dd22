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

    batcher = Batcher(slow, 8, sizes.append)
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda n: batcher(images(n, n + 1)), range(16)))

    assert [part[:, 0].tolist() for part in found] == [[n, n + 1] for n in range(16)]
    assert sum(sizes) == 32 and len(sizes) < 16 and max(sizes) <= 9
    batcher.close()


def test_an_error_is_that_of_its_batch_and_the_next_is_answered() -> None:
    def fragile(pixels: np.ndarray) -> np.ndarray:
        if (pixels < 0).any():
            raise ValueError("negative")
        return sums(pixels)

    batcher = Batcher(fragile, 8)
    with pytest.raises(ValueError, match="negative"):
        batcher(images(-1))

    assert batcher(images(3)).tolist() == [[3]]
    batcher.close()


def test_nobody_is_lost_when_it_is_closed() -> None:
    began, go = threading.Event(), threading.Event()

    def held(pixels: np.ndarray) -> np.ndarray:
        began.set()
        go.wait(10)
        return sums(pixels)

    batcher = Batcher(held, 1)
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(batcher, images(n)) for n in range(4)]
        began.wait(10)
        batcher.close()
        go.set()
        assert [part.result(10).item() for part in waiting] == [0, 1, 2, 3]

    assert batcher(images(7)).tolist() == [[7]]


def test_no_images_are_no_work() -> None:
    assert Batcher(sums, 4)(images()).shape == (0, 1)
