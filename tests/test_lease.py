"""Leases: one process at a time, whatever is killed, lost or not known to the server."""

import errno
import fcntl
import logging
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cxr_tasks.store import LeaseHeld, LeaseLost, S3Store, Store, conditional, lease, open_store

NAME = "champion/cxr best of all"
HOLD = (
    "import sys, time; from cxr_tasks.store import open_store\n"
    "with open_store().lease(sys.argv[1], 'the work'): print('held', flush=True); time.sleep(60)"
)
COUNT = (
    "import sys; from cxr_tasks.store import open_store; store = open_store()\n"
    "for _ in range(20):\n"
    "    with store.lease(sys.argv[1], 'counting'):\n"
    "        store.write_pointer('count', (store.read_pointer('count') or 0) + 1)"
)


@pytest.fixture(params=["folder", "s3"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    address = str(tmp_path / "store") if request.param == "folder" else request.getfixturevalue("s3")
    monkeypatch.setenv("CXR_STORE", address)
    # The server tells times in whole seconds.
    monkeypatch.setattr(lease, "LEASE_SECONDS", 2.0)
    return open_store()


@pytest.fixture
def s3_store(s3: str, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    monkeypatch.setattr(lease, "LEASE_SECONDS", 2.0)
    opened = open_store(s3)
    assert isinstance(opened, S3Store)
    return opened


def without_conditions(store: S3Store) -> None:
    """As if the server had never heard of conditions."""

    def strip(params: dict[str, Any], **_: Any) -> None:
        for name in ("If-None-Match", "If-Match"):
            params["headers"].pop(name, None)

    store.bucket.client.meta.events.register("before-call.s3.PutObject", strip)


def left(store: Store) -> list[str]:
    if isinstance(store, S3Store):
        return [found.path for found in store.bucket.objects("leases/")]
    return [path.name for path in (store.root / "leases").rglob("*") if path.is_file()]  # type: ignore[attr-defined]


def test_of_many_that_change_a_value_none_is_lost(any_store: Store) -> None:
    def count(_: int) -> None:
        own = open_store()
        for _ in range(5):
            with own.lease(NAME, "counting"):
                own.write_pointer("count", (own.read_pointer("count") or 0) + 1)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(count, range(4)))

    assert any_store.read_pointer("count") == 20
    assert left(any_store) == []


def test_processes_count_without_losing_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_STORE", str(tmp_path))
    counting = [subprocess.Popen([sys.executable, "-c", COUNT, NAME]) for _ in range(3)]

    assert [process.wait(timeout=60) for process in counting] == [0, 0, 0]
    assert open_store().read_pointer("count") == 60


def test_the_one_who_waits_is_told_for_whom(any_store: Store, caplog: pytest.LogCaptureFixture) -> None:
    with ThreadPoolExecutor(1) as thread:
        with any_store.lease(NAME, "the promotion") as first:
            waiting = thread.submit(lambda: _waited(NAME))
            while "waiting" not in caplog.text:
                time.sleep(0.01)
        assert waiting.result(timeout=30)

    assert not first.waited
    assert f"the promotion is under way in another run (process {os.getpid()} on " in caplog.text
    assert caplog.text.count("under way") == 1


def _waited(name: str) -> bool:
    with open_store().lease(name, "the promotion") as second:
        return second.waited


def test_a_free_lease_is_had_at_once(any_store: Store) -> None:
    for _ in range(2):
        with any_store.lease(NAME, "the work") as held:
            held.check()
        assert not held.waited
    with any_store.lease(NAME, "the work"), any_store.lease("another", "other work", wait=False) as other:
        assert not other.waited


def test_who_does_not_wait_hears_of_it(any_store: Store) -> None:
    with (
        any_store.lease(NAME, "the work"),
        pytest.raises(LeaseHeld, match="the work is under way"),
        any_store.lease(NAME, "the work", wait=False),
    ):
        pytest.fail("two hold it")


def test_a_block_that_raises_gives_the_lease_back(any_store: Store) -> None:
    with pytest.raises(ZeroDivisionError), any_store.lease(NAME, "the work"):
        raise ZeroDivisionError

    with any_store.lease(NAME, "the work", wait=False) as held:
        held.check()


def test_the_lease_of_a_killed_process_is_free(any_store: Store) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, NAME], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(LeaseHeld), any_store.lease(NAME, "the work", wait=False):
            pytest.fail("two hold it")
        os.kill(holder.pid, signal.SIGKILL)

    began = time.monotonic()
    with any_store.lease(NAME, "the work"):
        assert time.monotonic() - began < 10


def test_a_lease_is_renewed_as_long_as_its_block_runs(s3_store: S3Store) -> None:
    with s3_store.lease(NAME, "the work") as held:
        until = time.monotonic() + 4
        while time.monotonic() < until:
            with pytest.raises(LeaseHeld), s3_store.lease(NAME, "the work", wait=False):
                pytest.fail("two hold it")
            time.sleep(0.2)
        held.check()


def test_a_lease_that_another_took_over_is_lost_and_left_to_the_other(s3_store: S3Store) -> None:
    path = f"leases/{NAME}.json"
    with s3_store.lease(NAME, "the work") as held:
        s3_store.bucket.put(path, b'{"who": "another machine"}')
        with pytest.raises(LeaseLost, match="was lost to another run"):
            for _ in range(100):
                held.check()
                time.sleep(0.05)

    assert s3_store.bucket.get(path) == b'{"who": "another machine"}'


def test_a_store_that_is_away_for_long_takes_the_lease_from_nobody(
    s3_store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = s3_store.bucket.write

    def away(*_: Any) -> None:
        raise ConnectionError("nobody answers")

    with s3_store.lease(NAME, "the training") as held:
        monkeypatch.setattr(s3_store.bucket, "write", away)
        time.sleep(3)
        assert held.is_late()
        with pytest.raises(ConnectionError, match="nobody answers"):
            held.check()
        monkeypatch.setattr(s3_store.bucket, "write", write)
        held.check()
        assert not held.is_late()


def test_who_comes_back_too_late_has_lost_the_lease(s3_store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write, path = s3_store.bucket.write, f"leases/{NAME}.json"

    def away(*_: Any) -> None:
        raise ConnectionError("nobody answers")

    with s3_store.lease(NAME, "the training") as held:
        monkeypatch.setattr(s3_store.bucket, "write", away)
        time.sleep(3)
        there = s3_store.bucket.read(path)
        assert there is not None and write(path, b'{"who": "another machine"}', there.tag)
        monkeypatch.setattr(s3_store.bucket, "write", write)
        with pytest.raises(LeaseLost, match="was lost to another run"):
            held.check()


def test_a_renewal_whose_answer_was_lost_loses_no_lease(s3_store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write = s3_store.bucket.write

    def written_and_lost(*given: Any) -> None:
        write(*given)
        raise ConnectionError("the answer was lost")

    with s3_store.lease(NAME, "the training") as held:
        monkeypatch.setattr(s3_store.bucket, "write", written_and_lost)
        time.sleep(1.5)
        monkeypatch.setattr(s3_store.bucket, "write", write)
        time.sleep(1.5)
        held.check()
        assert not held.is_late()


def test_a_lease_that_somebody_deleted_is_written_again(s3_store: S3Store) -> None:
    with s3_store.lease(NAME, "the work") as held:
        s3_store.bucket.delete([f"leases/{NAME}.json"])
        time.sleep(1.5)
        held.check()
        assert left(s3_store) == [f"leases/{NAME}.json"]


def test_a_server_without_conditions_is_told_of_once_and_nobody_waits(
    s3_store: S3Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(conditional, "_answers", {})
    without_conditions(s3_store)

    for _ in range(2):
        with s3_store.lease(NAME, "the work"), s3_store.lease(NAME, "the work", wait=False) as held:
            held.check()

    assert not s3_store.bucket.knows_conditions()
    assert caplog.text.count("knows no conditional writes") == 1
    assert left(s3_store) == []


def test_a_server_with_conditions_is_asked_once(s3_store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditional, "_answers", {})

    assert s3_store.bucket.knows_conditions()
    monkeypatch.setattr(s3_store.bucket, "write", lambda *_: pytest.fail("asked again"))
    assert s3_store.bucket.knows_conditions()
    assert left(s3_store) == []


def test_a_write_whose_answer_was_lost_counts(s3_store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put = s3_store.bucket.client.put_object

    def twice(**asked: Any) -> Any:
        put(**asked)
        return put(**asked)

    monkeypatch.setattr(s3_store.bucket.client, "put_object", twice)

    first = s3_store.bucket.write("one", b"mine", None)
    assert first is not None
    assert s3_store.bucket.write("one", b"not the same", None) is None
    assert s3_store.bucket.write("one", b"next", first) is not None


def test_a_file_system_without_locks_is_told_of_and_nobody_waits(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def flock(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with caplog.at_level(logging.WARNING), store.lease(NAME, "the work") as held:
        held.check()

    assert "file system has no locks (No locks available)" in caplog.text
