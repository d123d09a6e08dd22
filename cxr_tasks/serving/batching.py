"""Puts the images of callers who ask at the same time into one batch of the network."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import accumulate
from typing import Any, NamedTuple

# How long a batch waits for images that are being decoded already.
WAIT_SECONDS = 0.02


class _Call(NamedTuple):
    work: Callable[[list[Any]], Sequence[Any]]
    images: Sequence[Any]
    answer: Future[list[Any]]


class Batcher:
    """Asks models for several callers at once, in a thread of its own.

    While a model computes, callers gather, and the next batch takes all of them. A batch holds callers of one model, so
    whoever asked a model that was just replaced is answered by that model.
    """

    def __init__(self, most: int, on_batch: Callable[[int], None] = lambda images: None) -> None:
        """Begin to take calls.

        Args:
            most: Images in a batch; the images of one caller stay together even if they are more.
            on_batch: Told of the images of each batch.
        """
        self._most, self._on_batch = most, on_batch
        self._waiting: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._lock, self._closed, self._coming = threading.Lock(), False, 0
        threading.Thread(target=self._work, name="batches", daemon=True).start()

    @contextmanager
    def coming(self) -> Iterator[None]:
        """Say that a caller will submit images before the block ends: a batch may wait for them, but not for long."""
        with self._lock:
            self._coming += 1
        try:
            yield
        finally:
            with self._lock:
                self._coming -= 1

    def submit(self, work: Callable[[list[Any]], Sequence[Any]], images: Sequence[Any]) -> Future[list[Any]]:
        """What ``work`` makes of each of ``images``, as soon as it is there. Any number of threads may call.

        Raises:
            RuntimeError: It was closed.
        """
        call = _Call(work, images, Future())
        # It begins at once, so that nobody who gives up can withdraw it under the hands of the thread.
        call.answer.set_running_or_notify_cancel()
        with self._lock:
            if self._closed:
                raise RuntimeError("No more calls are taken.")
            self._waiting.put(call)
        return call.answer

    def close(self) -> None:
        """Take no more calls, answer those who wait, and end the thread."""
        with self._lock:
            self._closed = True
            self._waiting.put(None)

    def _work(self) -> None:
        first = self._waiting.get()
        while first is not None:
            batch, following = self._gather(first)
            self._answer(batch)
            first = following[0] if following else self._waiting.get()

    def _gather(self, first: _Call) -> tuple[list[_Call], list[_Call | None]]:
        """Those who wait for the same model, up to a full batch; and who came next, where somebody was taken."""
        batch, images, until = [first], len(first.images), time.monotonic() + WAIT_SECONDS
        while images < self._most:
            try:
                following = self._waiting.get(self._coming > 0, max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if following is None or following.work != first.work:
                return batch, [following]
            if images + len(following.images) > self._most:
                return batch, [following]
            batch.append(following)
            images += len(following.images)
        return batch, []

    def _answer(self, batch: list[_Call]) -> None:
        try:
            images = [image for call in batch for image in call.images]
            self._on_batch(len(images))
            found = list(batch[0].work(images))
            if len(found) != len(images):
                raise RuntimeError(f"{len(images)} images have {len(found)} answers")
            ends = list(accumulate(len(call.images) for call in batch))
            parts = [found[end - len(call.images) : end] for call, end in zip(batch, ends, strict=True)]
        except BaseException as error:  # whoever waits must hear of it, and the thread must go on
            for call in batch:
                call.answer.set_exception(error)
            return
        for call, part in zip(batch, parts, strict=True):
            call.answer.set_result(part)
