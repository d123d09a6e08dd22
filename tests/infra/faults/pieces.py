"""Small pieces of work, made as steps make artifacts: what the tasks do on which faults are tried.

A piece is trained for seconds instead of epochs, and goes on from its checkpoint.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any, ClassVar

from cxr_tasks import tracking
from cxr_tasks.artifacts import Artifact, RunContext
from cxr_tasks.pipeline import Made, perform
from cxr_tasks.steps.unfinished import Unfinished
from cxr_tasks.store import artifact_ref

EXPERIMENT = "pieces"
# Where a piece notes on the machine itself when it is begun and when it is made.
MARKS = "PIECES_MARKS"
# The file of a checkpoint.
PROGRESS = "seconds"


class Piece(Artifact):
    """A file, and a second of work for each metric."""

    step: ClassVar[str] = "piece"
    has_run: ClassVar[bool] = True

    number: int


def settings_of(name: str, number: int, seconds: int) -> dict[str, Any]:
    """What a piece is made with: the same three give the same piece."""
    return {"name": name, "number": number, "seconds": seconds}


def ref_of(name: str, number: int, seconds: int) -> str:
    """Where a piece is in the store."""
    return artifact_ref(Piece.step, 1, settings_of(name, number, seconds), {})


def content_of(number: int) -> bytes:
    """What a piece holds: more than S3 sends in one packet."""
    return f"{number} ".encode() * 100_000


def begin(name: str) -> RunContext:
    """Open the MLflow run of the DAG run ``name``."""
    experiment = tracking.experiment_id(EXPERIMENT)
    identity = {tracking.TAG_DAG_RUN: name, tracking.TAG_WORK: "dag run"}
    parent = tracking.find_or_create(experiment, name, identity, {})
    return RunContext(dag_run=name, settings="", experiment_id=experiment, mlflow_run_id=parent)


def make(run: RunContext, name: str, number: int, seconds: int) -> Piece:
    """Make one piece."""
    settings = settings_of(name, number, seconds)
    unfinished = Unfinished.of(run, Piece, 1, settings, {}, f"piece {number}")

    def fill(folder: Path) -> Made[Piece]:
        progress = unfinished.folder() / PROGRESS
        done = int(progress.read_text(encoding="utf-8")) if progress.is_file() else 0
        _mark(name, number, "begun", done)
        for second in range(done, seconds):
            time.sleep(1)
            tracking.log_metrics({"second": second}, second)
            aside = progress.with_name("aside")
            aside.write_text(str(second + 1), encoding="utf-8")
            os.replace(aside, progress)
            unfinished.save()
        unfinished.catch_up()
        unfinished.end()
        (folder / "content.txt").write_bytes(content_of(number))
        _mark(name, number, "made", seconds)
        return Made(Piece(number=number))

    label = f"{name} {number}"
    return perform(run, Piece, fill, settings=settings, inputs={}, label=label, around=unfinished.alone)


def close(run: RunContext) -> None:
    """Close the MLflow run of a DAG run."""
    tracking.client().set_terminated(run.mlflow_run_id, "FINISHED")


def _mark(name: str, number: int, what: str, second: int) -> None:
    with Path(os.environ[MARKS], f"{name}-{number}").open("a", encoding="utf-8") as marks:
        marks.write(f"{what} {socket.gethostname()} {second}\n")
