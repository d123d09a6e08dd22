"""Many small pieces of work on all cores of the task."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

# Handing a thread one file of some 40 kB, and taking its result back, costs more time than hashing it.
BLOCK = 8

Thing = TypeVar("Thing")
Result = TypeVar("Result")


def in_blocks(work: Callable[[Thing], Result], things: Sequence[Thing]) -> Iterator[list[Result]]:
    """``work`` of each thing, in order, ``BLOCK`` of them at a time, in a thread for each core of the task."""

    def block(start: int) -> list[Result]:
        return [work(thing) for thing in things[start : start + BLOCK]]

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        yield from threads.map(block, range(0, len(things), BLOCK))
