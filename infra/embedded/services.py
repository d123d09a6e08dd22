"""The servers of the stack, kept up: one that ends is started again, and nothing of it is left behind."""

from __future__ import annotations

import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from cxr_tasks.errors import UserError
from infra.embedded.processes import end, in_sessions

# A server that ends more often than this within the time is broken, and starting it again helps nobody.
RESTARTS, WITHIN_SECONDS = 20, 600.0
LOOK_SECONDS = 0.5


class StackError(UserError, RuntimeError):
    """The stack cannot run."""


class Service:
    """One server.

    Attributes:
        name: What people call it; its log has this name.
        command: What starts it.
        log: Where its words go.
        environment: All its variables, from the next start on.
        process: The server as it runs now.
    """

    def __init__(self, name: str, command: list[str], log: Path, folder: Path, environment: Mapping[str, str]) -> None:
        """Start the server.

        Args:
            name: What people call it.
            command: What starts it.
            log: Where its words go, after those that are there.
            folder: Its working folder.
            environment: All its variables.
        """
        self.name, self.command, self.log = name, command, log
        self._folder, self.environment = folder, environment
        self._starts: deque[float] = deque(maxlen=RESTARTS + 1)
        self.process = self._start()

    def has_ended(self) -> bool:
        """Whether the server is not there any more."""
        return self.process.poll() is not None

    def start_again(self) -> None:
        """End what the server left behind, and start it.

        Raises:
            StackError: The server has ended too often.
        """
        if len(self._starts) > RESTARTS and time.monotonic() - self._starts[0] < WITHIN_SECONDS:
            raise StackError(
                f"it ended {RESTARTS + 1} times within {WITHIN_SECONDS / 60:.0f} minutes. "
                f"Its last words are in {self.log}."
            )
        # Tasks of a scheduler that is gone report to nobody, and the next scheduler hands their work out anew.
        end(in_sessions({self.process.pid}), polite_seconds=0)
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        self._starts.append(time.monotonic())
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self.command,
                cwd=self._folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A session of its own: Ctrl-C reaches only this program, which then ends all of them in order.
                start_new_session=True,
            )


class Watch:
    """Looks after services in a thread of its own.

    Attributes:
        fault: Why the stack cannot go on; ``None`` while it can.
    """

    def __init__(self, services: list[Service], on_restart: Callable[[Service], None]) -> None:
        """Begin to look after ``services``.

        Args:
            services: The servers.
            on_restart: Is called after one was started again.
        """
        self.fault: StackError | None = None
        self._services, self._on_restart = services, on_restart
        self._stopping = threading.Event()
        self._seen: set[psutil.Process] = set()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> set[psutil.Process]:
        """Look no more. Returns all processes that were seen below the services and are still there."""
        self._stopping.set()
        self._thread.join()
        return {process for process in self._seen if process.is_running()}

    def _look(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            # One that leaves its session is still found at the end.
            self._seen = {process for process in self._seen if process.is_running()}
            for service in self._services:
                with suppress(psutil.NoSuchProcess):
                    self._seen |= set(psutil.Process(service.process.pid).children(recursive=True))
            for service in self._services:
                if not service.has_ended():
                    continue
                try:
                    service.start_again()
                except (StackError, OSError) as error:
                    self.fault = StackError(f"{service.name} cannot be kept up: {error}")
                    return
                self._on_restart(service)
