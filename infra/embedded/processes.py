"""Processes by the session that they were started in: found, and ended."""

from __future__ import annotations

import os
from collections.abc import Iterable

import psutil

# Between asking a process to end and ending it.
POLITE_SECONDS = 8.0


def in_sessions(sessions: Iterable[int]) -> set[psutil.Process]:
    """All processes of the given sessions, and their descendants.

    Args:
        sessions: Numbers of sessions. Each is the number of the process that began the session.
    """
    wanted = set(sessions)
    found: set[psutil.Process] = set()
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) in wanted:
                found |= {process, *process.children(recursive=True)}
        except (ProcessLookupError, psutil.Error):
            continue
    return found


def orphans(session: int) -> set[psutil.Process]:
    """The processes of a session whose parents are gone: no living process of the session began them.

    Args:
        session: Number of the session.
    """
    members = in_sessions({session})
    numbers = {process.pid for process in members}
    found = set()
    for process in members:
        try:
            if process.pid != session and process.ppid() not in numbers:
                found |= {process, *process.children(recursive=True)}
        except psutil.Error:
            continue
    return found


def end(processes: Iterable[psutil.Process], polite_seconds: float = POLITE_SECONDS) -> None:
    """End processes, politely first.

    Args:
        processes: Those to end; some may be gone already.
        polite_seconds: How long they may take to end by themselves. With 0 they are not asked.
    """
    alive = list(processes)
    if polite_seconds:
        for process in alive:
            try:
                process.terminate()
            except psutil.NoSuchProcess:
                continue
        _, alive = psutil.wait_procs(alive, timeout=polite_seconds)
    for process in alive:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(alive, timeout=5)
