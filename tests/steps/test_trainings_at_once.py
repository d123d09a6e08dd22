"""Of several processes or threads that train the same thing at once, one trains and the others take what it made."""

import multiprocessing
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from cxr_tasks import steps
from cxr_tasks.artifacts import Gan, RunContext
from cxr_tasks.gan import training
from cxr_tasks.store import FolderStore, open_store
from tests.steps import handles
from tests.steps.trainers import SlowFit, train_in_a_process


class Processes:
    """Two processes that are about to train the same GAN, and what they tell."""

    def __init__(self, told: Path, seconds: tuple[float, float]) -> None:
        self.told = told
        # Forked, they would share the threads of TensorFlow.
        spawning = multiprocessing.get_context("spawn")
        self.pipes, self.processes = [], []
        for name, linger in zip(("one", "two"), seconds, strict=True):
            mine, theirs = spawning.Pipe()
            process = spawning.Process(target=train_in_a_process, args=(name, str(told), linger, theirs), daemon=True)
            process.start()
            # Their own end alone keeps a pipe open, so that who waits for a killed process hears of its end.
            theirs.close()
            self.pipes.append(mine)
            self.processes.append(process)
        self.pids = [pipe.recv()[1] for pipe in self.pipes]

    def begin(self, number: int) -> None:
        """Let one of them train."""
        self.pipes[number].send("go")

    def wait_for(self, words: str, seconds: float = 60.0) -> None:
        """Wait until a training told so."""
        deadline = time.monotonic() + seconds
        while not (self.told.exists() and words in self.told.read_text()):
            assert time.monotonic() < deadline, f"nobody told {words!r}"
            time.sleep(0.02)

    def end(self) -> None:
        """End what still runs."""
        for process in self.processes:
            process.kill()
            process.join()


@pytest.fixture
def told(tmp_path: Path) -> Path:
    return tmp_path / "told.txt"


@pytest.mark.slow
def test_two_processes_that_train_the_same_make_one_artifact(untracked: FolderStore, told: Path) -> None:
    both = Processes(told, (1.0, 1.0))
    try:
        for number in (0, 1):
            both.begin(number)
        made = [pipe.recv() for pipe in both.pipes]
    finally:
        both.end()

    assert told.read_text().split("\n") == ["begin", "end", ""]
    assert made[0]["ref"] == made[1]["ref"] and sorted(gan["reused"] for gan in made) == [False, True]
    assert len(list(untracked.root.glob("train_gan/*/artifact.json"))) == 1
    assert not list(untracked.root.glob("unfinished/*/*/ckpt-*"))


@pytest.mark.slow
def test_a_process_that_waited_for_one_that_was_killed_goes_on_from_its_checkpoint(
    untracked: FolderStore, told: Path
) -> None:
    both = Processes(told, (600.0, 0.0))
    try:
        both.begin(0)
        both.wait_for("begin")
        deadline = time.monotonic() + 60
        while not list(untracked.root.glob("unfinished/*/*/ckpt-1.index")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        both.begin(1)
        time.sleep(0.5)
        assert told.read_text() == "begin\n"
        os.kill(both.pids[0], signal.SIGKILL)
        made = both.pipes[1].recv()
    finally:
        both.end()

    assert told.read_text().split("\n") == ["begin", "begin ckpt-1.index", "end", ""]
    assert made["resumed_from"] == 4 and not made["reused"]


@pytest.mark.parametrize("address", ["folder", "s3"])
def test_threads_that_train_the_same_make_one_artifact_in_every_store(
    request: pytest.FixtureRequest,
    untracked: FolderStore,
    networks: object,
    told: Path,
    address: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if address == "s3":
        monkeypatch.setenv("CXR_STORE", request.getfixturevalue("s3"))
    monkeypatch.setattr(training, "fit_gan", SlowFit(networks, told, lambda: time.sleep(0.2)))
    runs = [handles.begin().model_copy(update={"dag_run": name}) for name in ("one", "two", "three")]
    dataset, together = handles.dataset(), Barrier(3)

    def train(run: RunContext) -> Gan:
        together.wait(30)
        return steps.train_gan(run, dataset)

    with ThreadPoolExecutor(3) as threads:
        made = list(threads.map(train, runs))

    assert told.read_text().split("\n") == ["begin", "end", ""]
    assert len({gan.ref for gan in made}) == 1 and sorted(gan.reused for gan in made) == [False, True, True]
    store = open_store()
    assert store.fault(made[0].ref, store.record(made[0].ref) or {}) == ""
