"""Plots say what they were given: counts, marks and labels are read back from the drawn objects."""

import io

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from cxr_tasks.errors import DataError
from cxr_tasks.evaluation.plots import (
    confusion_matrices,
    difference_forest,
    learning_curves,
    png_bytes,
    sample_grid,
)

CLASSES = ["COVID", "Normal", "Viral Pneumonia"]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text)]


def history(epochs: int, best: int) -> pd.DataFrame:
    epoch = np.arange(1, epochs + 1)
    loss = 0.2 + 0.01 * np.abs(epoch - best)
    return pd.DataFrame(
        {"epoch": epoch, "loss": loss, "accuracy": 1 - loss, "val_loss": loss, "val_accuracy": 1 - loss}
    )


def test_confusion_matrices_share_one_scale_and_show_counts_and_shares() -> None:
    baseline = np.array([[8, 2, 0], [0, 30, 0], [0, 0, 0]])
    figure = confusion_matrices(baseline, baseline.T, CLASSES, "VGG16")
    assert {image.get_clim() for axis in figure.axes for image in axis.get_images()} == {(0, 100)}
    assert "8\n80.0 %" in texts(figure)
    # An absent class is 0 %, not a division by zero.
    assert texts(figure).count("0\n0.0 %") >= 3
    with pytest.raises(DataError, match="shape"):
        confusion_matrices(np.eye(2), np.eye(2), CLASSES, "VGG16")


def test_learning_curves_mark_the_least_validation_loss() -> None:
    figure = learning_curves({"baseline": history(12, 7), "augmented": history(9, 4)}, "VGG16")
    assert "baseline, best epoch (7)" in texts(figure) and "augmented, best epoch (4)" in texts(figure)
    assert [axis.get_title() for axis in figure.axes] == ["Loss", "Accuracy"]
    # The arms differ in the shape of their marks as well as in colour.
    shapes = {line.get_label().split(",")[0]: line.get_marker() for line in figure.axes[0].get_lines()}
    assert len(set(shapes.values())) == 2
    png_bytes(learning_curves({"baseline": history(1, 1)}, "one epoch"))
    with pytest.raises(DataError, match="val_loss"):
        learning_curves({"baseline": history(3, 1).drop(columns="val_loss")}, "VGG16")
    with pytest.raises(DataError, match="not 0"):
        learning_curves({}, "VGG16")


def test_sample_grid_has_a_row_a_class_even_without_images() -> None:
    images = np.random.default_rng(0).integers(0, 256, size=(5, 16, 16), dtype=np.uint8)
    figure = sample_grid(images, ["COVID", "Normal", "COVID", "COVID", "Normal"], CLASSES, "step 1")
    assert len(figure.axes) == 3 * 3
    assert [len(axis.get_images()) for axis in figure.axes] == [1, 1, 1, 1, 1, 0, 0, 0, 0]
    assert figure.axes[6].get_ylabel() == "Viral\nPneumonia (none)"
    with pytest.raises(DataError, match="uint8"):
        sample_grid(images / 255, ["COVID"] * 5, CLASSES, "step 1")
    with pytest.raises(DataError, match="as many labels"):
        sample_grid(images, ["COVID"] * 4, CLASSES, "step 1")


def test_forest_is_symmetric_around_zero_and_in_points() -> None:
    figure = difference_forest([("VGG16", 0.02, 0.01, 0.03), ("CNN", -0.0001, -0.01, 0.01)])
    low, high = figure.axes[0].get_xlim()
    assert low == -high and high > 3
    assert "+2.0  (+1.0 to +3.0)" in texts(figure)
    assert "0.0  (\N{MINUS SIGN}1.0 to +1.0)" in texts(figure)
    with pytest.raises(DataError, match="at least one"):
        difference_forest([])


def test_png_is_wide_enough_to_read_and_the_same_every_time() -> None:
    plots = [difference_forest([("VGG16", 0.02, 0.01, 0.03)]) for _ in range(2)]
    first, second = (png_bytes(figure) for figure in plots)
    assert first == second
    with Image.open(io.BytesIO(first)) as image:
        assert image.format == "PNG" and image.width >= 1000
