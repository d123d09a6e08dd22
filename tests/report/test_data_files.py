"""The data of figures as CSV: no cell is a formula, every file has a name of its own."""

import csv
import io

import numpy as np
import pandas as pd
import pytest

from cxr_tasks.evaluation.calibration import Calibration, ReliabilityBin
from cxr_tasks.report.data_files import (
    DataFile,
    curves_file,
    gallery_file,
    harmless,
    reliability_file,
    stem_of,
)
from cxr_tasks.report.render import stem_of_table

FORMULAS = ["=cmd()", "+1+cmd()", "-2+3", "@sum(a)", "\t=a", "\r=a", "\n=a", "+1.2 (-3.1 to +5.2)"]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_text_like_a_formula_begins_with_an_apostrophe_wherever_it_stands(text: str) -> None:
    file = DataFile(stem="a", columns=[text, "b"], rows=[[text, 1.5], ["fine", None]])

    cells = [cell for row in csv.reader(io.StringIO(file.csv, newline="")) for cell in row]
    assert cells == [f"'{text}", "b", f"'{text}", "1.5", "fine", ""]


@pytest.mark.parametrize("cell", ["-5.1", "+1.2", "-1,024", "-3 %", "COVID", "a=b", -5.1, 3, None, ""])
def test_numbers_and_plain_words_stay_as_they_are(cell: str | float | None) -> None:
    assert harmless(cell) == cell


def test_a_name_is_safe_as_a_file_and_tables_are_told_apart_by_their_number() -> None:
    assert stem_of("VGG16 both beside oversample, seed 1", "curves") == "vgg16-both-beside-oversample-seed-1-curves"
    assert stem_of("../../etc/passwd") == "etc-passwd"
    assert stem_of_table(1, "正常") == "table-1" != stem_of_table(2, "肺炎")


def test_figures_give_a_row_for_each_arm_and_point() -> None:
    history = pd.DataFrame({"epoch": [1, 2], "loss": [0.5, 0.25]})
    bins = [
        ReliabilityBin(low=0.0, high=0.5, images=0, accuracy=None, confidence=None),
        ReliabilityBin(low=0.5, high=1.0, images=3, accuracy=2 / 3, confidence=0.8),
    ]
    calibration = Calibration(temperature=1.0, ece_before=0.1, ece_after=0.1, nll_before=1, nll_after=1, bins=bins)
    chosen = pd.DataFrame({"image_id": ["=1"], "label": ["COVID"], "baseline_probability": [np.float32(0.5)]})

    curves = pd.read_csv(io.StringIO(curves_file("A", {"none": history, "both": history}).csv))
    reliable = pd.read_csv(io.StringIO(reliability_file("A", {"none": calibration}).csv))

    assert curves["arm"].tolist() == ["none", "none", "both", "both"] and curves["loss"].sum() == 1.5
    assert reliable["images"].tolist() == [0, 3] and reliable["accuracy"].isna().tolist() == [True, False]
    assert gallery_file("A", chosen).csv.splitlines()[1] == "'=1,COVID,0.5"
