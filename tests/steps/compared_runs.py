"""DAG runs in MLflow with made-up figures: told by the steps' own functions, and multiplied in the database."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cxr_tasks import tracking
from cxr_tasks.artifacts import ClaimRow, Dataset, PairRow, Report, RunContext, TrainedArm, TrainedModel, Training
from cxr_tasks.classifiers.registry import CLASSIFIERS
from cxr_tasks.pipeline import Made, perform
from cxr_tasks.steps.answer_in_mlflow import show_answer
from cxr_tasks.steps.common import arm_run

MS_A_DAY = 86_400_000
ARMS = ("none", "synthetic")


def train(run: RunContext, dataset: Dataset, training: Training, score: float, content: str) -> TrainedArm:
    """A training that says ``score``; ``content`` tells it from others of the same arm."""
    shown = arm_run(run, dataset, training, "")
    figures = {"validation_macro_f1": score, "test_macro_f1": score - 0.01, "test_accuracy": score}

    def fill(folder: Path) -> Made[TrainedModel]:
        tracking.log_curves([{"step": epoch, "val_loss": 1.0 / epoch} for epoch in (1, 2)])
        given = {"epochs": 2, "steps": 20, "train_images": 10, "weights_digest": f"{training.label} {content}"}
        return Made(TrainedModel(training=training, **given))

    given = {"label": training.label, "training": shown}
    settings = {**training.model_dump(), "epochs": 2}
    model = perform(run, TrainedModel, fill, settings=settings, inputs={"content": content}, **given)
    made = Made(TrainedArm(model=model, **figures), figures)
    arm = perform(run, TrainedArm, lambda _: made, settings={}, inputs={"model": model}, within=model, **given)
    moment = {"mlflow_run_id": arm.mlflow_run_id, "url": arm.url, "shown_here": arm.shown_here}
    return arm.model_copy(update={"model": model.model_copy(update=moment)})


Scores = Mapping[tuple[str, str], float]


def dag_run(run: RunContext, dataset: Dataset, scores: Scores, content: str) -> list[TrainedArm]:
    """A DAG run whose arms say ``scores``, by classifier and arm; the same ``content`` gives the same trainings."""
    arms = [
        train(run, dataset, Training(classifier=classifier, arm=arm, seed=0), score, content)
        for (classifier, arm), score in scores.items()
    ]
    names = {classifier: CLASSIFIERS[classifier].display for classifier, _ in scores}
    report = Report(
        answer="No detectable difference.",
        warnings=(),
        claims=tuple(_claim(name, scores[key, ARMS[1]] - scores[key, ARMS[0]]) for key, name in names.items()),
        pairs=tuple(_pair(name, scores[key, ARMS[0]], scores[key, ARMS[1]]) for key, name in names.items()),
        champions=(),
        address="",
    )
    show_answer(run, dataset, report, arms)
    tracking.client().set_terminated(run.mlflow_run_id)
    return arms


def _claim(classifier: str, difference: float) -> ClaimRow:
    return ClaimRow(
        classifier=classifier, seeds=1, baseline_arm=ARMS[0], arm=ARMS[1], difference=difference, low=-0.1, high=0.1,
        p_value=0.5, detectable=0.1, control="", beyond_control=None, beyond_control_low=None,
        beyond_control_high=None, claims=2, verdict="no detectable difference",
    )  # fmt: skip


def _pair(classifier: str, before: float, after: float) -> PairRow:
    return PairRow(
        classifier=classifier, seed=0, baseline_arm=ARMS[0], arm=ARMS[1], baseline_macro_f1=before,
        augmented_macro_f1=after, difference=after - before, low=-0.1, high=0.1, detectable=0.1, p_value=0.5,
        sign_p=0.5, test_images=100, verdict="no detectable difference",
    )  # fmt: skip


def set_days_ago(database: Path, dag_run_id: str, days: float) -> None:
    """Let a DAG run and its trainings have begun so many days ago."""
    with sqlite3.connect(database, timeout=60) as opened:
        opened.execute(
            "update runs set start_time = start_time - ?, end_time = end_time - ? where run_uuid in "
            "(select run_uuid from tags where key = ? and value = ?)",
            (days * MS_A_DAY, days * MS_A_DAY, tracking.TAG_DAG_RUN, dag_run_id),
        )


def multiply(database: Path, dag_run_id: str, days: Callable[[int], float], number: int) -> None:
    """Copy a DAG run with its trainings ``number`` times, each ``days`` of its number before the first."""
    with sqlite3.connect(database, timeout=60) as opened:
        named = "select run_uuid from tags where key = ? and value = ?"
        runs = [row[0] for row in opened.execute(named, (tracking.TAG_DAG_RUN, dag_run_id))]
        for copy in range(number):
            new = {run: uuid.uuid4().hex for run in runs} | {dag_run_id: f"{dag_run_id}-{copy}"}
            for run in runs:
                for table in ("runs", "params", "metrics", "latest_metrics", "tags"):
                    _copy(opened, table, run, new, days(copy) * MS_A_DAY)


def _copy(opened: sqlite3.Connection, table: str, run: str, new: Mapping[str, str], earlier: float) -> None:
    """Copy the rows of a run, under its new id, and so much ``earlier``."""
    found = opened.execute(f"select * from {table} where run_uuid = ?", (run,))
    names, values = [column[0] for column in found.description], []
    for row in found.fetchall():
        told: dict[str, Any] = dict(zip(names, row, strict=True))
        values.append([_changed(name, value, new, earlier) for name, value in told.items()])
    marks = ", ".join("?" for _ in names)
    opened.executemany(f"insert into {table} ({', '.join(names)}) values ({marks})", values)


def _changed(name: str, value: Any, new: Mapping[str, str], earlier: float) -> Any:
    if name in ("start_time", "end_time"):
        return value - earlier
    return new.get(value, value) if isinstance(value, str) else value
