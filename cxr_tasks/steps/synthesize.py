"""The step ``synthesize``: draw the synthetic set from the GAN, or from the images that others have made."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cxr_tasks import tracking
from cxr_tasks.artifacts import Artifact, Dataset, Gan, ImportedImages, Judgement, RunContext, SyntheticSet
from cxr_tasks.config import Settings
from cxr_tasks.errors import DataError
from cxr_tasks.pipeline import Made, load_settings, perform

if TYPE_CHECKING:
    import pandas as pd

    from cxr_tasks.data.dataset import Images


def synthesize(
    run: RunContext,
    dataset: Dataset,
    gan: Gan | None = None,
    imported: ImportedImages | None = None,
    judgement: Judgement | None = None,
) -> SyntheticSet:
    """Make the synthetic set: packed images, and a manifest with their provenance.

    Args:
        run: The DAG run.
        dataset: What the arms train on.
        gan: What generates the images; ``None`` where they are imported.
        imported: The images that others have made; ``None`` where a GAN makes them.
        judgement: Says which of the imported images copy real ones.
    """
    from cxr_tasks.data.added import counts_to_add

    settings = load_settings(run)
    # In the order of the classes that the GAN was trained with, which a table of counts need not keep.
    counts = counts_to_add(
        settings.synthetic, {label: dataset.counts["train"][label] for label in settings.data.classes}
    )
    made = gan or imported
    assert made is not None  # the run's images come from one of the two

    def fill(folder: Path) -> Made[SyntheticSet]:
        if gan is not None:
            drawn = _from_gan(settings, dataset, gan, counts)
        else:
            assert imported is not None and judgement is not None  # a judgement goes before each set
            drawn = _from_imported(settings, imported, judgement, counts)
        _save_set(drawn, settings, folder)
        artifact = SyntheticSet(
            origin=made.origin,
            counts=drawn.kept,
            dropped=drawn.dropped,
            images_digest=_digest(drawn.images),
            notes=(*(f"dropped {n:,} synthetic images: {why}" for why, n in drawn.dropped.items() if n), *drawn.fewer),
        )
        dropped = sum(drawn.dropped.values())
        return Made(artifact, {"synthetic_images": len(drawn.images), "synthetic_dropped": dropped})

    # By the dataset too: which imported images are copies depends on it. A GAN's reference names the dataset.
    inputs: dict[str, Artifact | str] = {"gan": gan, **gan.content} if gan else {"imported": made, "dataset": dataset}
    size = {} if gan else {"size": settings.classifiers.image_size}
    synthetic = perform(
        run,
        SyntheticSet,
        fill,
        version=2,
        settings={
            "counts": counts,
            "seed": settings.seeds.synthetic,
            **settings.synthetic.model_dump(mode="json", exclude={"counts", "source"}),
            "near_duplicates": settings.data.near_duplicates.model_dump(mode="json"),
            **size,
        },
        inputs=inputs,
        after=[judgement] if gan is None and judgement is not None else [],
    )
    # As this run has it: the same images may have been read from another address before.
    return synthetic.model_copy(update={"origin": made.origin})


@dataclass(frozen=True)
class _Drawn:
    """The images of a set.

    Attributes:
        images: Those that stay.
        counts: A row a class, for people.
        dropped: Images that do not stay, by reason.
        fewer: A sentence for each class with fewer images than were asked for.
    """

    images: Images
    counts: pd.DataFrame
    dropped: dict[str, int]
    fewer: tuple[str, ...] = ()

    @property
    def kept(self) -> dict[str, int]:
        """Images that stay, by class."""
        return {str(label): int(number) for label, number in self.counts["kept"].items()}


def _from_gan(settings: Settings, dataset: Dataset, gan: Gan, counts: dict[str, int]) -> _Drawn:
    """Images that the GAN generates, without those that the settings drop.

    Raises:
        DataError: None stays.
    """
    import numpy as np

    from cxr_tasks.gan.filtering import keep
    from cxr_tasks.gan.sampling import build_synthetic_set, class_probabilities

    made = build_synthetic_set(gan.generator(), counts, settings.gan, settings.seeds.synthetic, gan.ref)
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
    dropped = kept.counts.drop(columns=["made", "kept"]).sum()
    return _Drawn(made.take(np.flatnonzero(kept.mask)), kept.counts, {str(why): int(n) for why, n in dropped.items()})


def _from_imported(
    settings: Settings, imported: ImportedImages, judgement: Judgement, counts: dict[str, int]
) -> _Drawn:
    """Images that others have made, without copies of real ones.

    Raises:
        DataError: None stays.
    """
    from cxr_tasks.gan.imported import choose_set

    seed = settings.seeds.synthetic
    rows, told = choose_set(imported.table(), judgement.copied(), counts, settings.synthetic, seed)
    dropped = told.drop(columns=["asked", "there", "kept"]).sum()
    if rows.empty:
        why = ", ".join(f"{number:,} {reason}" for reason, number in told.drop(columns="kept").sum().items())
        raise DataError(
            f"The synthetic set is empty ({why}): give images that copy no real ones in synthetic.source, or ask for "
            "images with synthetic.counts."
        )
    fewer = tuple(
        f"{label}: {row['asked']:,} synthetic images are asked for, and {row['kept']:,} of {row['there']:,} are added"
        for label, row in told.iterrows()
        if row["kept"] < row["asked"]
    )
    images = imported.of(rows, settings.classifiers.image_size, list(settings.data.classes))
    return _Drawn(images, told, {str(why): int(n) for why, n in dropped.items()}, fewer)


def _digest(images: Images) -> str:
    """32 hexadecimal digits that tell the images, and their classes, from any others."""
    from cxr_tasks.data.stacks import in_parts

    hashed = hashlib.sha256()
    for part in in_parts(images.pixels):
        hashed.update(part.tobytes())
    hashed.update(images.rows[["image_id", "label"]].to_csv(index=False).encode())
    return hashed.hexdigest()[:32]


def _save_set(drawn: _Drawn, settings: Settings, folder: Path) -> None:
    import numpy as np

    from cxr_tasks.data.stacks import in_parts, save_parts
    from cxr_tasks.evaluation.plots import sample_grid
    from cxr_tasks.gan.sampling import write_png
    from cxr_tasks.steps.common import keep_plot

    classes = list(settings.data.classes)
    pixels, rows, labels = drawn.images.pixels, drawn.images.rows, drawn.images.labels
    save_parts(folder / SyntheticSet.PIXELS, in_parts(pixels), len(pixels))
    rows.to_parquet(folder / SyntheticSet.MANIFEST, index=False)
    drawn.counts.to_csv(folder / SyntheticSet.COUNTS)
    if settings.synthetic.png:
        write_png(pixels, rows, folder / "png")
    shown = np.concatenate([np.flatnonzero(labels == k)[:8] for k in range(len(classes))])
    plot = sample_grid(pixels[shown], rows["label"].iloc[shown].tolist(), classes, "Synthetic set, first images")
    keep_plot(folder, SyntheticSet.GRID, plot)
    for name in (SyntheticSet.MANIFEST, SyntheticSet.COUNTS):
        tracking.log_file(folder / name)
