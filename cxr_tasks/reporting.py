"""Gathers what a run's artifacts say into the content of its report. How it looks is the evaluation's matter."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cxr_tasks import tracking
from cxr_tasks.config import DISPLAY_NAMES
from cxr_tasks.evaluation.comparison import PairComparison, answer
from cxr_tasks.evaluation.report import Link, PromotedModel, ReportContent, ReportPair, SampleGrid, render_report
from cxr_tasks.execution import Record, RunContext, StepResult, load_settings, perform
from cxr_tasks.store import open_store

REPORT = "report.html"
TWO_CHANGES = (
    "The arms differ in two things, synthetic images and classical augmentation, as in the source report: "
    "the difference between them cannot be credited to the synthetic images alone."
)


def write_report(
    run: RunContext,
    dataset: StepResult,
    gan: StepResult,
    synthetic: StepResult,
    comparisons: Sequence[StepResult],
    promoted: StepResult,
) -> StepResult:
    """Render the report, keep it as an artifact and in the DAG run's MLflow run."""

    def make(folder: Path, record: Record) -> None:
        content = gather(run, dataset, gan, synthetic, comparisons, promoted)
        (folder / REPORT).write_text(render_report(content), encoding="utf-8")
        tracking.client().log_artifact(run["mlflow_run_id"], str(folder / REPORT))
        tracking.end_run(run["mlflow_run_id"])
        record["summary"] = {
            "answer": content.answer,
            "table": [_table_row(pair.network, pair.seed, pair.comparison) for pair in content.pairs],
            "champions": promoted["summary"]["decisions"],
            "report": tracking.artifact_url(run["experiment_id"], run["mlflow_run_id"], REPORT),
        }

    # A report speaks of one run and links to it, so no other run's report can stand in for it.
    inputs: dict[str, StepResult | str] = {
        "dag_run": run["dag_run"],
        "work": run["mlflow_run_id"],
        "promoted": promoted,
    }
    inputs |= {f"comparison {i}": result for i, result in enumerate(comparisons)}
    return perform(run, "report", make, settings={}, inputs=inputs)


def gather(
    run: RunContext,
    dataset: StepResult,
    gan: StepResult,
    synthetic: StepResult,
    comparisons: Sequence[StepResult],
    promoted: StepResult,
) -> ReportContent:
    """What the report says, from the artifacts alone."""
    settings, store = load_settings(run), open_store()
    pairs = []
    for result in comparisons:
        folder = store.fetch(result["ref"])
        pair = result["summary"]["pair"]
        pairs.append(
            ReportPair(
                network=DISPLAY_NAMES[pair["classifier"]],
                seed=pair["seed"],
                baseline_arm=settings.pair.baseline,
                augmented_arm=settings.pair.augmented,
                comparison=PairComparison.model_validate_json((folder / "comparison.json").read_text("utf-8")),
                curves_png=(folder / "curves.png").read_bytes(),
            )
        )
    grids = [
        SampleGrid(caption=caption, png=(store.fetch(step["ref"]) / "grid.png").read_bytes())
        for step, caption in ((gan, "The GAN's fixed grid at the end of training"), (synthetic, "The synthetic set"))
        if (store.fetch(step["ref"]) / "grid.png").is_file()
    ]
    links = [
        Link(label="This run in MLflow: parameters, metrics, figures and models", url=run["url"]),
        Link(label="The data validation page (Data Docs)", url=dataset["summary"]["data_docs"]),
    ]
    summary = dataset["summary"]
    return ReportContent(
        title="Does synthetic augmentation help?",
        created=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        answer=answer([pair.comparison for pair in pairs]),
        dataset_name=Path(summary["source"]).name,
        dataset_version=summary["version"],
        classes=list(settings.data.classes),
        counts=summary["counts"],
        image_size=f"{settings.classifiers.image_size} × {settings.classifiers.image_size}",
        profile=settings.profile,
        seeds=list(settings.classifiers.seeds),
        gan_epochs=gan["summary"]["epochs"],
        gan_steps=gan["summary"]["steps"],
        synthetic_counts=synthetic["summary"]["counts"],
        warnings=[
            *settings.warnings,
            *([TWO_CHANGES] if settings.pair.changes_classical else []),
            *(f"Data: {warning}" for warning in summary["warnings"]),
        ],
        pairs=pairs,
        sample_grids=grids,
        promoted=[PromotedModel(**decision) for decision in promoted["summary"]["decisions"]],
        settings_yaml=settings.to_yaml(),
        links=[link for link in links if link.url],
    )


def _table_row(network: str, seed: int, comparison: PairComparison) -> dict[str, Any]:
    """One pair's line of the comparison table, for the terminal and for programs. Differences are fractions."""
    return {
        "classifier": network,
        "seed": seed,
        "baseline_macro_f1": comparison.baseline_test["macro_f1"],
        "augmented_macro_f1": comparison.augmented_test["macro_f1"],
        "difference": comparison.macro_f1_difference,
        "low": comparison.macro_f1_low,
        "high": comparison.macro_f1_high,
        "mcnemar_p": comparison.mcnemar_p,
        "test_images": comparison.images,
        "verdict": comparison.verdict,
    }
