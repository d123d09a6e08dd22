"""Many small pieces of work on all cores of the task."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

# To hand a thread one file of some 40 kB, and to take its result back, costs more time than to hash it.
BLOCK = 8

Thing = TypeVar("Thing")
Result = TypeVar("Result")


def in_blocks(work: Callable[[Thing], Result], things: Sequence[Thing]) -> Iterator[list[Result]]:
    """Do ``work`` on each thing, in a thread for each core of the task.

    Args:
        work: Called with one thing.
        things: In their order.

    Yields:
        The results of the next ``BLOCK`` things, in order.
    """

    def block(start: int) -> list[Result]:
        return [work(thing) for thing in things[start : start + BLOCK]]

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        yield from threads.map(block, range(0, len(things), BLOCK))
