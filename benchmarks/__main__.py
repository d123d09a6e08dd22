"""All speeds in one sitting, in turn with an earlier revision, with a history.

    python -m benchmarks [--data FOLDER] [--full] [--rounds 3] [--against REVISION] [--only SCRIPT …]

FOLDER holds X-rays as ``<Class>/images/*.png``; without it, phantoms are generated. Each round runs every script here
and in the other revision, one right after the other, so that both see the same machine. The other revision is that of
the last sitting of this size on a machine of this kind, if the repository has it. What became worse by more than noise
is said, and makes the exit status 1.

The sitting is added to ``docs/speed/history.jsonl``, and ``docs/speed/index.md`` is written anew.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.sitting import SCRIPTS, Measured, Sitting, add, figures_of, page, read_history, slower, this_machine

REPOSITORY = Path(__file__).resolve().parents[1]
SPEED = REPOSITORY / "docs" / "speed"
HISTORY = SPEED / "history.jsonl"
PHANTOMS = {"COVID": 80, "Normal": 120, "Viral Pneumonia": 60}
LIMIT_SECONDS = {"small": 1800, "full": 6 * 3600}


def main(data: str, size: str, rounds: int, against: str | None, only: Sequence[str]) -> int:
    """Measure, print a table, write the history and the page, and end with one JSON object."""
    history, machine = read_history(HISTORY), this_machine()
    if against is None:
        alike = [each.commit for each in history if each.machine == machine and each.size == size]
        against = next((commit for commit in reversed(alike) if _has(commit)), "")
    chosen = [each for each in SCRIPTS if not only or each.script in only]
    here: dict[str, list[float]] = {}
    there: dict[str, list[float]] = {}
    failures: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as scratch, _checkout(against, Path(scratch) / "other") as other:
        images = data or _phantoms(Path(scratch) / "phantoms")
        for turn in range(rounds):
            for each in chosen:
                if each.script in failures:
                    continue
                print(f"Round {turn + 1} of {rounds}: {each.script}", flush=True)
                try:
                    mine = _run(REPOSITORY, each, size, images)
                except RuntimeError as error:
                    failures[each.script] = str(error)
                    print(f"  {error}", flush=True)
                    continue
                _keep(here, mine)
                if other is not None:
                    try:
                        _keep(there, _run(other, each, size, images))
                    except RuntimeError as error:
                        # The other revision may not have the script, or not this figure.
                        print(f"  {against}: {error}", flush=True)
    paired = {name: values for name, values in there.items() if len(values) == len(here[name])}
    today, commit = datetime.now(UTC).date().isoformat(), _git("describe", "--always", "--dirty")
    sitting = Sitting(today, commit, against if paired else "", size, machine, here, paired, failures)
    add(HISTORY, sitting)
    (SPEED / "index.md").write_text(page([*history, sitting]), encoding="utf-8")
    for name, values in here.items():
        beside = f"{statistics.median(paired[name]):>10.2f}" if name in paired else ""
        print(f"{name:<72}{statistics.median(values):>10.2f}{beside}")
    worse = slower(sitting)
    print(
        "\n".join(worse or ["Nothing became slower by more than noise." if paired else "There is nothing to compare."])
    )
    print(json.dumps({"benchmark": "sitting", "slower": worse, **asdict(sitting)}))
    return 1 if worse or failures else 0


def _keep(figures: dict[str, list[float]], found: Mapping[str, float]) -> None:
    for name, value in found.items():
        figures.setdefault(name, []).append(value)


def _run(tree: Path, measured: Measured, size: str, images: str) -> dict[str, float]:
    """The figures of one script in one checkout.

    Raises:
        RuntimeError: The script failed, or told something else. The text is its last line.
    """
    arguments = [*([images] if measured.needs_images else []), *(measured.full if size == "full" else measured.small)]
    try:
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{measured.script}", *arguments],
            cwd=tree,
            env={
                **os.environ,
                "PYTHONPATH": str(tree),
                "TF_CPP_MIN_LOG_LEVEL": "3",
                "MLFLOW_DISABLE_TELEMETRY": "true",
            },
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS[size],
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"It took more than {LIMIT_SECONDS[size]} s.") from None
    last = (done.stdout.strip().splitlines() or [""])[-1]
    if done.returncode != 0:
        raise RuntimeError((done.stderr.strip().splitlines() or [last])[-1])
    try:
        return figures_of(measured, json.loads(last))
    except (ValueError, KeyError, TypeError):
        raise RuntimeError(f"Its last line holds no such figures: {last[:80]}") from None


@contextmanager
def _checkout(revision: str, place: Path) -> Iterator[Path | None]:
    """A revision in a folder of its own; nothing where none is named."""
    if not revision:
        yield None
        return
    _git("worktree", "add", "--detach", str(place), revision)
    try:
        yield place
    finally:
        _git("worktree", "remove", "--force", str(place))


def _has(commit: str) -> bool:
    """Whether the repository has a commit. What was measured with changes that nobody committed is lost."""
    known = ["git", "cat-file", "-e", f"{commit}^{{commit}}"]
    return subprocess.run(known, cwd=REPOSITORY, capture_output=True, check=False).returncode == 0


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr.strip())
    return done.stdout.strip()


def _phantoms(folder: Path) -> str:
    from cxr_tasks.data.phantoms import write_phantoms

    write_phantoms(folder, PHANTOMS)
    return str(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", help="a revision; '' for none")
    parser.add_argument("--only", nargs="+", default=[], choices=[each.script for each in SCRIPTS])
    given = parser.parse_args()
    sys.exit(main(given.data, "full" if given.full else "small", given.rounds, given.against, given.only))
