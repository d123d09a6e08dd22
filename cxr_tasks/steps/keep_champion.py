"""The step ``keep_champion``: say why no challenger of a run was made champion."""

from __future__ import annotations

from pathlib import Path

from cxr_tasks.artifacts import Challenge, KeptChampion, Reply, RunContext
from cxr_tasks.pipeline import Made
from cxr_tasks.steps.contest import leave, perform_now, write_decisions


def keep_champion(run: RunContext, challenge: Challenge, reply: Reply | None = None) -> KeptChampion:
    """Leave the champions what they are.

    Args:
        run: The DAG run.
        challenge: What the gate says.
        reply: What a person says; ``None`` where nobody was asked.
    """

    def fill(folder: Path) -> Made[KeptChampion]:
        decisions = [leave(each, reply, _waits(each.name, each.version)) for each in challenge.decisions]
        write_decisions(folder, decisions)
        return Made(KeptChampion(decisions=tuple(decisions)), {"candidates": len(decisions), "promoted": 0})

    told = {"reply": reply.model_dump() if reply is not None else None}
    return perform_now(run, KeptChampion, fill, {"challenge": challenge}, told)


def _waits(name: str, version: str) -> str:
    return f"A person decides: cxr approve {name} --version {version} makes it champion."
