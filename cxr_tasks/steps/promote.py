"""The step ``promote``: make champions of the challengers that pass the gate."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cxr_tasks import tracking
from cxr_tasks.artifacts import (
    Challenge,
    Comparison,
    Dataset,
    Decision,
    ExternalResults,
    Promotion,
    Reply,
    RunContext,
    TrainedArm,
)
from cxr_tasks.errors import SettingsError
from cxr_tasks.pipeline import Made, load_settings
from cxr_tasks.registry.champions import (
    CHAMPION,
    TAG_DECIDED_BY,
    TAG_REPLACED,
    TAG_REPLY,
    TAG_SINCE,
)
from cxr_tasks.steps.cards import tell
from cxr_tasks.steps.common import Mapped
from cxr_tasks.steps.contest import (
    Contest,
    alone_with,
    champion_already,
    leave,
    perform_now,
    ruled,
    version_of,
    write_decisions,
)
from cxr_tasks.store import Lease

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


def promote(
    run: RunContext,
    dataset: Dataset,
    challenge: Challenge,
    comparisons: list[Comparison | None] | None,
    trained: Mapped[TrainedArm] | None = None,
    external: Mapped[ExternalResults] | None = None,
    reply: Reply | None = None,
) -> Promotion:
    """Make champion what passes the gate.

    Where another run has made a champion since the gate ruled, the gate is asked again.

    Args:
        run: The DAG run.
        dataset: What the arms were trained and validated on.
        challenge: What the gate says.
        comparisons: As for the step ``challenge``.
        trained: As for the step ``challenge``.
        external: As for the step ``challenge``.
        reply: What a person says; ``None`` where nobody is asked.

    Raises:
        SettingsError: A person is to be asked, and there is no reply.
    """
    if load_settings(run).gate.approval and reply is None:
        raise SettingsError("A person is to approve (gate.approval), and nobody has: no champion is made.")

    def fill(folder: Path) -> Made[Promotion]:
        contest: list[Contest] = []

        def challenge_again(decision: Decision, lease: Lease) -> Decision:
            # Made only where it is needed, for it reads what the arms predict.
            contest[:] = contest or [Contest(run, dataset, comparisons, trained, external)]
            return contest[0].challenge(decision.name, lease)

        decisions = [promote_alone(each, challenge_again, run.dag_run, reply) for each in challenge.decisions]
        write_decisions(folder, decisions)
        promoted = sum(each.is_new for each in decisions)
        return Made(Promotion(decisions=tuple(decisions)), {"candidates": len(decisions), "promoted": promoted})

    told = {"reply": reply.model_dump() if reply is not None else None}
    return perform_now(run, Promotion, fill, {"challenge": challenge}, told)


def promote_alone(
    decision: Decision,
    challenge_again: Callable[[Decision, Lease], Decision],
    dag_run: str = "",
    reply: Reply | None = None,
) -> Decision:
    """Make the challenger of ``decision`` champion, if it may be that, while no other run decides under its name.

    Args:
        decision: What the gate said.
        challenge_again: Asks the gate once more.
        dag_run: Who promotes. Another try of it says again what an earlier try has carried out.
        reply: What a person says; ``None`` where nobody is asked.
    """
    with alone_with(decision.name, "the promotion") as lease:
        champion = tracking.version_by_alias(decision.name, CHAMPION)
        standing = str(champion.version) if champion is not None else ""
        if champion is not None and standing == decision.version:
            words, is_new = champion_already(champion, dag_run)
            return decision.model_copy(update={"alias": CHAMPION, "decision": words, "is_new": is_new})
        if not decision.passes:
            return decision
        if reply is not None and decision.name not in reply.approved:
            return leave(decision, reply)
        version = version_of(decision)
        if version is None or standing != decision.against:
            decision = challenge_again(decision, lease)
            version = version_of(decision)
            if version is None or not decision.passes:
                return decision
        said = reply.words(decision.name) if reply is not None else ""
        words = f"{ruled(decision.decision)} {said}".strip()
        make_champion(version, replaced=decision.against, words=words, dag_run=dag_run, reply=said)
        return decision.model_copy(update={"alias": CHAMPION, "decision": words, "is_new": True})


def make_champion(version: ModelVersion, *, replaced: str, words: str, dag_run: str = "", reply: str = "") -> None:
    """Give ``version`` the alias ``champion``, inside :func:`alone_with`.

    Args:
        version: The registered version.
        replaced: The version that was champion; empty where there was none.
        words: Why.
        dag_run: Which run decided; empty where a person did.
        reply: What a person said.
    """
    # First the reason and then the act: an alias that was moved can always be explained.
    told = {TAG_DECIDED_BY: dag_run, TAG_REPLACED: replaced}
    told |= {TAG_SINCE: datetime.now(UTC).isoformat(timespec="seconds"), **({TAG_REPLY: reply} if reply else {})}
    tell(version, words, told)
    tracking.set_alias(version.name, CHAMPION, version.version)
