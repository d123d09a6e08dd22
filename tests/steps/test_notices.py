"""What people are told of what steps returned, and by which connections."""

from __future__ import annotations

from typing import Any

import pytest

from cxr_tasks import steps
from cxr_tasks.artifacts import Decision, KeptChampion, Missing, Promotion, Report, Watched
from cxr_tasks.errors import SettingsError
from cxr_tasks.steps.question import Question
from tests.steps import handles

EVERY = ("success", "promotion", "refusal", "question", "degradation", "failure")


def decided(name: str, version: str, words: str, **more: Any) -> Decision:
    given = {"alias": "challenger", "arm": "cnn", "validation_macro_f1": 0.9, **more}
    return Decision(name=name, version=version, decision=words, **given)


WON = decided("cxr-cnn", "3", "Better.", alias="champion", is_new=True)
LOST = decided("cxr-overall", "7", "Not better. Champion 2 stays.")
STANDS = decided("cxr-vgg16", "1", "The same model is champion already.", alias="champion")
PAGE = "http://mlflow/run"
WATCHED = Watched(
    ref="w", url=PAGE, champion="cxr-overall version 2", images={"COVID": 4}, words="4 new images differ."
)


@pytest.mark.parametrize(
    ("task", "returned", "kind", "title", "text"),
    [
        (
            "verdict.promote",
            Promotion(ref="p", url=PAGE, decisions=(WON, LOST)),
            "promotion",
            "New champion: cxr-cnn version 3",
            f"cxr-cnn version 3: Better.\nMLflow: {PAGE}",
        ),
        (
            "verdict.keep_champion",
            KeptChampion(ref="k", url=PAGE, decisions=(LOST, STANDS)),
            "refusal",
            "No challenger became champion",
            f"cxr-overall version 7: Not better. Champion 2 stays.\nMLflow: {PAGE}",
        ),
        (
            "watch",
            WATCHED.model_copy(update={"alarm": True}),
            "degradation",
            "cxr-overall version 2 sees other images than those that it was tested on",
            f"4 new images differ.\nMLflow: {PAGE}",
        ),
        (
            "verdict.write_report",
            Report(ref="r", url=PAGE, answer="No difference was found.", warnings=(), claims=(), pairs=(), champions=(),
                   address="http://mlflow/report.html"),
            "success",
            "A training has ended",
            f"No difference was found.\nReport: http://mlflow/report.html\nMLflow: {PAGE}",
        ),
        (
            "roll_back",
            steps.RolledBack(name="cxr-cnn", version="2", words="Champion again: version 3 was rolled back: wrong."),
            "promotion",
            "cxr-cnn version 2 is champion again",
            "Champion again: version 3 was rolled back: wrong.",
        ),
    ],
)  # fmt: skip
def test_what_is_told_of_a_task(task: str, returned: Any, kind: str, title: str, text: str) -> None:
    notice = steps.notice_of(task, returned.model_dump(mode="json"))

    assert notice is not None
    assert (notice.kind, notice.title, notice.text) == (kind, title, text)


@pytest.mark.usefixtures("untracked")
def test_a_dataset_is_told_of_with_what_has_changed() -> None:
    dataset = steps.publish(handles.begin(), *handles.prepared())
    assert dataset is not None

    notice = steps.notice_of("publish", dataset.model_dump(mode="json"))

    assert notice is not None and (notice.kind, notice.title) == ("success", f"Dataset {dataset.version} is published")
    assert notice.text.startswith(f"dataset {dataset.version}: the first of these settings, ")


@pytest.mark.parametrize(
    ("task", "returned"),
    [
        ("watch", WATCHED.model_dump(mode="json")),
        ("watch", WATCHED.model_copy(update={"alarm": True, "reused": True}).model_dump(mode="json")),
        ("verdict.keep_champion", KeptChampion(ref="k", decisions=(STANDS,)).model_dump(mode="json")),
        ("verdict.draft_report", {}),
        ("verdict.promote", None),
    ],
    ids=["no alarm", "told before", "trained again", "a task of no interest", "nothing returned"],
)
def test_what_nobody_need_hear_of_is_not_told(task: str, returned: Any) -> None:
    assert steps.notice_of(task, returned) is None


def test_a_failure_names_the_task_the_reason_and_the_log() -> None:
    notice = steps.notice_of_failure("cxr_data", "scan", "No images.", "http://airflow/log")

    assert (notice.kind, notice.title) == ("failure", "cxr_data: the task scan has failed")
    assert notice.text == "No images.\nLog: http://airflow/log"


def test_a_question_says_what_silence_means_and_where_to_answer() -> None:
    asked = Question(subject="Make version 3 of cxr-cnn champion?", body="", models=("cxr-cnn",), days=0.5)

    notice = steps.notice_of_question(asked, "http://airflow/required_actions")

    assert (notice.kind, notice.title) == ("question", asked.subject)
    words = "Without an answer within 12 h, every champion stays."
    assert notice.text == f"{words}\nAnswer it: http://airflow/required_actions"


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ("", {}),
        ("mail:failure,degradation", {"mail": ("degradation", "failure")}),
        (" team  mail:success ", {"team": EVERY, "mail": ("success",)}),
    ],
)
def test_each_connection_hears_of_what_it_asks_for(told: str, found: dict[str, tuple[str, ...]]) -> None:
    assert steps.listeners(told) == found


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("mail team:failures,success", r"CXR_NOTIFY has no kind 'failures' \(after team\). Kinds are success,"),
        ("mail: failure", r"has no kind '' \(after mail\)"),
        ("mail:failure mail:success", r"CXR_NOTIFY names mail twice: give all its kinds after one colon"),
    ],
)
def test_what_cannot_be_meant_is_refused(told: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        steps.listeners(told)


def test_a_report_without_all_its_parts_is_no_success() -> None:
    gone = [Missing(what=f"part {n}", why="it failed") for n in range(2)]
    report = Report(ref="r", answer="None.", warnings=(), claims=(), pairs=(), champions=(), address="", missing=gone)

    notice = steps.notice_of("verdict.write_report", report.model_dump(mode="json"))

    assert notice is not None
    assert (notice.kind, notice.title) == ("failure", "A training has ended, and 2 parts of it are missing")
