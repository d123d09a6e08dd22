"""Writes a run's report: gathers what the artifacts say, and renders it. How it looks is the evaluation's matter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cxr_tasks import tracking
from cxr_tasks.evaluation.report import ReportPair, render_report
from cxr_tasks.execution import Record, RunContext, StepResult, perform
from cxr_tasks.reporting.content import Results, gather

__all__ = ["REPORT", "Results", "write_report"]

REPORT = "report.html"


def write_report(run: RunContext, results: Results) -> StepResult:
    """Render the report, keep it as an artifact and in the DAG run's MLflow run."""

    def make(folder: Path, record: Record) -> None:
        content = gather(run, results)
        (folder / REPORT).write_text(render_report(content), encoding="utf-8")
        tracking.client().log_artifact(run["mlflow_run_id"], str(folder / REPORT))
        tracking.end_run(run["mlflow_run_id"])
        record["summary"] = {
            "answer": content.answer,
            "warnings": content.warnings,
            "table": [_table_row(pair) for pair in content.pairs],
            "champions": results.promoted["summary"]["decisions"],
            "report": tracking.artifact_url(run["experiment_id"], run["mlflow_run_id"], REPORT),
        }

    # A report speaks of one run and links to it, so no other run's report can stand in for it.
    inputs: dict[str, StepResult | str] = {"dag_run": run["dag_run"], "work": run["mlflow_run_id"]}
    inputs["promoted"] = results.promoted
    inputs |= {f"comparison {i}": result for i, result in enumerate(results.comparisons)}
    inputs |= {f"leak {i}": result for i, result in enumerate(results.leaks)}
    return perform(run, "report", make, settings={}, inputs=inputs)


def _table_row(pair: ReportPair) -> dict[str, Any]:
    """One pair's line of the comparison table, for the terminal and for programs. Differences are fractions."""
    comparison = pair.comparison
    return {
        "classifier": pair.network,
        "seed": pair.seed,
        "baseline_arm": comparison.baseline_arm,
        "arm": comparison.augmented_arm,
        "baseline_macro_f1": comparison.baseline_test["macro_f1"],
        "augmented_macro_f1": comparison.augmented_test["macro_f1"],
        "difference": comparison.macro_f1_difference,
        "low": comparison.macro_f1_low,
        "high": comparison.macro_f1_high,
        "detectable": comparison.detectable,
        "mcnemar_p": comparison.mcnemar_p,
        "test_images": comparison.images,
        "verdict": comparison.verdict,
    }
