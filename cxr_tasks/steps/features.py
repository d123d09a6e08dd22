"""The step that runs frozen backbones over images before the arms ask for what comes out."""

from __future__ import annotations

from pathlib import Path

from cxr_tasks.config import DISPLAY_NAMES
from cxr_tasks.execution import Record, RunContext, StepResult, is_forced, load_settings, perform
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

        anew = is_forced(run, "features", inputs)
        cache = extract(settings, dataset, synthetic, backbone, identity, anew=anew)
        note = f"{DISPLAY_NAMES[backbone]}: {cache.computed:,} images run, {cache.found:,} known from before"
        record["metrics"] = {"images_run": cache.computed, "images_known": cache.found}
        record["summary"] = {"backbone": backbone, "computed": cache.computed, "found": cache.found, "notes": [note]}

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
