"""How far long work is. Steps say so here; whoever watches, a command line with progress bars say, listens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Listener = Callable[[str, int, int], None]

_listeners: list[Listener] = []


def advance(work: str, done: int, total: int) -> None:
    """Say that ``done`` of ``total`` parts of ``work`` are done; nothing happens where nobody listens."""
    for listener in _listeners:
        listener(work, done, total)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Have ``listener`` called with work, done and total while the block runs."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
