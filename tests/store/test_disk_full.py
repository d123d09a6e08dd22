"""A disk of a few megabytes becomes full while an artifact is written: one sentence is said, and nothing half stays."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

from cxr_tasks.artifacts import Artifact, RunContext
from cxr_tasks.cache import full_disk_told, is_disk_full
from cxr_tasks.data.stacks import on_disk
from cxr_tasks.errors import UserError
from cxr_tasks.outages import is_passing, patience
from cxr_tasks.pipeline import Made, perform
from cxr_tasks.store import open_store
from tests.servers import answering

RUN = RunContext(dag_run="one", settings="")
MIB = 2**20
NUMBERS = np.random.default_rng(0).random((1000, 500))


class Written(Artifact):
    """Files."""

    step: ClassVar[str] = "written"


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A disk of 3 MiB with the store and the cache."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    monkeypatch.setenv("CXR_STORE", str(place / "store"))
    monkeypatch.setenv("CXR_CACHE", str(place / "cache"))
    monkeypatch.setenv("CXR_MLFLOW", "off")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def many_files(folder: Path) -> None:
    for number in range(100):
        (folder / str(number)).write_bytes(b"x" * MIB)


def checkpoint(folder: Path) -> None:
    import tensorflow as tf

    state = tf.train.Checkpoint(state=[tf.Variable(NUMBERS)])
    tf.train.CheckpointManager(state, str(folder), max_to_keep=1).save()


def network(folder: Path) -> None:
    import keras

    keras.Sequential([keras.Input((1000,)), keras.layers.Dense(1000)]).save(folder / "a.keras")


WRITERS: dict[str, Callable[[Path], object]] = {
    "files": many_files,
    "npy": lambda folder: np.save(folder / "a.npy", NUMBERS),
    "npz": lambda folder: np.savez(folder / "a.npz", numbers=NUMBERS),
    "parquet": lambda folder: pd.DataFrame(NUMBERS).to_parquet(folder / "a.parquet"),
    "mapped": lambda folder: on_disk((80 * MIB,), np.uint8).fill(1),
    "checkpoint": checkpoint,
    "network": network,
}


def write(fill: Callable[[Path], object]) -> Written:
    def made(folder: Path) -> Made[Written]:
        fill(folder)
        return Made(Written())

    return perform(RUN, Written, made, settings={}, inputs={})


@pytest.mark.parametrize("how", WRITERS)
def test_a_full_disk_is_told_and_leaves_nothing_half(disk: Path, how: str) -> None:
    with pytest.raises(UserError, match=r"^A disk of .* is full .*: make room .*/disk/cache.* Then clear the task\.$"):
        write(WRITERS[how])

    assert [path.name for path in disk.rglob("*") if path.is_file()] == []

    # Room was made.
    written = write(lambda folder: (folder / "a").write_bytes(b"x"))
    assert open_store().take(written.ref)


def test_the_record_of_an_artifact_that_finds_no_room_is_not_written(disk: Path) -> None:
    def fill_the_rest(folder: Path) -> None:
        (folder / "a").write_bytes(b"x" * MIB)
        free = os.statvfs(disk)
        (disk / "of others").write_bytes(b"x" * free.f_bavail * free.f_bsize)

    with pytest.raises(UserError, match="is full"):
        write(fill_the_rest)

    assert [path.name for path in disk.rglob("*") if path.is_file()] == ["of others"]
    (disk / "of others").unlink()
    assert open_store().take(write(lambda folder: (folder / "a").write_bytes(b"x")).ref)


def test_what_a_server_says_of_its_own_disk_is_not_told_of_this_machines() -> None:
    assert not is_disk_full(RuntimeError("500: No space left on device"))
    assert not is_disk_full(ConnectionResetError(104, "No space left on device"))
    assert not is_disk_full(ConnectionError("s3://bucket answers 500: No space left on device"))
    with pytest.raises(RuntimeError), full_disk_told():
        raise RuntimeError("500: No space left on device")


def test_a_bucket_whose_server_has_a_full_disk_is_tried_again(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_STORE", s3)
    monkeypatch.setenv("CXR_MLFLOW", "off")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    said = b"<Error><Code>InternalError</Code><Message>No space left on device</Message></Error>"

    def full_meanwhile(folder: Path) -> None:
        (folder / "a").write_bytes(b"x")
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", full)

    with answering(500, said) as full, patience(0.0), pytest.raises(ConnectionError, match="No space left") as raised:
        write(full_meanwhile)

    assert is_passing(raised.value)
