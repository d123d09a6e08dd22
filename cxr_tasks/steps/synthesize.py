"""The step ``synthesize``: draw the synthetic set from the GAN."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from cxr_tasks import tracking
from cxr_tasks.artifacts import Dataset, Gan, RunContext, SyntheticSet
from cxr_tasks.config import Settings
from cxr_tasks.errors import DataError
from cxr_tasks.pipeline import Made, load_settings, perform
from cxr_tasks.steps.common import dataset_tags

if TYPE_CHECKING:
    from cxr_tasks.data.dataset import Images
    from cxr_tasks.gan.filtering import Kept


def synthesize(run: RunContext, dataset: Dataset, gan: Gan) -> SyntheticSet:
    """Generate the synthetic set: packed images, and a manifest with their provenance."""
    from cxr_tasks.data.added import counts_to_add

    settings = load_settings(run)
    # In the order of the classes that the GAN was trained with, which a table of counts need not keep.
    counts = counts_to_add(
        settings.synthetic, {label: dataset.counts["train"][label] for label in settings.data.classes}
    )

    def fill(folder: Path) -> Made[SyntheticSet]:
        from cxr_tasks.gan.sampling import build_synthetic_set

        made = build_synthetic_set(gan.generator(), counts, settings.gan, settings.seeds.synthetic, gan.ref)
        kept = _kept(settings, dataset, gan, made)
        _save_set(made, kept, settings, folder)
        dropped = kept.counts.drop(columns=["made", "kept"]).sum()
        artifact = SyntheticSet(
            counts={str(label): int(number) for label, number in kept.counts["kept"].items()},
            dropped={str(reason): int(number) for reason, number in dropped.items()},
            images_digest=_digest(made, kept),
            notes=tuple(f"dropped {n:,} synthetic images: {reason}" for reason, n in dropped.items() if n),
        )
        metrics = {"synthetic_images": int(kept.mask.sum()), "synthetic_dropped": int((~kept.mask).sum())}
        return Made(artifact, metrics)

    return perform(
        run,
        SyntheticSet,
        fill,
        version=2,
        settings={
            "counts": counts,
            "seed": settings.seeds.synthetic,
            **settings.synthetic.model_dump(mode="json", exclude={"counts"}),
            "near_duplicates": settings.data.near_duplicates.model_dump(mode="json"),
        },
        inputs={"gan": gan, **gan.content},
        tags=dataset_tags(run, dataset),
    )


def _kept(settings: Settings, dataset: Dataset, gan: Gan, made: Images) -> Kept:
    """Which of the images stay.

    Raises:
        DataError: None does.
    """
    from cxr_tasks.gan.filtering import keep
    from cxr_tasks.gan.sampling import class_probabilities

    classes = list(settings.data.classes)
    probabilities = None
    if settings.synthetic.min_class_probability > 0:
        probabilities = class_probabilities(gan.discriminator(), made.pixels)
    training = dataset.images("train", settings.gan.image_size, classes).pixels
    near = settings.data.near_duplicates
    kept = keep(made.pixels, made.labels, probabilities, training, classes, settings.synthetic, near)
    if not kept.mask.any():
        why = ", ".join(f"{number:,} {reason}" for reason, number in kept.counts.drop(columns="kept").sum().items())
        raise DataError(
            f"The synthetic set is empty ({why}): lower synthetic.min_class_probability, switch "
            "synthetic.drop_near_copies off, or ask for images with synthetic.counts."
        )
    return kept


def _digest(made: Images, kept: Kept) -> str:
    """32 hexadecimal digits that tell the images that stay, and their classes, from any others."""
    hashed = hashlib.sha256(made.pixels[kept.mask].tobytes())
    hashed.update(made.rows.loc[kept.mask, ["image_id", "label"]].to_csv(index=False).encode())
    return hashed.hexdigest()[:32]


def _save_set(made: Images, kept: Kept, settings: Settings, folder: Path) -> None:
    import numpy as np

    from cxr_tasks.evaluation.plots import sample_grid
    from cxr_tasks.gan.sampling import write_png
    from cxr_tasks.steps.common import keep_plot

    classes = list(settings.data.classes)
    pixels, rows = made.pixels[kept.mask], made.rows[kept.mask].reset_index(drop=True)
    np.save(folder / SyntheticSet.PIXELS, pixels)
    rows.to_parquet(folder / SyntheticSet.MANIFEST, index=False)
    kept.counts.to_csv(folder / SyntheticSet.COUNTS)
    if settings.synthetic.png:
        write_png(pixels, rows, folder / "png")
    labels = made.labels[kept.mask]
    shown = np.concatenate([np.flatnonzero(labels == k)[:8] for k in range(len(classes))])
    plot = sample_grid(pixels[shown], rows["label"].iloc[shown].tolist(), classes, "Synthetic set, first images")
    keep_plot(folder, SyntheticSet.GRID, plot)
    for name in (SyntheticSet.MANIFEST, SyntheticSet.COUNTS):
        tracking.log_file(folder / name)
