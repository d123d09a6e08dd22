"""The gallery shows the right images, and says about them what the tables say."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from cxr_tasks.errors import DataError
from cxr_tasks.evaluation.plots import png_bytes
from cxr_tasks.evaluation.plots_gallery import disagreement_gallery, disagreements

CLASSES = ["COVID", "Normal", "Viral Pneumonia"]
# (label, baseline's class, its probability, augmented's class, its probability)
BASELINE_RIGHT = [(0, 0, 0.5 + 0.01 * i, 1, 0.9) for i in range(6)]
AUGMENTED_RIGHT = [(1, 0, 0.8, 1, 0.6 + 0.01 * i) for i in range(2)]
NEITHER_RIGHT = [(2, 0, 0.99, 1, 0.99)]
AGREED = [(0, 0, 0.9, 0, 0.9), (0, 1, 0.9, 1, 0.7)]


def tables(cases: list[tuple[int, int, float, int, float]], split: str = "test") -> list[pd.DataFrame]:
    """Prediction tables of both arms; the images are named a, b, c … in the order of the cases."""
    names = [f"{split}-{chr(97 + i)}" for i in range(len(cases))]
    made = []
    for arm in (1, 3):
        probabilities = np.array([[(1 - case[arm + 1]) / 2] * 3 for case in cases])
        for row, case in zip(probabilities, cases, strict=True):
            row[case[arm]] = case[arm + 1]
        labels = [CLASSES[case[0]] for case in cases]
        table = pd.DataFrame({"image_id": names, "split": split, "group": names, "label": labels})
        table[CLASSES] = probabilities
        made.append(table)
    return made


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text)]


def test_both_kinds_take_turns_with_the_surest_first_and_neither_right_last() -> None:
    baseline, augmented = tables(AGREED + BASELINE_RIGHT + AUGMENTED_RIGHT + NEITHER_RIGHT)

    chosen = disagreements(baseline, augmented, CLASSES)
    everything = disagreements(baseline, augmented, CLASSES, most=99)

    assert [kind[0] for kind in chosen["right"]] == list("abab" + "bbbb")
    assert chosen.loc[0, "augmented_probability"] == pytest.approx(0.61)
    assert chosen.loc[1, "baseline_probability"] == pytest.approx(0.55)
    assert everything["right"].tolist()[-1] == "neither" and len(everything) == 9
    assert (everything["baseline"] != everything["augmented"]).all()


def test_the_order_of_the_tables_changes_nothing() -> None:
    # Equally sure, all of them: only the names can decide.
    baseline, augmented = tables([(0, 0, 0.7, 1, 0.7)] * 5)

    chosen = disagreements(baseline, augmented, CLASSES, most=3)
    shuffled = disagreements(baseline[::-1], augmented.sample(frac=1, random_state=1), CLASSES, most=3)

    assert chosen["image_id"].tolist() == ["test-a", "test-b", "test-c"]
    pd.testing.assert_frame_equal(chosen, shuffled)


def test_validation_images_are_not_shown() -> None:
    pairs = zip(tables(BASELINE_RIGHT, "validation"), tables(AGREED), strict=True)

    assert disagreements(*(pd.concat(pair) for pair in pairs), CLASSES).empty


def test_arms_that_were_tested_on_other_images_are_refused() -> None:
    baseline, augmented = tables(BASELINE_RIGHT)

    with pytest.raises(DataError, match="not tested on the same images"):
        disagreements(baseline, augmented[1:], CLASSES)


def test_the_gallery_names_the_truth_and_both_predictions() -> None:
    chosen = disagreements(*tables(BASELINE_RIGHT[:1] + AUGMENTED_RIGHT[:1] + NEITHER_RIGHT), CLASSES)
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16), dtype=np.uint8)
    heat = (images / 255).astype(np.float32)

    figure = disagreement_gallery(chosen, images, heat, np.zeros_like(heat), "VGG16")

    said = texts(figure)
    assert {"Truth: Normal", "Truth: COVID", "Truth: Viral Pneumonia"} <= set(said)
    assert {"✓ Normal, 60 %", "✗ COVID, 80 %", "✓ COVID, 50 %", "✗ Normal, 90 %"} <= set(said)
    assert sum(text.startswith("✓") for text in said) == 2
    assert png_bytes(figure) == png_bytes(disagreement_gallery(chosen, images, heat, np.zeros_like(heat), "VGG16"))


def test_a_gallery_without_images_or_with_too_few_is_refused() -> None:
    chosen = disagreements(*tables(BASELINE_RIGHT), CLASSES)
    images = np.zeros((2, 16, 16), np.uint8)

    with pytest.raises(DataError, match="as many images"):
        disagreement_gallery(chosen, images, images.astype(np.float32), images.astype(np.float32), "VGG16")
    with pytest.raises(DataError, match="nothing to show"):
        disagreement_gallery(chosen[:0], images[:0], images[:0], images[:0], "VGG16")


def test_heat_maps_lie_over_the_whole_of_larger_images() -> None:
    chosen = disagreements(*tables([(0, 0, 0.9, 1, 0.6)]), CLASSES)
    images = np.zeros((len(chosen), 64, 64), dtype=np.uint8)
    heat = np.ones((len(chosen), 16, 16), dtype=np.float32)

    figure = disagreement_gallery(chosen, images, heat, heat, "VGG16")

    drawn = [[image.get_extent() for image in axis.get_images()] for axis in figure.axes[:3]]
    assert [len(each) for each in drawn] == [1, 2, 2] and len({tuple(extent) for each in drawn for extent in each}) == 1
    assert figure.axes[1].get_images()[1].get_array().shape == (16, 16)
    with pytest.raises(DataError, match="of one shape"):
        disagreement_gallery(chosen, images, heat, heat[:, :8, :8], "VGG16")
