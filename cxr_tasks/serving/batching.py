"""Puts the images of callers who ask at the same time into one batch of the network."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np

# Pixels (n, S, S) uint8 to probabilities (n, classes).
ProbabilitiesOf = Callable[[np.ndarray], np.ndarray]


class _Call(NamedTuple):
    network: ProbabilitiesOf
    pixels: np.ndarray
    answer: Future[np.ndarray]


class Batcher:
    """Asks networks for several callers at once, in a thread of its own.

    It never waits for company: while a network computes, callers gather, and the next batch takes all of them. A batch
    holds callers of one network, so whoever asked a network that was just replaced is answered by that network.
    """

    def __init__(self, most: int, on_batch: Callable[[int], None] = lambda images: None) -> None:
        """Begin to take calls.

        Args:
            most: Images in a batch; the images of one caller stay together even if they are more.
            on_batch: Told of the images of each batch.
        """
        self._most, self._on_batch = most, on_batch
        self._waiting: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._lock, self._closed = threading.Lock(), False
        threading.Thread(target=self._work, name="batches", daemon=True).start()

    def submit(self, network: ProbabilitiesOf, pixels: np.ndarray) -> Future[np.ndarray]:
        """Probabilities (n, classes) of (n, S, S) uint8, as soon as they are there. Any number of threads may call.

        Raises:
            RuntimeError: It was closed.
        """
        call = _Call(network, pixels, Future())
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
        """Those who wait for the same network, up to a full batch; and who came next, where somebody was taken."""
        batch, images = [first], len(first.pixels)
        while images < self._most:
            try:
                following = self._waiting.get_nowait()
            except queue.Empty:
                break
            if following is None or following.network != first.network:
                return batch, [following]
            if images + len(following.pixels) > self._most:
                return batch, [following]
            batch.append(following)
            images += len(following.pixels)
        return batch, []

    def _answer(self, batch: list[_Call]) -> None:
        try:
            pixels = np.concatenate([call.pixels for call in batch])
            self._on_batch(len(pixels))
            found = batch[0].network(pixels)
            parts = np.split(found, np.cumsum([len(call.pixels) for call in batch])[:-1])
        except BaseException as error:  # whoever waits must hear of it, and the thread must go on
            for call in batch:
                call.answer.set_exception(error)
            return
        for call, part in zip(batch, parts, strict=True):
            call.answer.set_result(part)
