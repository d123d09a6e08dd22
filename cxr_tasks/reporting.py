"""Gathers what a run's artifacts say into the content of its report. How it looks is the evaluation's matter."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cxr_tasks import tracking
from cxr_tasks.config import DISPLAY_NAMES
from cxr_tasks.evaluation.comparison import PairComparison, answer
from cxr_tasks.evaluation.gan_quality import Figure, GanQuality
from cxr_tasks.evaluation.report import (
    Link,
    PromotedModel,
    ReportContent,
    ReportPair,
    SampleGrid,
    Table,
    UnpairedArm,
    render_report,
)
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
    judged: StepResult,
    synthetic: StepResult | None,
    comparisons: Sequence[StepResult],
    promoted: StepResult,
) -> StepResult:
    """Render the report, keep it as an artifact and in the DAG run's MLflow run."""

    def make(folder: Path, record: Record) -> None:
        content = gather(run, dataset, gan, judged, synthetic, comparisons, promoted)
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
    judged: StepResult,
    synthetic: StepResult | None,
    comparisons: Sequence[StepResult],
    promoted: StepResult,
) -> ReportContent:
    """What the report says, from the artifacts alone."""
    settings, store = load_settings(run), open_store()
    pairs, unpaired = [], []
    for result in comparisons:
        folder = store.fetch(result["ref"])
        pair = result["summary"]["pair"]
        network, curves = DISPLAY_NAMES[pair["classifier"]], (folder / "curves.png").read_bytes()
        if result["summary"]["augmented"] is None:
            alone = json.loads((folder / "alone.json").read_text("utf-8"))
            unpaired.append(
                UnpairedArm(network=network, seed=pair["seed"], arm=settings.pair.baseline, curves_png=curves, **alone)
            )
            continue
        pairs.append(
            ReportPair(
                network=network,
                seed=pair["seed"],
                baseline_arm=settings.pair.baseline,
                augmented_arm=settings.pair.augmented,
                comparison=PairComparison.model_validate_json((folder / "comparison.json").read_text("utf-8")),
                curves_png=curves,
            )
        )
    grids = [
        SampleGrid(caption=caption, png=(store.fetch(step["ref"]) / "grid.png").read_bytes())
        for step, caption in ((gan, "The GAN's fixed grid at the end of training"), (synthetic, "The synthetic set"))
        if step and step["ref"] and (store.fetch(step["ref"]) / "grid.png").is_file()
    ]
    links = [
        Link(label="This run in MLflow: parameters, metrics, figures and models", url=run["url"]),
        Link(label="The data validation page (Data Docs)", url=dataset["summary"]["data_docs"]),
    ]
    summary = dataset["summary"]
    return ReportContent(
        title="Does synthetic augmentation help?",
        created=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        answer=answer([pair.comparison for pair in pairs]) if pairs else judged["summary"]["sentence"],
        dataset_name=Path(summary["source"]).name,
        dataset_version=summary["version"],
        classes=list(settings.data.classes),
        counts=summary["counts"],
        image_size=f"{settings.classifiers.image_size} × {settings.classifiers.image_size}",
        profile=settings.profile,
        seeds=list(settings.classifiers.seeds),
        gan_epochs=gan["summary"]["epochs"],
        gan_steps=gan["summary"]["steps"],
        synthetic_counts=synthetic["summary"]["counts"] if synthetic else {},
        warnings=[
            *settings.warnings,
            *([TWO_CHANGES] if settings.pair.changes_classical else []),
            *judged["summary"]["warnings"],
            *(f"Synthetic set: {note}." for note in (synthetic["summary"]["notes"] if synthetic else ())),
            *(f"Data: {warning}" for warning in summary["warnings"]),
        ],
        pairs=pairs,
        unpaired=unpaired,
        sample_grids=grids,
        tables=[*_quality_tables(judged), _cost_table(gan, synthetic, comparisons)],
        promoted=[PromotedModel(**decision) for decision in promoted["summary"]["decisions"]],
        settings_yaml=settings.to_yaml(),
        links=[link for link in links if link.url],
    )


