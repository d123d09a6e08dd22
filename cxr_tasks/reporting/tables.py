"""The tables of a report: each from artifacts, as rows of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cxr_tasks.config import DISPLAY_NAMES
from cxr_tasks.evaluation.gan_quality import Figure, GanQuality
from cxr_tasks.evaluation.report import Table
from cxr_tasks.execution import StepResult
from cxr_tasks.store import open_store


def quality_tables(judged: StepResult | None) -> list[Table]:
    """How good the generated images are, per class and over all, if it was measured."""
    if judged is None or not judged["ref"]:
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


def cost_table(
    gan: StepResult | None,
    synthetic: StepResult | None,
    features: Sequence[StepResult],
    arms: Mapping[str, Sequence[StepResult]],
) -> Table:
    """What each part of the run costs. ``features``: of frozen backbones. ``arms``: their trainings by name."""
    rows = []
    if gan is not None:
        rows.append(["Training the GAN", f"{gan['summary']['hours'] * 60:.1f}", _seen(gan)])
        rows.append(["Making the synthetic set", _minutes([synthetic] if synthetic else []), _made(synthetic)])
    if features:
        run = sum(result["summary"]["computed"] for result in features)
        rows.append(["Running frozen backbones, for all arms", _minutes(features), f"{run:,}"])
    rows += [[f"Classifiers, arm {arm}", _minutes(results), _trained_on(results)] for arm, results in arms.items()]
    note = (
        "Minutes of the tasks that made each part (of the GAN, of its training), wherever it was made; what was taken "
        "from an earlier run counts with what it cost then."
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
