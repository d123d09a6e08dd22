"""``roll_back`` on a real registry: the champion before serves again, and what was rolled back stays so."""

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cxr_tasks import tracking
from cxr_tasks.errors import UserError
from cxr_tasks.registry.champions import CHALLENGER, CHAMPION
from cxr_tasks.steps import roll_back
from tests.steps.test_promote import candidate, opened, scored, version_at
from tests.steps.test_promote import model_uris as model_uris

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("mlflow_uri", "store")]


@pytest.fixture
def name() -> str:
    return f"cxr-{uuid.uuid4().hex}"


@pytest.fixture
def promote(name: str, model_uris: dict[str, str]) -> Iterator[Callable[..., Any]]:
    """Make a model with these weights champion, or try to."""

    def promoted(digest: str, f1: float = 0.9) -> Any:
        chosen = candidate(f1, model_uri=model_uris["guesses"], weights_digest=digest)
        return opened(name, chosen, scored(0.5))

    yield promoted


def tags(name: str, version: str) -> dict[str, str]:
    return dict(tracking.client().get_model_version(name, version).tags)


def test_the_champion_before_is_champion_again_and_so_on(name: str, promote: Callable[..., Any]) -> None:
    for digest in ("one", "two", "three"):
        assert promote(digest).alias == CHAMPION

    done = roll_back(name, "it misses children", who="mara")
    assert done.version == version_at(name, CHAMPION) == "2"
    assert done.words == "Champion again: version 3 was rolled back by mara: it misses children"
    assert tags(name, "3")["cxr.rolled_back"].endswith(" by mara: it misses children")

    assert roll_back(name, "so does this one").version == version_at(name, CHAMPION) == "1"
    with pytest.raises(UserError, match=f"Nothing says which version of {name} was champion before version 1"):
        roll_back(name, "and this")


def test_what_was_rolled_back_is_not_made_champion_again_by_a_run(name: str, promote: Callable[..., Any]) -> None:
    promote("one")
    promote("two")
    roll_back(name, "it misses children")

    again = promote("two")

    assert again.alias == CHALLENGER and version_at(name, CHAMPION) == "1"
    assert "was rolled back (" in again.decision and "it misses children): a person decides." in again.decision
    # A person may: and then it is as any champion.
    assert roll_back(name, "the children were labelled wrong", to="2").version == version_at(name, CHAMPION) == "2"
    assert "cxr.rolled_back" not in tags(name, "2") and "cxr.rolled_back" in tags(name, "1")


def test_a_champion_after_a_rollback_replaces_the_restored_one(name: str, promote: Callable[..., Any]) -> None:
    promote("one")
    promote("two")
    roll_back(name, "it misses children")

    assert promote("three").alias == CHAMPION
    assert tags(name, "3")["cxr.replaced_version"] == "1"
    assert roll_back(name, "worse still").version == "1"


def test_another_try_goes_back_once(name: str, promote: Callable[..., Any]) -> None:
    for digest in ("one", "two", "three"):
        promote(digest)

    first, again = (roll_back(name, "it misses children", request="manual__1") for _ in range(2))

    assert first == again and version_at(name, CHAMPION) == "2"


def test_a_try_that_dies_before_the_alias_moves_is_repaired(
    name: str, promote: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    promote("one")
    promote("two")
    with monkeypatch.context() as dying, pytest.raises(KeyboardInterrupt):
        dying.setattr(tracking, "set_alias", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        roll_back(name, "it misses children", request="manual__1")
    assert version_at(name, CHAMPION) == "2"

    assert roll_back(name, "it misses children", request="manual__1").version == version_at(name, CHAMPION) == "1"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"why": "  "}, "A rollback needs a reason"),
        ({"to": "9"}, "has no version 9"),
        ({"to": "latest"}, "has no version latest"),
        ({"to": "1"}, "is champion already"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_moves(
    name: str, promote: Callable[..., Any], changes: dict[str, str], words: str
) -> None:
    promote("one")

    with pytest.raises(UserError, match=words):
        roll_back(name, changes.get("why", "it misses children"), to=changes.get("to", ""))

    assert version_at(name, CHAMPION) == "1" and "cxr.rolled_back" not in tags(name, "1")


def test_a_model_without_a_champion_is_named() -> None:
    with pytest.raises(UserError, match="cxr-nothing has no champion"):
        roll_back("cxr-nothing", "it misses children")
