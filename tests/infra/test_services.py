"""Servers that end are started again, and what they left behind is gone."""

import os
import subprocess
import sys
import time

import psutil
import pytest

from infra.embedded import services
from infra.embedded.processes import end, in_sessions, orphans
from infra.embedded.services import Service, Watch

# A server with a process below it, which writes the number of that process.
WITH_CHILD = """
import subprocess, time
print(subprocess.Popen(["sleep", "600"]).pid, flush=True)
time.sleep(600)
"""
# A server with such a server below it.
WITH_GRANDCHILD = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {WITH_CHILD!r}]).wait()
time.sleep(600)
"""
DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(1, flush=True)
time.sleep(600)
"""


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError("it did not happen")


def service(tmp_path, code):
    return Service("server", [sys.executable, "-c", code], tmp_path / "server.log", tmp_path, dict(os.environ))


def numbers(tmp_path):
    return [int(line) for line in (tmp_path / "server.log").read_text().split()]


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """Starts a server that is looked after, and ends it."""
    monkeypatch.setattr(services, "LOOK_SECONDS", 0.02)
    watches = []

    def begin(code):
        server, restarted = service(tmp_path, code), []
        watch = Watch([server], lambda each: restarted.append(each.name))
        watches.append((watch, server))
        return watch, server, restarted

    yield begin
    for watch, server in watches:
        end(watch.stop() | in_sessions({server.process.pid}), polite_seconds=0)


def test_a_killed_server_is_started_again_and_its_children_are_ended(tmp_path, watched):
    watch, server, restarted = watched(WITH_CHILD)
    (child,) = wait_for(lambda: numbers(tmp_path))

    server.process.kill()

    wait_for(lambda: len(numbers(tmp_path)) == 2)
    assert restarted == ["server"] and watch.fault is None
    assert not psutil.pid_exists(child) and not server.has_ended()


def test_processes_that_others_began_are_not_the_watchs(tmp_path, watched):
    other = subprocess.Popen(["sleep", "600"])
    watch, _, _ = watched(WITH_CHILD)
    (child,) = wait_for(lambda: numbers(tmp_path))
    time.sleep(0.3)

    try:
        assert {process.pid for process in watch.stop()} == {child}
    finally:
        other.kill()


def test_a_server_that_ends_again_and_again_is_given_up(tmp_path, watched):
    watch, _, restarted = watched("raise SystemExit(3)")

    fault = str(wait_for(lambda: watch.fault))

    assert len(restarted) == services.RESTARTS
    assert fault.startswith("server cannot be kept up: it ended 21 times within 10 minutes.")
    assert str(tmp_path / "server.log") in fault


def test_a_program_that_cannot_be_started_any_more_is_a_fault(tmp_path, watched):
    watch, server, _ = watched(WITH_CHILD)
    wait_for(lambda: numbers(tmp_path))
    server.command = [str(tmp_path / "gone")]

    server.process.kill()

    assert "cannot be kept up" in str(wait_for(lambda: watch.fault))


def test_orphans_are_those_without_a_living_parent_in_the_session(tmp_path):
    server = service(tmp_path, WITH_GRANDCHILD)
    (grandchild,) = wait_for(lambda: numbers(tmp_path))
    session = server.process.pid
    assert orphans(session) == set()

    psutil.Process(grandchild).parent().kill()

    try:
        assert wait_for(lambda: {each.pid for each in orphans(session)}) == {grandchild}
        assert not server.has_ended()
    finally:
        end(in_sessions({session}), polite_seconds=0)
    assert not psutil.pid_exists(grandchild)


def test_a_process_that_does_not_listen_is_ended_all_the_same(tmp_path):
    server = service(tmp_path, DEAF)
    wait_for(lambda: numbers(tmp_path))

    end(in_sessions({server.process.pid}), polite_seconds=0.2)

    assert not psutil.pid_exists(server.process.pid)
