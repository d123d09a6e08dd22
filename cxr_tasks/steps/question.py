"""What a person is asked before challengers become champions."""

from __future__ import annotations

from collections.abc import Sequence

from cxr_tasks.artifacts import Challenge, Decision, Reply, Report, RunContext
from cxr_tasks.durations import time_taken
from cxr_tasks.markdown import in_markdown, markdown_links, markdown_list, markdown_table
from cxr_tasks.pipeline import load_settings
from cxr_tasks.steps.contest import ruled
from cxr_tasks.strict import Strict


class Question(Strict):
    """What a person is asked.

    Attributes:
        subject: In one line.
        body: What there is to know, as Markdown.
        models: The registered models that it is about.
        days: How long the reply is waited for.
    """

    subject: str
    body: str
    models: tuple[str, ...]
    days: float


def question(run: RunContext, challenge: Challenge, report: Report | None) -> Question:
    """What a person is asked of the challengers that pass the gate.

    Args:
        run: The DAG run.
        challenge: What the gate says.
        report: The report as it is before the answer; ``None`` where there is none.
    """
    passed = [each for each in challenge.decisions if each.passes]
    days = load_settings(run).gate.approval_days
    parts = [f"**{report.answer}**"] if report is not None and report.answer else []
    parts += [_challengers_table(passed), *(_conditions(each) for each in passed)]
    pages = {"The report of this run": report.address if report is not None else "", "The run in MLflow": run.url}
    parts.append(markdown_links(pages))
    parts.append(what_silence_means(days))
    models = tuple(each.name for each in passed)
    what = (
        f"the new versions of {', '.join(models)}" if len(models) > 1 else f"version {passed[0].version} of {models[0]}"
    )
    return Question(
        subject=f"Make {what} champion?", body="\n\n".join(part for part in parts if part), models=models, days=days
    )


def what_silence_means(days: float) -> str:
    """What follows where nobody answers within that many days."""
    return f"Without an answer within {time_taken(86_400 * days)}, every champion stays."


def read_reply(run: RunContext, chosen: bool, who: str, at: str, given: dict[str, object]) -> Reply:
    """What a person said.

    Args:
        run: The DAG run.
        chosen: Whether the reply is yes.
        who: Who answered; empty where nobody did. Nobody never means yes.
        at: When, as ISO 8601.
        given: The fields beside the reply: ``models`` and ``reason``.
    """
    models, days = given.get("models"), load_settings(run).gate.approval_days
    approved = tuple(map(str, models)) if chosen and who and isinstance(models, list) else ()
    return Reply(approved=approved, who=who, at=at, reason=str(given.get("reason") or "").strip(), days=days)


def _challengers_table(passed: Sequence[Decision]) -> str:
    rows = []
    for each in passed:
        champion = f"version {each.against}" if each.against else "none"
        rows.append([each.name, each.version, each.arm, f"{100 * each.validation_macro_f1:.1f} %", champion])
    return markdown_table(["Model", "Version", "Trained as", "Validation macro F1", "Champion now"], rows)


def _conditions(decision: Decision) -> str:
    head = f"**{in_markdown(decision.name)}**: {in_markdown(ruled(decision.decision))}"
    return f"{head}\n\n{markdown_list([each.words for each in decision.conditions])}"
