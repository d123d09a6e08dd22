"""The plots of a run, drawn with matplotlib's object API so that no global state outlives a task.

Each function returns a ``Figure``, and ``png_bytes`` turns a ``Figure`` into a file. Nothing is computed here beyond
percentages.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from cxr_tasks.errors import DataError
from cxr_tasks.evaluation.comparison import points
from cxr_tasks.evaluation.words import drawable

# Okabe and Ito's palette: all kinds of colour vision tell these apart, and grey print shows different lightness.
ARM_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
INK = "#222222"
FAINT = "#8a8a8a"
WIDTH = 9.0
DPI = 150


def png_bytes(figure: Figure) -> bytes:
    """``figure`` as a PNG file at 150 dots per inch. The same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight", facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def confusion_matrices(
    baseline_cm: NDArray[np.int64],
    augmented_cm: NDArray[np.int64],
    classes: Sequence[str],
    title: str,
    arms: tuple[str, str] = ("Baseline", "Augmented"),
) -> Figure:
    """Draw the confusion matrices of two arms side by side.

    A cell's colour is its share of the true class in percent, on one scale for both arms. Each cell also gives the
    count and the share in writing.

    Args:
        baseline_cm: The baseline's counts (classes, classes), true classes as rows.
        augmented_cm: The augmented arm's counts of the same shape.
        classes: The class names, in the order of the matrices.
        title: The title above both.
        arms: What the two arms are called.

    Raises:
        DataError: A matrix does not have one row and one column for each class.
    """
    n = len(classes)
    figure = Figure(figsize=(WIDTH, 2.2 + 0.75 * n), layout=ConstrainedLayoutEngine(wspace=0.05))
    axes = figure.subplots(1, 2, sharey=True)
    for axis, name, counts in zip(axes, arms, (baseline_cm, augmented_cm), strict=True):
        matrix = np.asarray(counts)
        if matrix.shape != (n, n):
            raise DataError(f"A confusion matrix of {n} classes cannot have the shape {matrix.shape}.")
        share = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        image = axis.imshow(share, cmap="Blues", vmin=0, vmax=100)
        for row, column in np.ndindex(n, n):
            axis.text(
                column,
                row,
                f"{matrix[row, column]:,}\n{share[row, column]:.1f} %",
                ha="center",
                va="center",
                fontsize=11,
                color="white" if share[row, column] > 55 else INK,
            )
        axis.set_title(name, fontsize=12)
        axis.set_xlabel("Predicted class")
        axis.set_xticks(range(n), _wrapped(drawable(classes)))
        axis.set_yticks(range(n), _wrapped(drawable(classes)))
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
    axes[0].set_ylabel("True class")
    bar = figure.colorbar(image, ax=list(axes), shrink=0.8, pad=0.02, label="Share of the true class (%)")
    bar.outline.set_visible(False)
    figure.suptitle(title, fontsize=13, fontweight="bold")
    return figure


