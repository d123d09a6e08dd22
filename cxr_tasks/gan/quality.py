"""The figures about a set of generated images, as tables, metrics and JSON. ``gan.measuring`` computes them.

A distance means something only beside its floor (real against real, as many images), its sizes and the extractor of
the features.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from pydantic import ConfigDict

from cxr_tasks.names import slug
from cxr_tasks.strict import Strict

ALL_CLASSES = "all"
SIZES = ("training", "held_out", "synthetic", "untrained", "drawn")
WITH_SD = (
    "kid",
    "kid_floor",
    "kid_untrained",
    "fid",
    "fid_floor",
    "density",
    "density_floor",
    "coverage",
    "coverage_floor",
)


class Measurement(Strict):
    """One number, or why there is none.

    Attributes:
        value: The number.
        sd: Standard deviation over draws of images; not an error of the mean.
        reason: Why there is no number.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    value: float | None = None
    sd: float | None = None
    reason: str = ""


class ClassQuality(Strict):
    """The figures of one class, or of all images.

    Shares and accuracies lie between 0 and 1. A floor is the same figure for held-out real images in the place of the
    synthetic ones.

    Attributes:
        name: The class; ``all`` for all images.
        training: Number of real training images.
        held_out: Number of real validation images.
        synthetic: Number of generated images.
        untrained: Number of images of an untrained generator.
        drawn: Images a side that every distance of this row, floors included, is computed on. For all images, they
            are drawn in the training images' mixture of classes.
        kid: Kernel distance from the training images to the synthetic ones.
        kid_floor: Floor of ``kid``.
        kid_untrained: ``kid`` of the untrained generator.
        kid_ratio: ``kid`` over ``kid_untrained``.
        fid: Fréchet distance from the training images to the synthetic ones.
        fid_floor: Floor of ``fid``.
        density: How densely the neighbourhoods of training images are filled.
        density_floor: Floor of ``density``.
        coverage: Share of the neighbourhoods of training images that hold a synthetic image.
        coverage_floor: Floor of ``coverage``.
        memorised: Share of synthetic images that show the same picture as a training image, or lie as near to one as
            few held-out images do.
        memorised_held_out: What the same test says of held-out images, which nobody copied.
        repeated: Share of synthetic images that show the same picture as another one.
        repeated_training: ``repeated`` of training images.
        accuracy_score: Balanced accuracy for all, recall for a class, on held-out images after training on synthetic
            ones.
        accuracy_score_real: ``accuracy_score`` after training on as many real images.
    """

    name: str
    training: int
    held_out: int
    synthetic: int
    untrained: int
    drawn: int
    kid: Measurement
    kid_floor: Measurement
    kid_untrained: Measurement
    kid_ratio: Measurement
    fid: Measurement
    fid_floor: Measurement
    density: Measurement
    density_floor: Measurement
    coverage: Measurement
    coverage_floor: Measurement
    memorised: Measurement
    memorised_held_out: Measurement
    repeated: Measurement
    repeated_training: Measurement
    accuracy_score: Measurement
    accuracy_score_real: Measurement

    def figures(self) -> dict[str, Measurement]:
        """The figures by name, in the order of the fields."""
        return {
            name: value for name in type(self).model_fields if isinstance(value := getattr(self, name), Measurement)
        }


class GanQuality(Strict):
    """Everything measured about one set of generated images.

    KID and its ratio compare between sizes. FID is biased upwards for few images (Chong and Forsyth, "Effectively
    unbiased FID and Inception score", 2020), so read FID against its floor only.

    Attributes:
        extractor: The network of the features; belongs beside every figure.
        dimensions: Number of features.
        seed: Of the subsets that were drawn.
        overall: The figures of all images.
        classes: The figures of each class.
    """

    extractor: str
    dimensions: int
    seed: int
    overall: ClassQuality
    classes: list[ClassQuality]

    def to_frame(self) -> pd.DataFrame:
        """A row for all images and one for each class; a figure, its ``_sd`` where it has one, sizes, extractor."""
        rows = []
        for row in (self.overall, *self.classes):
            cells: dict[str, Any] = {"class": row.name, **row.model_dump(include=set(SIZES))}
            for name, figure in row.figures().items():
                cells[name] = figure.value
                if name in WITH_SD:
                    cells[f"{name}_sd"] = figure.sd
            rows.append({**cells, "extractor": self.extractor})
        frame = pd.DataFrame(rows)
        numbers = [column for column in frame if column not in ("class", "extractor", *SIZES)]
        return frame.astype(dict.fromkeys(numbers, float))

    def metrics(self) -> dict[str, float]:
        """The figures that have a value, under names that a tracking server takes: ``gan_kid``, ``gan_kid_COVID``."""
        flat = {}
        for row in (self.overall, *self.classes):
            figures = row.figures()
            ending = "" if row is self.overall else f"_{slug(row.name)}"
            # A class called ``real`` or ``floor`` would take the name of a figure of all images.
            between = "_of" if any(f"{name}{ending}" in figures for name in figures if ending) else ""
            for name, figure in figures.items():
                if figure.value is not None:
                    flat[f"gan_{name}{between}{ending}"] = figure.value
        return flat
