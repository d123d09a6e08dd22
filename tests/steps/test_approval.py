"""A person decides whether a challenger that passes the gate becomes champion, on a real registry."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from cxr_tasks import steps, tracking
from cxr_tasks.artifacts import Challenge, Decision, Reply, RunContext
from cxr_tasks.config import resolve
from cxr_tasks.errors import SettingsError, UserError
from cxr_tasks.registry.champions import CHALLENGER, CHAMPION, TAG_AGAINST, Condition
from cxr_tasks.steps.contest import WAITS, alone_with, register_challenger
from cxr_tasks.steps.promote import promote_alone
from cxr_tasks.store import FolderStore
from tests.hostile import MARKUP
from tests.steps.test_promote import NO_FLOORS, candidate, gate_of, scored, tags_of, version_at
from tests.steps.test_promote import model_uris as model_uris
from tests.steps.test_promote import name as name

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("mlflow_uri", "store")]
AT = "2026-11-29T12:00:00+00:00"


@pytest.fixture
def run(store: FolderStore, new_run: Callable[..., RunContext]) -> RunContext:
    """A run whose champions a person approves."""
    with store.publish("settings/asks", {}) as folder:
        settings = resolve("quick", {"gate": {**NO_FLOORS, "approval": True, "approval_days": 0.5}})
        (folder / "settings.json").write_text(settings.model_dump_json())
    return new_run(settings="settings/asks")


@pytest.fixture
def challenger(name: str, model_uris: dict[str, str]) -> Callable[..., Decision]:
    """Registers a model with these weights, which passes the gate unless its figure is below the floor."""

    def registered(digest: str, f1: float = 0.9, **limits: Any) -> Decision:
        chosen = candidate(f1, model_uri=model_uris["guesses"], weights_digest=digest)
        gate, evidence = gate_of(**limits)
        with alone_with(name, "a test"):
            return register_challenger(name, chosen, evidence, gate, scored(0.5))

    return registered


def never_again(*_: object) -> Decision:
    pytest.fail("the gate was asked again though the champion is the same")


@pytest.fixture
def said(run: RunContext) -> Callable[..., Reply]:
    """What a person answers of the model of that name."""

    def reply(name: str, *, yes: bool, who: str = "mara", reason: str = "") -> Reply:
        return steps.read_reply(run, yes, who, AT, {"models": [name], "reason": reason})

    return reply


def test_a_champion_is_made_when_a_person_says_so_and_the_version_keeps_who(
    name: str, challenger: Callable[..., Decision], said: Callable[..., Reply]
) -> None:
    waiting = challenger("one")
    assert waiting.passes and waiting.alias == CHALLENGER and waiting.decision.startswith(WAITS)
    assert tracking.version_by_alias(name, CHAMPION) is None

    made = promote_alone(waiting, never_again, "run", said(name, yes=True, reason="looked at 20 cases"))

    assert made.is_new and version_at(name, CHAMPION) == made.version
    told = tags_of(name, made.version)
    assert told["cxr.approval"] == f"mara approved at {AT}: looked at 20 cases."
    assert made.decision.endswith(told["cxr.approval"]) and WAITS not in told["cxr.decision"]


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ({"yes": False, "reason": "too few children"}, f"mara declined at {AT}: too few children."),
        ({"yes": False, "who": ""}, "Nobody answered within 12 h, and then the answer is no."),
        # A default that somebody has turned to yes is not a person.
        ({"yes": True, "who": ""}, "Nobody answered within 12 h, and then the answer is no."),
    ],
    ids=["declined", "nobody", "nobody by default"],
)
@pytest.mark.parametrize("way", ["promote", "keep_champion"])
def test_without_a_yes_the_champion_stays_and_the_version_says_why(
    name: str,
    run: RunContext,
    challenger: Callable[..., Decision],
    said: Callable[..., Reply],
    reply: dict[str, Any],
    words: str,
    way: str,
) -> None:
    promote_alone(challenger("one"), never_again, "first")
    waiting = challenger("two")

    if way == "promote":
        kept = promote_alone(waiting, never_again, "run", said(name, **reply))
    else:
        (kept,) = steps.keep_champion(run, Challenge(ref="c", decisions=(waiting,)), said(name, **reply)).decisions

    assert version_at(name, CHAMPION) == "1" and kept.alias == CHALLENGER and not kept.is_new
    assert kept.decision.endswith(f"{words} Champion 1 stays.")
    assert tags_of(name, "2")["cxr.approval"] == words and tags_of(name, "2")["cxr.decision"] == kept.decision


def test_an_approval_holds_for_the_models_that_it_names(
    name: str, challenger: Callable[..., Decision], said: Callable[..., Reply]
) -> None:
    other = said(f"{name}-other", yes=True)

    kept = promote_alone(challenger("one"), never_again, "run", other)

    assert tracking.version_by_alias(name, CHAMPION) is None and "mara declined" in kept.decision


def test_the_step_makes_no_champion_without_an_answer(run: RunContext) -> None:
    dataset: Any = None
    with pytest.raises(SettingsError, match="A person is to approve"):
        steps.promote(run, dataset, Challenge(ref="c", decisions=()), [])


def test_where_another_champion_was_made_meanwhile_the_gate_is_asked_again(
    name: str, challenger: Callable[..., Decision], said: Callable[..., Reply]
) -> None:
    waiting, other = challenger("one", 0.6), challenger("two", 0.9)
    promote_alone(other, never_again, "other")
    asked = []

    def again(decision: Decision, lease: object) -> Decision:
        asked.append(decision.version)
        return waiting.model_copy(update={"passes": False, "decision": "Not better. Champion 2 stays."})

    kept = promote_alone(waiting, again, "run", said(name, yes=True))

    assert asked == ["1"] and kept.decision == "Not better. Champion 2 stays."
    assert version_at(name, CHAMPION) == "2"


def test_another_try_says_what_was_done(
    name: str, challenger: Callable[..., Decision], said: Callable[..., Reply]
) -> None:
    waiting = challenger("one")
    first = promote_alone(waiting, never_again, "run", said(name, yes=True))

    again = promote_alone(waiting, never_again, "run", said(name, yes=True))

    assert (again.is_new, again.decision, again.version) == (True, first.decision, first.version)
    assert not promote_alone(waiting, never_again, "another run").is_new


class TestApproveByHand:
    def test_the_challenger_becomes_champion(self, name: str, challenger: Callable[..., Decision]) -> None:
        challenger("one")

        done = steps.approve(name, "mara", "looked at 20 cases")

        assert version_at(name, CHAMPION) == "1" and done.startswith(f"{name} version 1 is champion. mara approved at ")
        told = tags_of(name, "1")
        assert told["cxr.replaced_version"] == "" and told["cxr.approval"].endswith(": looked at 20 cases.")
        assert WAITS not in told["cxr.decision"]

    def test_each_reason_against_it_is_a_sentence_with_a_way_out(
        self, name: str, challenger: Callable[..., Decision], model_uris: dict[str, str]
    ) -> None:
        with pytest.raises(UserError, match=f"{name} has no version with the alias challenger"):
            steps.approve(name, "mara")
        challenger("one")
        challenger("two", min_macro_f1=1.0, max_ece=0.0, max_size_mb=None)
        challenger("three", 0.1)
        tracking.register(model_uris["guesses"], name, {})
        steps.approve(name, "mara", number="1")

        for number, words in {
            "1": "is champion already",
            "2": "against no champion, and version 1 is champion by now: train again",
            "4": "never stood at the gate. To make it champion all the same: cxr rollback",
            "9": "has no version 9",
        }.items():
            with pytest.raises(UserError, match=words):
                steps.approve(name, "mara", number=number)
        assert version_at(name, CHAMPION) == "1"

    def test_what_the_gate_refused_is_not_approved(self, name: str, challenger: Callable[..., Decision]) -> None:
        challenger("one", max_size_mb=0.0001, size_mb=3.0)

        with pytest.raises(UserError, match=r"The gate refused .*The model's size is 3 MB, above the limit") as told:
            steps.approve(name, "mara")

        # A rollback needs a champion to go back from.
        assert str(told.value).endswith("all the same: give it the alias champion on MLflow's page of the version.")
        assert tracking.version_by_alias(name, CHAMPION) is None


def test_the_question_shows_the_comparison_and_the_links_and_obeys_no_name(run: RunContext) -> None:
    hostile = f"{MARKUP[0]}|[a](javascript:alert(1))\n# x"
    told = Condition(about="champion", passed=True, words=f"Macro F1 is 0.900, recall of {hostile} 0.8.")
    decisions = [
        Decision(name="cxr-cnn", version="3", alias=CHALLENGER, arm=hostile, validation_macro_f1=0.9, passes=True,
                 against="2", decision=f"{WAITS} {told.words}", conditions=(told,)),
        Decision(name="cxr-vgg16", version="4", alias=CHALLENGER, arm="vgg16", validation_macro_f1=0.2, decision="No."),
    ]  # fmt: skip
    report: Any = SimpleNamespace(answer="No difference was found.", address="http://mlflow/report.html")

    asked = steps.question(run, Challenge(ref="c", decisions=tuple(decisions)), report)

    assert asked.subject == "Make version 3 of cxr-cnn champion?" and asked.models == ("cxr-cnn",)
    assert "[The report of this run](http://mlflow/report.html)" in asked.body and "vgg16" not in asked.body
    assert "No difference was found." in asked.body and "version 2" in asked.body and "90.0 %" in asked.body
    assert "Without an answer within 12 h, every champion stays." in asked.body
    assert "](javascript" not in asked.body and "<img" not in asked.body.replace("\\<", "")


def test_a_version_keeps_what_it_was_held_against(name: str, challenger: Callable[..., Decision]) -> None:
    promote_alone(challenger("one"), never_again)
    assert tags_of(name, challenger("two").version)[TAG_AGAINST] == "1"


def test_what_was_said_of_a_ruling_before_is_not_said_of_the_next(
    name: str, challenger: Callable[..., Decision], said: Callable[..., Reply]
) -> None:
    promote_alone(challenger("one"), never_again, "run", said(name, yes=False, reason="too few children"))
    assert "too few children" in tags_of(name, "1")["cxr.approval"]

    again = challenger("one")

    assert again.version == "1" and "cxr.approval" not in tags_of(name, "1")
