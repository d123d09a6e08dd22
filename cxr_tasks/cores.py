"""How the tasks of a stack on one machine share its cores."""

from __future__ import annotations

import os

MOST_THREADS = 16


def cores() -> int:
    """Those of the machine that this process may use."""
    return len(os.sched_getaffinity(0))


def tasks_at_once() -> int:
    """How many tasks run at a time. More would not be slower, but each holds its images and features in memory."""
    return max(2, cores() // 4)


def threads_of_task() -> int:
    """How many threads the networks of a task have: all cores, up to 16.

    A training that is left alone takes all cores, and several share them. The number does not follow what else runs,
    because sums in another order have other last digits. Where there are more cores, more tasks share them.
    """
    return min(cores(), MOST_THREADS)
