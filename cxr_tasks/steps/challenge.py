"""The step ``challenge``: register the best arms as challengers, and ask the gate whether they may become champions."""

from __future__ import annotations

from pathlib import Path

from cxr_tasks.artifacts import Challenge, Comparison, Dataset, ExternalResults, RunContext, TrainedArm
from cxr_tasks.pipeline import Made, load_settings
from cxr_tasks.steps.common import Mapped, flat
from cxr_tasks.steps.contest import Contest, alone_with, perform_now, write_decisions


def challenge(
    run: RunContext,
    dataset: Dataset,
    comparisons: list[Comparison | None] | None,
    trained: Mapped[TrainedArm] | None = None,
    external: Mapped[ExternalResults] | None = None,
) -> Challenge:
    """Register, for each classifier and over all, the arm with the best validation macro F1; see ``registry.gate``.

    Args:
        run: The DAG run.
        dataset: What the arms were trained and validated on.
        comparisons: Of the run. Their arms are candidates.
        trained: Further candidates: arms whose comparison failed, say.
        external: How the arms do on the external sets, which may hold a challenger back.
    """

    def fill(folder: Path) -> Made[Challenge]:
        contest = Contest(run, dataset, comparisons, trained, external)
        decisions = []
        for name in contest.rivals:
            with alone_with(name, "the challenge") as lease:
                decisions.append(contest.challenge(name, lease))
        write_decisions(folder, decisions)
        passed = sum(each.passes for each in decisions)
        return Made(Challenge(decisions=tuple(decisions)), {"challengers": len(decisions), "passed": passed})

    inputs = {f"comparison {i}": comparison for i, comparison in enumerate(flat([comparisons]))}
    return perform_now(run, Challenge, fill, inputs)


def passes_gate(challenge: Challenge) -> bool:
    """Whether any challenger may become champion."""
    return any(each.passes for each in challenge.decisions)


def asks_a_person(run: RunContext) -> bool:
    """Whether a person is asked before a challenger that passes the gate becomes champion."""
    return load_settings(run).gate.approval
