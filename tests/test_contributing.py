"""The worked examples of CONTRIBUTING.md: each is applied to a copy of the project, and its checks are run there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
GUIDE = (REPOSITORY / "CONTRIBUTING.md").read_text("utf-8")
SECTIONS = {
    part.splitlines()[0]: part for part in re.split(r"^## ", GUIDE, flags=re.MULTILINE) if part.startswith("Add ")
}


def block(section: str, kind: str) -> str:
    found = re.findall(rf"^```{kind}\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)
    assert len(found) == 1, f"one {kind} block is expected, not {len(found)}"
    return found[0]


def patch(root: Path, diff: str) -> None:
    """Apply a diff by its lines alone: where they stand in a file is not the guide's matter."""
    for part in re.split(r"^(?=--- )", diff, flags=re.MULTILINE):
        if not part.strip():
            continue
        header, *hunks = re.split(r"^@@.*@@\n", part, flags=re.MULTILINE)
        path = root / header.splitlines()[1].removeprefix("+++ b/")
        if header.startswith("--- /dev/null"):
            path.write_text("".join(line[1:] for line in hunks[0].splitlines(keepends=True)), "utf-8")
            continue
        text = path.read_text("utf-8")
        for hunk in hunks:
            lines = hunk.splitlines(keepends=True)
            before = "".join(line[1:] for line in lines if line[0] in " -")
            after = "".join(line[1:] for line in lines if line[0] in " +")
            assert text.count(before) == 1, f"{path.name} does not hold once:\n{before}"
            text = text.replace(before, after)
        path.write_text(text, "utf-8")


def test_the_guide_has_four_examples():
    assert list(SECTIONS) == ["Add a classifier", "Add an arm", "Add a data source", "Add a field to the form"]


@pytest.mark.parametrize("name", SECTIONS)
def test_the_example_works(name, tmp_path):
    shutil.copytree(REPOSITORY / "cxr_tasks", tmp_path / "cxr_tasks", ignore=shutil.ignore_patterns("__pycache__"))
    patch(tmp_path, block(SECTIONS[name], "diff"))
    check = block(SECTIONS[name], "python") + "\nimport cxr_tasks\nprint(cxr_tasks.__file__)\n"

    done = subprocess.run(
        [sys.executable, "-c", check],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "TF_CPP_MIN_LOG_LEVEL": "3"},
    )

    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().endswith(str(tmp_path / "cxr_tasks" / "__init__.py"))
