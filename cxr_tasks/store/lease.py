"""Leases: of all processes that ask for a name, one at a time goes on.

In a folder a lease is a lock on a file, which the system frees when its process ends, however that ends. In S3 it is
an object that its holder writes again and again; one that was not written for a while counts as free.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from cxr_tasks.store.conditional import ConditionalBucket, Version

log = logging.getLogger(__name__)

LEASES = "leases"
# A lease in S3 that was not renewed for so long is free; it is renewed three times as often.
LEASE_SECONDS = 60.0
# How long a waiting process sleeps between two looks, at first and at most, and when it says again that it waits.
FIRST_LOOK, LAST_LOOK, WORD_SECONDS = 0.05, 2.0, 600.0
# What ``flock`` says where the file system has no locks.
NO_LOCKS = "two runs that make the same artifact at once do not wait for each other. Start one run at a time."


class LeaseHeld(Exception):
    """Somebody else holds the name. That passes: worth a retry."""

    passes = True


class LeaseLost(ConnectionError):
    """Another process holds the name now. Worth a retry."""


class Lease:
    """What a block holds.

    A lease in S3 may be late: the store was away, and nobody knows whether another process has taken the name.

    Attributes:
        name: What is held.
        waited: Whether somebody else held the name when it was asked for: what is to be done may be done already.
    """

    def __init__(self, name: str, *, waited: bool = False, held: _HeldObject | None = None) -> None:
        """Note what is held. ``held``: the object in S3 that says so."""
        self.name, self.waited = name, waited
        self._held = held

    def is_late(self) -> bool:
        """Whether the lease was not renewed in time.

        Raises:
            LeaseLost: Another process was seen to have it.
        """
        if self._held is not None and self._held.is_lost:
            raise LeaseLost(f"The lease {self.name} was lost to another run, because the store did not answer in time.")
        return self._held is not None and self._held.is_late

    def check(self) -> None:
        """Go on only where the lease is held: one that is late is renewed now.

        Raises:
            LeaseLost: Another process has it.
        """
        if self._held is not None and self.is_late():
            self._held.renew()
            self.is_late()


@contextmanager
def hold_file(folder: Path, name: str, work: str, *, wait: bool) -> Iterator[Lease]:
    """A lease as :meth:`Store.lease` describes it: a lock on the file ``name`` below ``folder``."""
    path = folder / f"{name}.lock"
    waiting = _Waiting(work, wait=wait)
    while (file := _locked_file(path, waiting.no_locks)) is None:
        waiting.look_again(lambda: path.read_text(encoding="utf-8"))
    with file:
        try:
            yield Lease(name, waited=waiting.began)
        finally:
            # While the lock is still held: who opened this very file sees that it is gone, and opens a new one.
            with suppress(OSError):
                path.unlink()


def _locked_file(path: Path, no_locks: Callable[[OSError], None]) -> IO[str] | None:
    """The file, locked until it is closed; ``None`` where another process has it."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        except OSError as error:
            no_locks(error)
            return file
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                file.truncate(0)
                # A word for those who wait. The lock is held without, where the disk is full.
                with suppress(OSError):
                    os.write(file.fileno(), _this_process().encode())
                return file
        file.close()  # who held it before has just removed it


@contextmanager
def hold_object(bucket: ConditionalBucket, name: str, work: str, *, wait: bool) -> Iterator[Lease]:
    """A lease as :meth:`Store.lease` describes it: the object ``name`` below ``leases``."""
    if not bucket.knows_conditions():
        yield Lease(name)
        return
    held = _HeldObject(bucket, f"{LEASES}/{name}.json")
    waiting = _Waiting(work, wait=wait)
    while not held.take():
        waiting.look_again(lambda: json.loads(held.before.content)["who"] if held.before else "another process")
    done = threading.Event()
    renewing = threading.Thread(target=held.renew_until, args=(done,), name=f"lease {name}", daemon=True)
    renewing.start()
    try:
        yield Lease(name, waited=waiting.began, held=held)
    finally:
        done.set()
        renewing.join()
        held.give_back()


