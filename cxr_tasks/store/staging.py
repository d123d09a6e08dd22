"""Folders that tasks fill before anybody may see them, each locked as long as its process lives."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

STAGING = "staging"
# A folder of this machine that nobody has locked for so long was left by a process that died before it locked it, or
# after. One of another machine may be in use although no lock is seen here.
SETTLED_SECONDS, ELSEWHERE_SECONDS = 60.0, 30 * 86400.0


@contextmanager
def staging_folder(root: Path, name: str) -> Iterator[Path]:
    """An empty folder below ``root``, which is removed when the block ends, unless it was moved away.

    Args:
        root: The store; the folder is on its file system, so that one rename publishes.
        name: To be found by; slashes become dashes.
    """
    parent = root / STAGING
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{name.replace('/', '-')}-{_machine()}-", dir=parent))
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # on a file system without locks the age alone tells
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def is_in_use(folder: Path) -> bool:
    """Whether the process that fills ``folder`` may live: it is seen to, or was at work lately."""
    here = folder.name.split("-")[-2:-1] == [_machine()]
    age = time.time() - last_written(folder).timestamp()
    return age <= (SETTLED_SECONDS if here else ELSEWHERE_SECONDS) or _is_locked(folder)


def _is_locked(folder: Path) -> bool:
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False


def sweep_staging(root: Path) -> list[Path]:
    """Remove the folders whose processes have died. Returns those that were removed."""
    parent, removed = root / STAGING, []
    for folder in sorted(parent.iterdir()) if parent.is_dir() else ():
        if not is_in_use(folder):
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(folder)
    return removed


def last_written(folder: Path) -> datetime:
    """When anything in ``folder`` was last written."""
    times = [0.0]
    # Another process may be removing it: this walk passes over what has gone, and rglob raises.
    for place, _, files in os.walk(folder):
        for path in (place, *(os.path.join(place, file) for file in files)):
            with suppress(FileNotFoundError):
                times.append(os.lstat(path).st_mtime)
    return datetime.fromtimestamp(max(times), UTC)


def _machine() -> str:
    """Eight digits for this machine since it was started: its containers share them, and its locks."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
    except OSError:
        return "unknown"
