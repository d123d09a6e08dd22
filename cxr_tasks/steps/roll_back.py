"""The step ``roll_back``: give the alias ``champion`` back to the version that had it before."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cxr_tasks import tracking
from cxr_tasks.errors import UserError
from cxr_tasks.registry.champions import (
    CHAMPION,
    TAG_DECISION,
    TAG_REPLACED,
    TAG_RESTORED_BY,
    TAG_ROLLED_BACK,
    TAG_SINCE,
)
from cxr_tasks.steps.cards import tell
from cxr_tasks.store import open_store
from cxr_tasks.strict import Strict

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger(__name__)


class RolledBack(Strict):
    """A rollback. ``version``: what is champion by now. ``words``: what was done."""

    name: str
    version: str
    words: str


def roll_back(name: str, why: str, *, who: str = "", to: str = "", request: str = "") -> RolledBack:
    """Make the version champion again that was champion before.

    The version that is rolled back keeps the reason. A later run that trains the same weights again does not make it
    champion by itself.

    Args:
        name: The registered model, such as ``cxr-overall``.
        why: The reason, for those who ask later.
        who: Who asks for it.
        to: Another version than the one before.
        request: Names what asks. Another try of it finds the work done, and does not go one version further back.

    Raises:
        UserError: There is no reason, no such model, no champion, or no version to go back to.
    """
    if not why.strip():
        raise UserError("A rollback needs a reason: say in a few words what is wrong with the present champion.")
    with open_store().lease(f"champion/{name}", f"the rollback of {name}"):
        champion = tracking.version_by_alias(name, CHAMPION)
        if champion is None:
            raise UserError(f"{name} has no champion: look for the model's name on MLflow's page of registered models.")
        if request and champion.tags.get(TAG_RESTORED_BY) == request:
            return RolledBack(name=name, version=str(champion.version), words=champion.tags.get(TAG_DECISION, ""))
        restored = _restored(champion, to)
        at = datetime.now(UTC).isoformat(timespec="seconds")
        by = f" by {who}" if who else ""
        # First the reason and then the act, as where a champion is made.
        tell(champion, f"Rolled back at {at}{by}: {why.strip()}", {TAG_ROLLED_BACK: f"{at}{by}: {why.strip()}"})
        words = f"Champion again: version {champion.version} was rolled back{by}: {why.strip()}"
        # Whoever names a version that was rolled back once takes that back.
        tell(restored, words, {TAG_SINCE: at, TAG_RESTORED_BY: request}, (TAG_ROLLED_BACK,))
        tracking.set_alias(name, CHAMPION, restored.version)
    log.info("%s version %s: %s", name, restored.version, words)
    return RolledBack(name=name, version=str(restored.version), words=words)


def _restored(champion: ModelVersion, to: str) -> ModelVersion:
    """The version to go back to.

    Raises:
        UserError: There is none.
    """
    name, wanted = champion.name, to or champion.tags.get(TAG_REPLACED, "")
    if not wanted:
        raise UserError(
            f"Nothing says which version of {name} was champion before version {champion.version}: name the one that "
            "is to be champion."
        )
    if wanted == str(champion.version):
        raise UserError(f"Version {wanted} of {name} is champion already: name another one.")
    found = tracking.find_version(f"models:/{name}/{wanted}") if wanted.isdigit() else None
    if found is None or isinstance(found, str):
        raise UserError(f"{name} has no version {wanted}: look for it on MLflow's page of registered models.")
    return found