def _quality_tables(judged: StepResult) -> list[Table]:
    """How good the generated images are, per class and over all, if it was measured."""
    if not judged["ref"]:
        return []
    quality = GanQuality.model_validate_json((open_store().fetch(judged["ref"]) / "quality.json").read_text("utf-8"))
    columns = [
        *("Images", "Generated", "Training", "Held out", "KID (floor)", "KID to untrained", "FID (floor)"),
        *("Density (floor)", "Coverage (floor)", "Memorised (held out)"),
        *("Repeated (training)", "Accuracy score (real)"),
    ]
    rows = [
        [
            *(row.name, f"{row.synthetic:,}", f"{row.training:,}", f"{row.held_out:,}"),
            _beside(row.kid, row.kid_floor, 3),
            _shown(row.kid_ratio, 2),
            _beside(row.fid, row.fid_floor, 0),
            _beside(row.density, row.density_floor, 2),
            _beside(row.coverage, row.coverage_floor, 2),
            _beside(row.memorised, row.memorised_held_out, 2),
            _beside(row.repeated, row.repeated_training, 2),
            _beside(row.accuracy_score, row.accuracy_score_real, 2),
        ]
        for row in (quality.overall, *quality.classes)
    ]
    note = (
        f"{judged['summary']['sentence']} In brackets stands what real images get: held-out ones in the place of the "
        "generated, or at most as many training images. Distances of a row are over "
        + ", ".join(f"{row.drawn} images a side ({row.name})" for row in (quality.overall, *quality.classes))
        + f". Accuracy score: a classifier trained on the images alone and tested on real ones. {quality.extractor}."
    )
    return [Table(title="Quality of the generated images", note=note, columns=columns, rows=rows)]


def _shown(figure: Figure, digits: int) -> str:
    return "–" if figure.value is None else f"{figure.value:.{digits}f}"


def _beside(figure: Figure, reference: Figure, digits: int) -> str:
    return f"{_shown(figure, digits)} ({_shown(reference, digits)})"


def _cost_table(gan: StepResult, synthetic: StepResult | None, comparisons: Sequence[StepResult]) -> Table:
    """What synthetic augmentation costs beside training without it."""
    baselines = [result["summary"]["baseline"] for result in comparisons]
    augmented = [arm for result in comparisons if (arm := result["summary"]["augmented"])]
    rows = [
        ["Training the GAN", f"{gan['summary']['hours'] * 60:.1f}", _seen(gan)],
        ["Making the synthetic set", _minutes([synthetic] if synthetic else []), _made(synthetic)],
        ["Classifiers, baseline arms", _minutes(baselines), _trained_on(baselines)],
        ["Classifiers, augmented arms", _minutes(augmented), _trained_on(augmented)],
    ]
    note = (
        "Minutes of the tasks that made each part (of the GAN, of its training), wherever it was made; what was taken "
        "from an earlier run counts with what it cost then. The first two rows are the price of synthetic "
        "augmentation before a classifier trains."
    )
    return Table(title="What it cost", note=note, columns=["Part", "Minutes", "Images"], rows=rows)


def _seen(gan: StepResult) -> str:
    """The images that the GAN was trained on, and how often."""
    summary = gan["summary"]
    seen = f"{summary['images']:,} × {summary['epochs']:,} epochs"
    return seen if gan["ref"] else f"{seen}, of which {summary['steps']:,} steps are done"


def _minutes(results: Sequence[StepResult]) -> str:
    records = [open_store().record(result["ref"]) for result in results if result["ref"]]
    return f"{sum(record['seconds'] for record in records if record) / 60:.1f}" if records else "none"


def _made(synthetic: StepResult | None) -> str:
    return f"{sum(synthetic['summary']['counts'].values()):,}" if synthetic else "none"


def _trained_on(arms: Sequence[StepResult]) -> str:
    parts = []
    for arm in arms:
        summary = arm["summary"]
        parts.append(f"{DISPLAY_NAMES[summary['classifier']]} {summary['train_images']:,} × {summary['epochs']}")
    return ", ".join(parts) or "none"


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
