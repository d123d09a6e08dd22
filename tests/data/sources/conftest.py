"""What tests of the sources share: a cache of their own, and the view of another user."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
READ = "import sys; from cxr_tasks.data.sources import open_source as o; s = o(sys.argv[1]); s.fetch(s.entries())"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of what sources fetch, empty at first."""
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sources"


@pytest.fixture
def as_nobody() -> Callable[[], AbstractContextManager[None]]:
    """Makes a block run as a user who may read nothing that is not for all."""
    if os.geteuid() != 0:
        pytest.skip("only root can take the place of another user")

    @contextmanager
    def nobody() -> Iterator[None]:
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)

    return nobody


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, as pytest's own are not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def kill_reading() -> Callable[[str, Callable[[], bool]], None]:
    """Reads a source in a process of its own, and kills that as soon as the condition is met."""

    def kill(address: str, begun: Callable[[], bool]) -> None:
        process = subprocess.Popen([sys.executable, "-c", READ, address], env=os.environ | {"PYTHONPATH": str(ROOT)})
        deadline = time.monotonic() + 60
        try:
            while not begun():
                assert process.poll() is None, "it ended before it could be killed"
                assert time.monotonic() < deadline
                time.sleep(0.001)
        finally:
            process.kill()
        assert process.wait() == -signal.SIGKILL

    return kill
