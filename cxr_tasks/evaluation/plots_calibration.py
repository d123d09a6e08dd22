"""Reliability diagrams: what the confidence of each arm is worth."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import PercentFormatter, StrMethodFormatter

from cxr_tasks.evaluation.calibration import Calibration
from cxr_tasks.evaluation.plots import ARM_COLOURS, INK, WIDTH


def reliability_diagrams(
    baseline: Calibration,
    augmented: Calibration,
    title: str,
    arms: tuple[str, str] = ("Baseline", "Augmented"),
) -> Figure:
    """Draw accuracy by confidence for the test images of two arms, with the number of images in each bin.

    The diagram is Guo et al. 2017, figure 1. Bars on the diagonal are calibrated, and bars below the diagonal are too
    sure. Each title gives the arm's expected calibration error (ECE) before and after temperature scaling, in
    percentage points.
    """
    figure = Figure(figsize=(WIDTH, 5.2), layout=ConstrainedLayoutEngine(wspace=0.05))
    axes = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=(3, 1))
    for column, (arm, calibration) in enumerate(zip(arms, (baseline, augmented), strict=True)):
        _draw_accuracy(axes[0, column], calibration, ARM_COLOURS[column])
        _draw_image_counts(axes[1, column], calibration, ARM_COLOURS[column])
        axes[0, column].set_title(
            f"{arm}\nECE {100 * calibration.ece_before:.1f} points; {100 * calibration.ece_after:.1f} after "
            f"temperature {calibration.temperature:.2f}",
            fontsize=11,
        )
    axes[0, 0].set_ylabel("Accuracy")
    axes[1, 0].set_ylabel("Test images")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(title, fontsize=13, fontweight="bold")
    return figure


def _draw_accuracy(axis: Axes, calibration: Calibration, colour: str) -> None:
    """Draw a bar of accuracy for each bin that holds images, and the gap to the confidence as an outline."""
    filled = [each for each in calibration.bins if each.accuracy is not None]
    low = np.array([each.low for each in filled])
    width = np.array([each.high for each in filled]) - low
    accuracy = np.array([each.accuracy for each in filled], dtype=float)
    confidence = np.array([each.confidence for each in filled], dtype=float)
    axis.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=(0, (4, 3)), label="calibrated")
    axis.bar(low, accuracy, width, align="edge", color=colour, edgecolor="white", alpha=0.85, label="accuracy")
    axis.bar(
        low,
        confidence - accuracy,
        width,
        accuracy,
        align="edge",
        color="none",
        edgecolor=INK,
        hatch="////",
        linewidth=0.6,
        label="gap to confidence",
    )
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1)
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axis.spines[["top", "right"]].set_visible(False)


def _draw_image_counts(axis: Axes, calibration: Calibration, colour: str) -> None:
    """Draw the test images of each bin on a logarithmic axis, because the last bin holds nearly all of them."""
    low = [each.low for each in calibration.bins]
    width = [each.high - each.low for each in calibration.bins]
    axis.bar(low, [each.images for each in calibration.bins], width, align="edge", color=colour, edgecolor="white")
    axis.set_yscale("symlog", linthresh=1)
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axis.set_xlabel("Confidence: probability of the predicted class")
    axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="#e5e5e5")
    axis.set_axisbelow(True)
