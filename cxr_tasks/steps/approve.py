"""The step ``approve``: a person makes a challenger champion that passed the gate."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cxr_tasks import tracking
from cxr_tasks.artifacts import Reply
from cxr_tasks.errors import UserError
from cxr_tasks.registry.champions import (
    CHALLENGER,
    CHAMPION,
    TAG_AGAINST,
    TAG_CONDITION,
    TAG_DECISION,
    TAG_ROLLED_BACK,
)
from cxr_tasks.steps.contest import alone_with, ruled
from cxr_tasks.steps.promote import make_champion

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger(__name__)
GIVE_ALIAS = f"give it the alias {CHAMPION} on MLflow's page of the version"


def approve(name: str, who: str, reason: str = "", number: str = "") -> str:
    """Make champion what passed the gate and waits for a person.

    Args:
        name: The registered model, such as ``cxr-overall``.
        who: Who approves.
        reason: Why, for those who ask later.
        number: The version; empty for the challenger.

    Returns:
        What was done, in words.

    Raises:
        UserError: There is no such version, the gate refused it, or another champion was made since the gate ruled.
    """
    with alone_with(name, "the approval"):
        version, champion = _challenger(name, number), tracking.version_by_alias(name, CHAMPION)
        standing = str(champion.version) if champion is not None else ""
        if standing == str(version.version):
            raise UserError(f"Version {version.version} of {name} is champion already: nothing is left to approve.")
        _check_passed(version, standing)
        reply = Reply(
            approved=(name,), who=who, reason=reason.strip(), at=datetime.now(UTC).isoformat(timespec="seconds")
        )
        said = reply.words(name)
        words = f"{ruled(version.tags.get(TAG_DECISION, ''))} {said}".strip()
        make_champion(version, replaced=standing, words=words, reply=said)
    done = f"{name} version {version.version} is champion. {said}"
    log.info(done)
    return done


def _challenger(name: str, number: str) -> ModelVersion:
    found = tracking.find_version(f"models:/{name}/{number}") if number else tracking.version_by_alias(name, CHALLENGER)
    if found is None or isinstance(found, str):
        what = f"version {number}" if number else f"version with the alias {CHALLENGER}"
        raise UserError(f"{name} has no {what}: look for it on MLflow's page of registered models.")
    return found


def _check_passed(version: ModelVersion, standing: str) -> None:
    """Look whether the gate let ``version`` pass against the champion of now.

    Raises:
        UserError: It did not.
    """
    told, what = version.tags, f"Version {version.version} of {version.name}"
    # A rollback is from a champion.
    by = f"cxr rollback {version.name} --to {version.version} --reason TEXT" if standing else GIVE_ALIAS
    other = f"To make it champion all the same: {by}."
    ruled_on = [words for tag, words in told.items() if tag.startswith(TAG_CONDITION)]
    if refused := [words for words in ruled_on if words.startswith("refused")]:
        raise UserError(f"The gate refused {what.lower()} ({'; '.join(refused)}). {other}")
    if told.get(TAG_ROLLED_BACK) or TAG_AGAINST not in told:
        why = "was rolled back" if told.get(TAG_ROLLED_BACK) else "never stood at the gate"
        raise UserError(f"{what} {why}. {other}")
    if told[TAG_AGAINST] != standing:
        before = f"champion {told[TAG_AGAINST]}" if told[TAG_AGAINST] else "no champion"
        raise UserError(
            f"The gate held version {version.version} of {version.name} against {before}, and version {standing} is "
            f"champion by now: train again, and the gate compares the two. {other}"
        )
