"""Reliability diagrams: what the arms' confidence is worth. Other figures, and ``png_bytes``, are in ``figures``."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import PercentFormatter, StrMethodFormatter

from cxr_tasks.evaluation.calibration import Calibration
from cxr_tasks.evaluation.figures import ARM_COLOURS, INK, WIDTH


def reliability_diagrams(
    baseline: Calibration,
    augmented: Calibration,
    title: str,
    arms: tuple[str, str] = ("Baseline", "Augmented"),
) -> Figure:
    """Accuracy of the test images by the confidence of their prediction, both arms, and how many images that is.

    Guo et al. 2017, figure 1. Bars on the diagonal are calibrated; those below it are too sure. Above each
    arm stands its ECE, before and after temperature scaling, in percentage points.
    """
    figure = Figure(figsize=(WIDTH, 5.2), layout=ConstrainedLayoutEngine(wspace=0.05))
    axes = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=(3, 1))
    for column, (arm, calibration) in enumerate(zip(arms, (baseline, augmented), strict=True)):
        _accuracy(axes[0, column], calibration, ARM_COLOURS[column])
        _counts(axes[1, column], calibration, ARM_COLOURS[column])
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


def _accuracy(axis: Axes, calibration: Calibration, colour: str) -> None:
    """Accuracy bars over the bins that hold images, the gap to the confidence as an outline."""
    filled = [each for each in calibration.bins if each.accuracy is not None]
    low = np.array([each.low for each in filled])
    width = np.array([each.high for each in filled]) - low
    accuracy = np.array([each.accuracy for each in filled], dtype=float)
    confidence = np.array([each.confidence for each in filled], dtype=float)
    axis.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=(0, (4, 3)), label="calibrated")
    axis.bar(low, accuracy, width, align="edge", color=colour, edgecolor="white", alpha=0.85, label="accuracy")
    axis.bar(
        *(low, confidence - accuracy, width, accuracy),
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


def _counts(axis: Axes, calibration: Calibration, colour: str) -> None:
    """Test images by bin, on a logarithmic axis: nearly all of them are in the last bin."""
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
