"""What people are told of a run who do not look at its pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

from pydantic import Field

from cxr_tasks.artifacts import Dataset, Decision, KeptChampion, Promotion, Report, Ruled, Watched
from cxr_tasks.errors import SettingsError
from cxr_tasks.registry.champions import CHALLENGER
from cxr_tasks.steps.question import Question, what_silence_means
from cxr_tasks.steps.roll_back import RolledBack
from cxr_tasks.strict import Strict

NoticeKind = Literal["success", "promotion", "refusal", "question", "degradation", "failure"]


class Notice(Strict):
    """What people are told.

    Attributes:
        kind: What it is about.
        title: In one line.
        body: In sentences.
        pages: Where people see more, by name.
    """

    kind: NoticeKind
    title: str
    body: str
    pages: dict[str, str] = Field(default_factory=dict)

    @property
    def text(self) -> str:
        """The body, and where people see more."""
        links = [f"{name}: {address}" for name, address in self.pages.items() if address]
        return "\n".join([self.body, *links])


def listeners(told: str) -> dict[str, tuple[NoticeKind, ...]]:
    """The kinds of notices that each connection of Airflow hears.

    Args:
        told: Connections with blanks between them. ``mail:failure,degradation`` hears of these alone, ``mail`` of all.

    Raises:
        SettingsError: There is no such kind, or a connection stands there twice.
    """
    found: dict[str, tuple[NoticeKind, ...]] = {}
    every: tuple[NoticeKind, ...] = get_args(NoticeKind)
    for each in told.split():
        connection, colon, kinds = each.partition(":")
        asked = kinds.split(",") if colon else list(every)
        if unknown := [kind for kind in asked if kind not in every]:
            raise SettingsError(
                f"CXR_NOTIFY has no kind {', '.join(map(repr, unknown))} (after {connection}). Kinds are "
                f"{', '.join(every)}, with commas and without blanks between them."
            )
        if connection in found:
            raise SettingsError(f"CXR_NOTIFY names {connection} twice: give all its kinds after one colon.")
        found[connection] = tuple(kind for kind in every if kind in asked)
    return found


def notice_of(task: str, returned: Any) -> Notice | None:
    """What is told of a task that has succeeded; ``None`` where people need not hear of it.

    Args:
        task: What Airflow calls the task, such as ``verdict.promote``.
        returned: What the task returned, as JSON.
    """
    told = TOLD_OF.get(task.rpartition(".")[2])
    return told(returned) if told is not None and returned is not None else None


def notice_of_failure(dag: str, task: str, why: str, log: str) -> Notice:
    """What is told of a task that has failed for good.

    Args:
        dag: The DAG.
        task: What Airflow calls the task.
        why: In a sentence.
        log: Where people see its log.
    """
    return Notice(kind="failure", title=f"{dag}: the task {task} has failed", body=why, pages={"Log": log})


def notice_of_question(asked: Question, page: str) -> Notice:
    """What is told of a question; ``page`` is where it is answered."""
    body = what_silence_means(asked.days)
    return Notice(kind="question", title=asked.subject, body=body, pages={"Answer it": page})


def _of_dataset(returned: Any) -> Notice:
    dataset = Dataset.model_validate(returned)
    body = " ".join([*dataset.notes, *dataset.warnings]) or f"Dataset {dataset.version}."
    pages = {"Data Docs": dataset.data_docs, "MLflow": dataset.url}
    return Notice(kind="success", title=f"Dataset {dataset.version} is published", body=body, pages=pages)


def _of_report(returned: Any) -> Notice:
    report = Report.model_validate(returned)
    pages, missing = {"Report": report.address, "MLflow": report.url}, len(report.missing)
    if not missing:
        return Notice(kind="success", title="A training has ended", body=report.answer, pages=pages)
    what = f"{missing} parts of it are" if missing > 1 else "a part of it is"
    body = f"{report.answer} The report says what is missing, and why."
    return Notice(kind="failure", title=f"A training has ended, and {what} missing", body=body, pages=pages)


def _of_ruling(returned: Any, kind: type[Ruled]) -> Notice | None:
    made = kind.model_validate(returned)
    new = [each for each in made.decisions if each.is_new]
    told: list[Decision] = new or [each for each in made.decisions if each.alias == CHALLENGER]
    if not told:
        # The champions were trained again: that is no news.
        return None
    title = f"New champion: {', '.join(_version(each) for each in new)}" if new else "No challenger became champion"
    body = "\n".join(f"{_version(each)}: {each.decision}" for each in told)
    return Notice(kind="promotion" if new else "refusal", title=title, body=body, pages={"MLflow": made.url})


def _version(decision: Decision) -> str:
    return f"{decision.name} version {decision.version}"


def _of_watch(returned: Any) -> Notice | None:
    watched = Watched.model_validate(returned)
    # What was found before was told before.
    if not watched.alarm or watched.reused:
        return None
    title = f"{watched.champion} sees other images than those that it was tested on"
    body = "\n".join([watched.words, *watched.warnings])
    pages = {"Data Docs": watched.data_docs, "MLflow": watched.url}
    return Notice(kind="degradation", title=title, body=body, pages=pages)


def _of_rollback(returned: Any) -> Notice:
    done = RolledBack.model_validate(returned)
    return Notice(kind="promotion", title=f"{done.name} version {done.version} is champion again", body=done.words)


# By the step, in any DAG.
TOLD_OF: Mapping[str, Callable[[Any], Notice | None]] = {
    "publish": _of_dataset,
    "write_report": _of_report,
    "promote": lambda returned: _of_ruling(returned, Promotion),
    "keep_champion": lambda returned: _of_ruling(returned, KeptChampion),
    "watch": _of_watch,
    "roll_back": _of_rollback,
}
