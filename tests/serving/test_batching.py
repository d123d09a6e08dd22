"""Callers who ask at once share a batch, and each gets its own answer or the error."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cxr_tasks.serving import batching
from cxr_tasks.serving.batching import Batcher


class Held:
    """A model that answers with a multiple of what it is given, and nothing before it may."""

    def __init__(self, factor: int = 1) -> None:
        self.factor, self.began, self.go = factor, threading.Event(), threading.Event()
        self.batches: list[int] = []

    def __call__(self, images: list[int]) -> list[int]:
        self.batches.append(len(images))
        self.began.set()
        self.go.wait(60)
        return [self.factor * image for image in images]


def test_callers_who_gather_while_the_model_computes_share_a_batch() -> None:
    sizes: list[int] = []

    def slow(images: list[int]) -> list[int]:
        time.sleep(0.05)
        return [-image for image in images]

    batcher = Batcher(8, sizes.append)
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda n: batcher.submit(slow, [n, n + 1]).result(60), range(16)))

    assert found == [[-n, -n - 1] for n in range(16)]
    assert sum(sizes) == 32 and len(sizes) < 16 and max(sizes) <= 8
    batcher.close()


def test_an_error_is_that_of_its_batch_and_the_next_is_answered() -> None:
    def fragile(images: list[int]) -> list[int]:
        if min(images) < 0:
            raise ValueError("negative")
        return images[: 1 if len(images) > 2 else None]

    batcher = Batcher(8)
    with pytest.raises(ValueError, match="negative"):
        batcher.submit(fragile, [-1]).result(60)
    with pytest.raises(RuntimeError, match="3 images have 1 answers"):
        batcher.submit(fragile, [1, 2, 3]).result(60)

    assert batcher.submit(fragile, [3]).result(60) == [3]
    batcher.close()


def test_no_images_are_no_answers() -> None:
    batcher = Batcher(8)

    assert batcher.submit(list, []).result(60) == []
    batcher.close()


def test_nobody_who_waits_is_lost_when_it_is_closed() -> None:
    held, batcher = Held(), Batcher(1)
    waiting = [batcher.submit(held, [n]) for n in range(4)]
    held.began.wait(60)

    batcher.close()
    held.go.set()

    assert [part.result(60) for part in waiting] == [[0], [1], [2], [3]]
    with pytest.raises(RuntimeError, match="No more calls"):
        batcher.submit(held, [7])


def test_callers_of_two_models_share_no_batch() -> None:
    """A new champion is taken up between two calls: each is answered by the model that it asked."""
    old, new, batcher = Held(), Held(factor=100), Batcher(8)
    new.go.set()
    waiting = [batcher.submit(old, [0])]
    old.began.wait(60)
    waiting += [batcher.submit(model, [n]) for n, model in enumerate((old, old, new, new, old), 1)]

    old.go.set()

    assert [part.result(60) for part in waiting] == [[0], [1], [2], [300], [400], [5]]
    assert (old.batches, new.batches) == ([1, 2, 1], [2])
    batcher.close()


def test_a_caller_who_would_make_a_batch_too_large_is_in_the_next() -> None:
    held, batcher = Held(), Batcher(4)
    waiting = [batcher.submit(held, range(n)) for n in (1, 3, 3, 1, 9)]
    held.go.set()

    assert [len(part.result(60)) for part in waiting] == [1, 3, 3, 1, 9]
    # The first may or may not have begun alone.
    assert held.batches in ([1, 3, 4, 9], [4, 4, 9])
    batcher.close()


def test_a_batch_waits_for_images_that_are_being_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "WAIT_SECONDS", 60.0)
    held, batcher = Held(), Batcher(2)
    held.go.set()

    with batcher.coming():
        first = batcher.submit(held, [1])
        time.sleep(0.05)
        waited = not held.began.is_set()
        second = batcher.submit(held, [2])

    assert (first.result(60), second.result(60)) == ([1], [2])
    assert waited and held.batches == [2]
    # Nobody else is on the way: nobody is waited for.
    assert batcher.submit(held, [3]).result(30) == [3]
    batcher.close()


def test_a_batch_does_not_wait_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "WAIT_SECONDS", 0.01)
    held, batcher = Held(), Batcher(2)
    held.go.set()

    with batcher.coming():
        assert batcher.submit(held, [1]).result(60) == [1]
    batcher.close()


def test_whoever_gives_up_costs_nobody_else_the_answer() -> None:
    held, batcher = Held(), Batcher(1)
    first, second = batcher.submit(held, [1]), batcher.submit(held, [2])

    given_up = second.cancel()
    held.go.set()

    assert not given_up and first.result(60) == [1]
    assert batcher.submit(held, [3]).result(60) == [3]
    batcher.close()
