"""Chooses test images that the two arms of a pair disagree on, and draws them with given heat maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from cxr_tasks.errors import DataError
from cxr_tasks.evaluation.metrics import check_predictions, encode
from cxr_tasks.evaluation.plots import ARM_COLOURS, FAINT, INK
from cxr_tasks.evaluation.words import drawable

ROLES = ("baseline", "augmented")
# Neither colour belongs to an arm. A mark and the weight of the type say the same without colour.
RIGHT, WRONG = ARM_COLOURS[2], FAINT
HEAT = "inferno"
HEAT_OPACITY = 0.65
CELL = 2.15


def disagreements(
    baseline: pd.DataFrame, augmented: pd.DataFrame, classes: Sequence[str], most: int = 8
) -> pd.DataFrame:
    """Choose at most ``most`` test images that the arms put into different classes.

    Images that only the baseline has right and images that only the augmented arm has right take turns, until one kind
    runs out. Images that neither arm has right come last. Within each kind, the order is how sure both arms are: the
    smaller of their two probabilities.

    Returns:
        One row an image: ``image_id``, ``label``, ``right`` (``baseline``, ``augmented`` or ``neither``), the predicted
        class of each arm (``baseline``, ``augmented``) and the probability of that class (``baseline_probability``,
        ``augmented_probability``).

    Raises:
        DataError: A table is no prediction table, or the arms did not predict the same test images.
    """
    tables = []
    for arm, table in zip(ROLES, (baseline, augmented), strict=True):
        check_predictions(table, classes)
        test = table[table["split"] == "test"]
        _, predicted, probabilities = encode(test, classes)
        chosen = test[["image_id", "label"]].copy()
        chosen[arm] = np.asarray(classes)[predicted]
        chosen[f"{arm}_probability"] = probabilities.max(axis=1)
        tables.append(chosen)
    both = tables[0].merge(tables[1], on=["image_id", "label"])
    if not len(both) == len(tables[0]) == len(tables[1]):
        raise DataError("The two arms were not tested on the same images with the same labels.")
    both = both[both["baseline"] != both["augmented"]]
    right = np.select([both[arm] == both["label"] for arm in ROLES], ROLES, "neither")
    both = both.assign(
        right=right, last=right == "neither", sureness=both[[f"{arm}_probability" for arm in ROLES]].min(axis=1)
    ).sort_values(["sureness", "image_id"], ascending=[False, True])
    both["turn"] = both.groupby("right").cumcount()
    both = both.sort_values(["last", "turn", "right"]).head(most)
    return both.drop(columns=["last", "turn", "sureness"]).reset_index(drop=True)


def disagreement_gallery(
    chosen: pd.DataFrame,
    images: NDArray[np.uint8],
    baseline_heat: NDArray[np.float32],
    augmented_heat: NDArray[np.float32],
    title: str,
    classes: Sequence[str] = (),
) -> Figure:
    """Draw one row an image: the image, and what each arm looked at for the class that the arm predicted.

    Args:
        chosen: The n rows of ``disagreements``.
        images: Pixels (n, S, S) uint8, in the order of the rows, as large as they are to be had.
        baseline_heat: The baseline's heat maps (n, s, s), 0 to 1, each on a scale of its own, at the size that the
            arm sees.
        augmented_heat: The augmented arm's heat maps, alike.
        title: The title above the rows.
        classes: In their order, for classes that can only be drawn by their number; without it, in that of the names.

    Raises:
        DataError: There are no images, or a row lacks an image or a heat map.
    """
    if not len(chosen):
        raise DataError("The arms disagree on no image, so there is nothing to show.")
    numbers = {len(chosen), len(images), len(baseline_heat)}
    if images.ndim != 3 or len(numbers) > 1 or baseline_heat.ndim != 3 or baseline_heat.shape != augmented_heat.shape:
        raise DataError(
            f"{len(chosen)} rows need as many images, and as many heat maps of one shape, not {images.shape}, "
            f"{baseline_heat.shape} and {augmented_heat.shape}."
        )
    figure = Figure(
        figsize=(3 * CELL + 0.5, len(chosen) * (CELL + 0.18) + 1.25),
        layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.05, wspace=0, hspace=0),
    )
    grid = figure.subplots(len(chosen), 3, squeeze=False)
    rows = chosen.to_dict("records")
    named = classes or sorted(set(chosen[["label", *ROLES]].to_numpy().ravel()))
    shown = dict(zip(named, drawable(named), strict=True))
    for axes, row, image, *heats in zip(grid, rows, images, baseline_heat, augmented_heat, strict=True):
        for axis in axes:
            axis.imshow(image, cmap="gray", vmin=0, vmax=255)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
        axes[0].set_title(f"Truth: {shown[row['label']]}", fontsize=10, color=INK)
        axes[0].set_ylabel(str(row["image_id"])[:12], fontsize=8, color=FAINT)
        for axis, arm, heat in zip(axes[1:], ROLES, heats, strict=True):
            # The map lies over the whole image, whatever the size of either.
            axis.imshow(heat, cmap=HEAT, vmin=0, vmax=1, alpha=HEAT_OPACITY * heat, extent=axis.images[0].get_extent())
            _judged(axis, shown[row[arm]], row[f"{arm}_probability"], row["right"] == arm)
    for axis, name in zip(grid[0], ("Image", "Baseline", "Augmented"), strict=True):
        axis.annotate(
            name,
            (0.5, 1),
            (0, 24),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="center",
            fontsize=12,
            color=INK,
        )
    bar = figure.colorbar(
        ScalarMappable(cmap=HEAT),
        ax=list(grid.flat),
        location="bottom",
        # Divided by the number of rows, so that the bar is as thick under one row as under eight.
        fraction=0.14 / len(chosen),
        aspect=32,
        shrink=0.75,
        pad=0.01,
    )
    bar.set_ticks([0, 1], labels=["none", "most in this image"])
    bar.set_label("What spoke for the predicted class (Grad-CAM)", fontsize=10)
    bar.ax.tick_params(length=0)
    bar.outline.set_visible(False)
    figure.suptitle(title, fontsize=13, fontweight="bold")
    return figure


def _judged(axis: Axes, predicted: str, probability: float, right: bool) -> None:
    """Write the prediction above a heat map, and frame the map by whether the prediction was right."""
    mark = "\N{CHECK MARK}" if right else "\N{BALLOT X}"
    axis.set_title(
        f"{mark} {predicted}, {100 * probability:.0f} %",
        fontsize=10,
        color=RIGHT if right else INK,
        fontweight="bold" if right else "normal",
    )
    axis.spines[:].set(visible=True, color=RIGHT if right else WRONG, linewidth=3 if right else 1)
