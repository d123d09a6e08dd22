"""What is installed is what the lock files name, by hash: a package that was exchanged on its way is refused."""

import hashlib
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.infra.compose import ROOT

PYTHON = Path(sys.executable)
INSTALLERS = {
    "pip": [PYTHON, "-m", "pip", "install", "--disable-pip-version-check"],
    "uv": [PYTHON.with_name("uv"), "pip", "install", "--offline", "--python", PYTHON],
}


@pytest.fixture
def wheel(tmp_path):
    """A package with one module, in a folder of its own."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    path, told = folder / "tiny-1.0-py3-none-any.whl", "tiny-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny.py", "SIZE = 1\n")
        archive.writestr(f"{told}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr(f"{told}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{told}/RECORD", f"tiny.py,,\n{told}/METADATA,,\n{told}/WHEEL,,\n{told}/RECORD,,\n")
    return path


@pytest.mark.parametrize("installer", INSTALLERS)
def test_a_package_that_was_exchanged_is_refused(installer, wheel, tmp_path):
    lock, target = tmp_path / "tiny.lock", tmp_path / "target"

    def install(digest):
        lock.write_text(f"tiny==1.0 --hash=sha256:{digest}\n")
        where = ["--no-index", "--find-links", wheel.parent, "--target", target, "--require-hashes", "-r", lock]
        return subprocess.run([*INSTALLERS[installer], *where], capture_output=True, text=True, timeout=120)

    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    refused = install(digest[::-1])
    assert refused.returncode != 0 and "hash" in refused.stderr.lower() and not (target / "tiny.py").exists()
    assert install(digest).returncode == 0 and (target / "tiny.py").exists()


def test_setup_installs_by_hash_or_what_lies_here():
    text = (ROOT / "infra" / "setup.sh").read_text(encoding="utf-8").replace("\\\n", " ")
    commands = re.findall(r"pip install[^;&\n]*", text)

    assert len(commands) == 5
    for command in commands:
        from_here = {"--no-deps", "--no-build-isolation", "--editable"} <= set(command.split())
        assert "--require-hashes" in command or (from_here and re.search("--offline|--no-index", command)), command


@pytest.mark.parametrize("path", [*sorted(path.name for path in ROOT.glob("*.lock")), "infra/uv.lock"])
def test_every_package_of_a_lock_file_has_a_hash(path):
    blocks = re.split(r"^(?=[a-zA-Z0-9])", (ROOT / path).read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]

    assert blocks
    for block in blocks:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", block) and "==" in block.splitlines()[0], block.splitlines()[
            0
        ]
