"""The clock of a process and of what it begins, which jumps when it is told to: Debian's libfaketime."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

LIBRARY = max(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), default=Path("/nonexistent"))
# Left to itself, the library 0.9.10 refuses every sleep where the time since the start is to go on as it is.
SLEEP = """
#define _GNU_SOURCE
#include <errno.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_nanosleep(clockid_t clock, int flags, const struct timespec *asked, struct timespec *left) {
    return syscall(SYS_clock_nanosleep, clock, flags, asked, left) ? errno : 0;
}
"""


def cannot_jump() -> str:
    """Why no clock can jump here; empty where one can."""
    lacks = [
        name
        for name, is_there in {"libfaketime": LIBRARY.is_file(), "gcc": shutil.which("gcc")}.items()
        if not is_there
    ]
    return f"not installed: {', '.join(lacks)}" if lacks else ""


class Clock:
    """What a process takes for the time.

    Attributes:
        variables: Of the process.
    """

    def __init__(self, folder: Path) -> None:
        """The true time. ``folder``: where the process looks for what it is to add."""
        self._added, sleep = folder / "added", folder / "sleep.so"
        self.jump(0)
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-x", "c", "-o", str(sleep), "-"], input=SLEEP, text=True, check=True
        )
        self.variables = {
            "LD_PRELOAD": f"{sleep}:{LIBRARY}",
            "FAKETIME_TIMESTAMP_FILE": str(self._added),
            "FAKETIME_NO_CACHE": "1",
            "NO_FAKE_STAT": "1",
            # A clock that is set does not change the time since the start.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def jump(self, seconds: int) -> None:
        """Be so far ahead of the true time from now on."""
        self._added.write_text(f"{seconds:+d}")