class _HeldObject:
    """An object that says who holds a name."""

    def __init__(self, bucket: ConditionalBucket, path: str) -> None:
        self.bucket, self.path, self.owner = bucket, path, uuid.uuid4().hex
        self.before: Version | None = None
        self.tag: str | None = None
        self.renewed = 0.0
        self.is_lost = False
        self._renewing = threading.Lock()

    @property
    def is_late(self) -> bool:
        """Whether another process may take the object for a free one."""
        return time.monotonic() - self.renewed >= LEASE_SECONDS

    def take(self) -> bool:
        """Write the object where there is none, or one that was not renewed in time."""
        self.before = self.bucket.read(self.path)
        if self.before is not None and self.before.age < LEASE_SECONDS:
            return False
        began = time.monotonic()
        self.tag = self._write(None if self.before is None else self.before.tag)
        self.renewed = began
        return self.tag is not None and self._is_own()

    def renew_until(self, done: threading.Event) -> None:
        """Write the object again and again until ``done``, or somebody else has it."""
        while not self.is_lost and not done.wait(LEASE_SECONDS / 3):
            try:
                self.renew()
            except Exception as error:
                # A store that is away for hours takes the name from nobody. Who comes back first has it.
                log.info("the lease %s was not renewed: %s", self.path, error)

    def renew(self) -> None:
        """Write the object once more; it is lost where somebody else wrote it meanwhile."""
        with self._renewing:
            began = time.monotonic()
            tag = self._write(self.tag)
            if tag is None:
                there = self.bucket.read(self.path)
                if there is None:
                    tag = self._write(None)  # removed by hand; nobody has it
                elif self._wrote(there):
                    # A write whose answer was lost on the way.
                    tag = self._write(there.tag)
            if tag is None:
                self.is_lost = True
            else:
                self.tag, self.renewed = tag, began

    def give_back(self) -> None:
        """Delete the object, if nobody can have taken over."""
        # One that is late is left to run out: somebody else may be writing it now.
        if time.monotonic() - self.renewed < LEASE_SECONDS / 2:
            with suppress(Exception):
                if self._is_own():
                    self.bucket.delete([self.path])

    def _write(self, before: str | None) -> str | None:
        told = {"owner": self.owner, "who": _this_process(), "write": uuid.uuid4().hex}
        return self.bucket.write(self.path, json.dumps(told).encode(), before)

    def _wrote(self, there: Version) -> bool:
        try:
            return bool(json.loads(there.content).get("owner") == self.owner)
        except (ValueError, AttributeError):
            return False

    def _is_own(self) -> bool:
        # Some servers look at the condition and then write, and let two through at the same moment.
        there = self.bucket.read(self.path)
        return there is not None and there.tag == self.tag


class _Waiting:
    """Sleeps between two looks at a lease, and says now and then for whom."""

    def __init__(self, work: str, *, wait: bool) -> None:
        self.work, self.wait, self.began = work, wait, False
        self.pause, self.word = FIRST_LOOK, 0.0

    def look_again(self, who: Callable[[], str]) -> None:
        """Sleep until it is time to look again."""
        now = time.monotonic()
        if not self.wait or not self.began or now >= self.word:
            try:
                holder = who()
            except (OSError, ValueError, KeyError):
                holder = ""
            holder = holder or "another process"
            if not self.wait:
                raise LeaseHeld(f"{self.work} is under way ({holder}).")
            if self.work:
                log.warning("%s is under way in another run (%s): waiting until that has ended", self.work, holder)
            self.began, self.word = True, now + WORD_SECONDS
        time.sleep(self.pause)
        self.pause = min(2 * self.pause, LAST_LOOK)

    def no_locks(self, error: OSError) -> None:
        """Say that the file system has no locks."""
        log.warning("The store's file system has no locks (%s): %s", error.strerror, NO_LOCKS)


def _this_process() -> str:
    return f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}"
