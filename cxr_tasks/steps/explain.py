"""The step ``explain``: test images that two arms disagree on, and where each arm looks in them."""

from __future__ import annotations

from pathlib import Path

from cxr_tasks.artifacts import Comparison, Dataset, Gallery, RunContext
from cxr_tasks.config import Settings
from cxr_tasks.pipeline import Made, load_settings, perform
from cxr_tasks.steps.common import keep_plot


def explain(run: RunContext, dataset: Dataset, comparison: Comparison) -> Gallery:
    """Show some of the test images that the two arms of a pair disagree on, and where each arm looks."""
    settings = load_settings(run)

    def fill(folder: Path) -> Made[Gallery]:
        # Where the arm looks is shown once, beside the baseline.
        first = comparison.pair.against == settings.arms.baseline and comparison.pair.arm in settings.arms.claimed
        wanted = first and comparison.is_complete and settings.evaluation.gallery
        shown = _draw(settings, dataset, comparison, folder) if wanted else 0
        return Made(Gallery(comparison=comparison.ref, shown=shown))

    return perform(
        run,
        Gallery,
        fill,
        version=4,
        settings={"gallery": settings.evaluation.gallery, "claimed": list(settings.arms.claimed)},
        inputs={"comparison": comparison, "dataset": dataset},
        label=comparison.name,
    )


def _draw(settings: Settings, dataset: Dataset, comparison: Comparison, folder: Path) -> int:
    """Draw the gallery of a complete pair; returns how many images it shows, which may be none."""
    import numpy as np
    import pandas as pd

    from cxr_tasks.classifiers.grad_cam import grad_cam
    from cxr_tasks.evaluation.plots_gallery import disagreement_gallery, disagreements

    classes, arms = list(settings.data.classes), comparison.arms
    tables = {role: arm.model.predictions() for role, arm in arms.items()}
    chosen = disagreements(tables["baseline"], tables["augmented"], classes, most=settings.evaluation.gallery)
    if chosen.empty:
        return 0
    test = dataset.images("test", settings.classifiers.image_size, classes)
    position = pd.Series(np.arange(len(test)), index=test.ids)
    places = position.loc[chosen["image_id"]].to_numpy()
    pixels, large = test.pixels[places], dataset.largest_images("test", classes).pixels[places]
    heat = {
        role: grad_cam(arm.model.load(), pixels, np.array([classes.index(name) for name in chosen[role]]))
        for role, arm in arms.items()
    }
    title = f"{comparison.name}: test images that the arms disagree on"
    plot = disagreement_gallery(chosen, large, heat["baseline"], heat["augmented"], title, settings.data.classes)
    keep_plot(folder, Gallery.PICTURE, plot)
    return len(chosen)
