"""The step ``keep_champion``: say why no challenger of a run was made champion."""

from __future__ import annotations

from pathlib import Path

from cxr_tasks.artifacts import Artifact, Challenge, KeptChampion, Reply, RunContext
from cxr_tasks.pipeline import Made, perform
from cxr_tasks.steps.contest import leave, write_decisions


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

    anew = run.model_copy(update={"force": (*run.force, KeptChampion.step)})
    inputs: dict[str, Artifact | str] = {"dag_run": run.dag_run, "work": run.mlflow_run_id, "challenge": challenge}
    told = {"reply": reply.model_dump() if reply is not None else None}
    return perform(anew, KeptChampion, fill, settings=told, inputs=inputs)


def _waits(name: str, version: str) -> str:
    return f"A person decides: cxr approve {name} --version {version} makes it champion."
