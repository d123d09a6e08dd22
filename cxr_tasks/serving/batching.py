"""Puts the images of callers who ask at the same time into one batch of the network."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np


class _Call(NamedTuple):
    pixels: np.ndarray
    answer: Future[np.ndarray]


class Batcher:
    """Asks a network for several callers at once, in a thread of its own.

    It never waits for company: while the network computes, callers gather, and the next batch takes all of them.
    """

    def __init__(
        self,
        run: Callable[[np.ndarray], np.ndarray],
        most: int,
        on_batch: Callable[[int], None] = lambda images: None,
    ) -> None:
        """Begin to take calls.

        Args:
            run: Pixels (n, S, S) uint8 to probabilities (n, classes).
            most: Images in a batch; the images of one caller stay together even if they are more.
            on_batch: Told of the images of each batch.
        """
        self._run, self._most, self._on_batch = run, most, on_batch
        self._waiting: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._lock, self._closed = threading.Lock(), False
        threading.Thread(target=self._work, name="batches", daemon=True).start()

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Probabilities (n, classes) of (n, S, S) uint8. Any number of threads may call."""
        call = _Call(pixels, Future())
        with self._lock:
            closed = self._closed
            if not closed and len(pixels):
                self._waiting.put(call)
        # Whoever holds a network that was just replaced is answered by that network.
        return self._run(pixels) if closed or not len(pixels) else call.answer.result()

    def close(self) -> None:
        """Answer those who wait, and end the thread."""
        with self._lock:
            self._closed = True
            self._waiting.put(None)

    def _work(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch, ended = [first], False
            while sum(len(call.pixels) for call in batch) < self._most:
                try:
                    following = self._waiting.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    ended = True
                    break
                batch.append(following)
            self._answer(batch)
            if ended:
                return

    def _answer(self, batch: list[_Call]) -> None:
        try:
            pixels = np.concatenate([call.pixels for call in batch])
            self._on_batch(len(pixels))
            found = self._run(pixels)
        except BaseException as error:  # whoever waits must hear of it, and the thread must go on
            for call in batch:
                call.answer.set_exception(error)
            return
        parts = np.split(found, np.cumsum([len(call.pixels) for call in batch])[:-1])
        for call, part in zip(batch, parts, strict=True):
            call.answer.set_result(part)
