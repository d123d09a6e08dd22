"""What people see of a training in MLflow: the answer, in the list of runs and on the page of the run."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from cxr_tasks import tracking
from cxr_tasks.artifacts import ClaimRow, Dataset, PairRow, Report, RunContext
from cxr_tasks.markdown import in_markdown, markdown_links, markdown_list, markdown_table
from cxr_tasks.names import slug
from cxr_tasks.overview.trainings import ANSWER_FILE
from cxr_tasks.pipeline import load_settings

# MLflow's own tag.
RUN_NAME = "mlflow.runName"


def show_answer(run: RunContext, dataset: Dataset, report: Report) -> None:
    """Name the MLflow run of a DAG run by its answer, and keep its figures as metrics, as a note and as a file.

    Args:
        run: The DAG run.
        dataset: What it trained on.
        report: What it says.
    """
    if not tracking.is_on():
        return
    # A source of several places has no name of its own.
    source = urlsplit(dataset.source).path.rstrip("/").rpartition("/")[2] or "several sources"
    name = f"{source} · {load_settings(run).profile} · {_in_short(report.claims)}"
    tags = {
        RUN_NAME: name,
        tracking.TAG_NOTE: _note(dataset, report),
        "cxr.dataset": dataset.version,
        "cxr.answer": report.answer,
    }
    tracking.set_tags(tags, run.mlflow_run_id)
    tracking.log_metrics(_metrics(report), run_id=run.mlflow_run_id)
    tracking.log_text(report.model_dump_json(), ANSWER_FILE, run.mlflow_run_id)


def _in_short(claims: Sequence[ClaimRow]) -> str:
    """The verdicts in a few words: what helps or hurts, and nothing else where something does."""
    found = [f"{each.arm} {each.verdict} ({each.classifier})" for each in claims if each.verdict in ("helps", "hurts")]
    others = dict.fromkeys(each.verdict for each in claims)
    return ", ".join(found or others) or "nothing compared"


def _metrics(report: Report) -> dict[str, float]:
    """Differences with their intervals, and the test macro F1 of each arm as a mean over seeds."""
    metrics: dict[str, float] = {"parts_missing": len(report.missing)}
    for claim in report.claims:
        key = slug(f"{claim.classifier}_{claim.arm}")
        metrics |= {f"{key}_difference": claim.difference, f"{key}_p_value": claim.p_value}
        metrics |= {f"{key}_difference_low": claim.low, f"{key}_difference_high": claim.high}
    return metrics | {f"{name}_macro_f1": sum(of) / len(of) for name, of in _by_arm(report.pairs).items()}


def _by_arm(pairs: Sequence[PairRow]) -> dict[str, list[float]]:
    """Test macro F1 of each seed, by classifier and arm."""
    by_seed: dict[str, dict[int, float]] = {}
    for each in pairs:
        for arm, score in ((each.baseline_arm, each.baseline_macro_f1), (each.arm, each.augmented_macro_f1)):
            by_seed.setdefault(slug(f"{each.classifier}_{arm}"), {})[each.seed] = score
    return {name: list(scores.values()) for name, scores in by_seed.items()}


def _note(dataset: Dataset, report: Report) -> str:
    rows = [
        [
            each.classifier,
            f"{each.arm} against {each.baseline_arm}",
            f"{100 * each.difference:+.1f} ({100 * each.low:+.1f} to {100 * each.high:+.1f})",
            each.verdict,
        ]
        for each in report.claims
    ]
    head = ["Classifier", "Arms", "Macro F1, points (joint interval)", "Verdict"]
    champions = [f"{each.name} version {each.version}: {each.decision}" for each in report.champions]
    missing = [f"Missing: {each.what}. {each.why}" for each in report.missing]
    links = markdown_links({"The report": report.address, "Data Docs": dataset.data_docs})
    parts = [f"**{in_markdown(report.answer)}**", markdown_table(head, rows) if rows else ""]
    return "\n\n".join(part for part in (*parts, markdown_list([*champions, *missing]), links) if part)