def learning_curves(histories: Mapping[str, pd.DataFrame], title: str) -> Figure:
    """Draw loss and accuracy by epoch, all arms over each other.

    Solid lines are validation, dashed lines training. Each arm has a colour, and marks of a shape. A large mark shows
    the epoch of least validation loss.

    Args:
        histories: By arm, the columns epoch, loss, accuracy, val_loss and val_accuracy.
        title: The title above both panels.

    Raises:
        DataError: There is no arm or more than four, or a history has no epochs or lacks a column.
    """
    if not 1 <= len(histories) <= len(ARM_COLOURS):
        raise DataError(f"Learning curves show one to {len(ARM_COLOURS)} arms, not {len(histories)}.")
    figure = Figure(figsize=(WIDTH, 3.9), layout="constrained")
    loss_axis, accuracy_axis = figure.subplots(1, 2)
    for colour, marker, (arm, history) in zip(ARM_COLOURS, "osD^", histories.items(), strict=False):
        missing = {"epoch", "loss", "accuracy", "val_loss", "val_accuracy"} - set(history.columns)
        if missing or history.empty:
            raise DataError(f"The history of {arm} has no epochs or lacks columns: {sorted(missing)}.")
        epochs = history["epoch"].to_numpy()
        best = int(np.argmin(history["val_loss"].to_numpy()))
        for axis, column in ((loss_axis, "loss"), (accuracy_axis, "accuracy")):
            training = history[column].to_numpy()
            validation = history[f"val_{column}"].to_numpy()
            # Marks along the lines tell the arms apart without colour.
            marks = {"marker": marker, "markersize": 4.5, "markevery": max(1, len(epochs) // 8)}
            dashes = (0, (4, 3))
            axis.plot(
                epochs, training, color=colour, linestyle=dashes, linewidth=1.2, label=f"{arm}, training", **marks
            )
            axis.plot(epochs, validation, color=colour, linewidth=2, label=f"{arm}, validation", **marks)
            axis.plot(
                epochs[best],
                validation[best],
                marker,
                color=colour,
                markersize=9,
                markeredgecolor="white",
                zorder=5,
                linestyle="none",
                label=f"{arm}, best epoch ({epochs[best]})",
            )
    for axis, name in ((loss_axis, "Loss"), (accuracy_axis, "Accuracy")):
        axis.set_title(name, fontsize=12)
        axis.set_xlabel("Epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        _plain(axis)
        axis.grid(axis="y", color="#e5e5e5")
    handles, labels = loss_axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(histories), frameon=False, fontsize=10)
    figure.suptitle(title, fontsize=13, fontweight="bold")
    return figure


def sample_grid(images: NDArray[np.uint8], labels: Sequence[str], classes: Sequence[str], title: str) -> Figure:
    """Draw images, one row a class, in the order given.

    Args:
        images: Pixels (n, height, width) uint8.
        labels: The n class names of the images.
        classes: The classes, in the order of the rows.
        title: The title above the grid.

    Raises:
        DataError: There are no images, their shape or type is another, or a label is missing or is no class.
    """
    images = np.asarray(images)
    if images.ndim != 3 or images.dtype != np.uint8 or not len(images):
        raise DataError(f"A grid is of uint8 images (n, height, width), not {images.dtype} {images.shape}.")
    if len(labels) != len(images) or not set(labels) <= set(classes):
        raise DataError(f"{len(images)} images need as many labels, each one of {list(classes)}.")
    rows = {name: [image for image, label in zip(images, labels, strict=True) if label == name] for name in classes}
    columns = max(len(row) for row in rows.values())
    # An image is drawn with at least a dot a pixel, as far as the width allows.
    cell = min(max(1.2, images.shape[2] / DPI), WIDTH / columns)
    tight = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    figure = Figure(figsize=(columns * cell + 1.2, len(classes) * cell + 0.5), layout=tight)
    axes = figure.subplots(len(classes), columns, squeeze=False)
    for axis_row, name, row in zip(axes, drawable(list(rows)), rows.values(), strict=True):
        for column, axis in enumerate(axis_row):
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
            if column < len(row):
                axis.imshow(row[column], cmap="gray", vmin=0, vmax=255)
        axis_row[0].set_ylabel(
            "\n".join(_wrapped([name if row else f"{name} (none)"])),
            rotation=0,
            ha="right",
            va="center",
            fontsize=11,
        )
    figure.suptitle(title, fontsize=13, fontweight="bold")
    return figure


def difference_forest(differences: Sequence[tuple[str, float, float, float]]) -> Figure:
    """Draw macro-F1 differences with their intervals, one line each, in percentage points.

    Args:
        differences: Name, difference, low and high of each pair; fractions.

    Raises:
        DataError: There is nothing to draw.
    """
    if not differences:
        raise DataError("A forest plot needs at least one difference.")
    figure = Figure(figsize=(WIDTH, 1.5 + 0.45 * len(differences)), layout="constrained")
    axis = figure.subplots()
    values = 100 * np.array([row[1:] for row in differences], dtype=np.float64)
    reach = max(1.0, 1.15 * float(np.abs(values).max()))
    axis.axvline(0, color=INK, linewidth=1, zorder=1)
    for position, (middle, low, high) in enumerate(values):
        colour = ARM_COLOURS[0] if low > 0 else ARM_COLOURS[1] if high < 0 else "#555555"
        axis.plot([low, high], [position, position], color=colour, linewidth=2.5, solid_capstyle="butt", zorder=2)
        axis.plot(middle, position, "s", color=colour, markersize=9, zorder=3)
        text = f"{points(middle / 100)}  ({points(low / 100)} to {points(high / 100)})"
        axis.annotate(
            text.replace("-", "\N{MINUS SIGN}"),
            (1.01, position),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=11,
            color=INK,
        )
    axis.set_yticks(range(len(differences)), [row[0] for row in differences], fontsize=11)
    axis.set_ylim(len(differences) - 0.4, -0.6)
    axis.set_xlim(-reach, reach)
    axis.set_xlabel("Change in test macro F1, percentage points, with joint intervals")
    axis.text(0.0, 1.02, "\N{LEFTWARDS ARROW} hurts", transform=axis.transAxes, color=FAINT, fontsize=10)
    axis.text(
        1.0,
        1.02,
        "helps \N{RIGHTWARDS ARROW}",
        transform=axis.transAxes,
        ha="right",
        color=FAINT,
        fontsize=10,
    )
    _plain(axis)
    axis.spines["left"].set_visible(False)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", color="#e5e5e5")
    axis.set_axisbelow(True)
    return figure


def _plain(axis: Axes) -> None:
    """Hide the frame's top and right side."""
    axis.spines[["top", "right"]].set_visible(False)


def _wrapped(names: Sequence[str]) -> list[str]:
    """Class names broken at their first space, because long names overlap their neighbours."""
    return [name.replace(" ", "\n", 1) for name in names]
