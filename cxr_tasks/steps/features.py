"""The step that runs frozen backbones over images before the arms ask for what comes out."""

from __future__ import annotations

from pathlib import Path

from cxr_tasks.config import DISPLAY_NAMES
from cxr_tasks.execution import Record, RunContext, StepResult, load_settings, perform
from cxr_tasks.steps.shared import backbone_identity, dataset_tags


def backbones(run: RunContext) -> list[str]:
    """The run's classifiers that stand on a frozen backbone; the DAG maps over them."""
    return [name for name in load_settings(run).classifiers.names if name != "cnn"]


def extract_features(
    run: RunContext, dataset: StepResult, backbone: str, synthetic: StepResult | None = None
) -> StepResult:
    """Run a frozen backbone once over what the arms show it unaugmented: the dataset, or the synthetic set.

    What the store has from an earlier run, or of shards that have not changed, is not run again.
    """
    settings = load_settings(run)
    identity = backbone_identity(settings, dataset, backbone)

    def make(folder: Path, record: Record) -> None:
        from cxr_tasks.training.extract import extract

        images, computed = extract(settings, dataset, synthetic, backbone, identity)
        note = f"{DISPLAY_NAMES[backbone]}: {computed:,} images run, {images - computed:,} known from before"
        record["metrics"] = {"images": images, "images_run": computed}
        record["summary"] = {"images": images, "computed": computed, "notes": [note]}

    inputs: dict[str, StepResult | str] = {"dataset": dataset}
    what = {**identity, "arms": list(settings.arms.names), "shortcuts": settings.evaluation.shortcuts}
    if synthetic is not None:
        inputs["synthetic"] = synthetic
    else:
        what |= {"counts": settings.synthetic.model_dump(mode="json")["counts"], "seed": settings.seed}
    return perform(
        run,
        "features",
        make,
        settings={**what, "gan_size": settings.gan.image_size},
        inputs=inputs,
        label=backbone if synthetic is None else f"{backbone} synthetic",
        tags=dataset_tags(run, dataset) | {"cxr.classifier": backbone},
    )
