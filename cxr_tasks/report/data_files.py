"""The data of a report's figures as CSV files, for those who draw or compute on their own."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence

import pandas as pd

from cxr_tasks.config import FORMULA_SIGNS
from cxr_tasks.evaluation.calibration import Calibration
from cxr_tasks.evaluation.claims import Claim
from cxr_tasks.evaluation.comparison import PairComparison
from cxr_tasks.strict import Strict

# A tab or a line's end also begins a formula in some spreadsheets.
_FORMULA_STARTS = (*FORMULA_SIGNS, "\t", "\r", "\n")
_NUMBER = re.compile(r"[+-]?\d[\d,]*(\.\d+)?( ?%)?")

DataCell = str | int | float | None


class DataFile(Strict):
    """The data of one figure or table.

    Attributes:
        stem: The file's name without ``.csv``: lower-case letters, digits and hyphens.
        rows: A cell is empty where nothing was measured.
    """

    stem: str
    columns: list[str]
    rows: list[list[DataCell]]

    @property
    def name(self) -> str:
        """The file's name."""
        return f"{self.stem}.csv"

    @property
    def csv(self) -> str:
        """The file's content. No cell of it is a formula to a spreadsheet."""
        stream = io.StringIO()
        lines = csv.writer(stream)
        lines.writerow(map(harmless, self.columns))
        lines.writerows([harmless(cell) for cell in row] for row in self.rows)
        return stream.getvalue()


def harmless(cell: DataCell) -> DataCell:
    """A cell that a spreadsheet takes for no formula: a text like one begins with an apostrophe.

    A text that is a number, such as ``-5.1``, stays as it is.
    """
    if isinstance(cell, str) and cell.startswith(_FORMULA_STARTS) and not _NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell


def stem_of(*words: str) -> str:
    """A file name without its ending, of words that people gave: ``VGG16, seed 1`` becomes ``vgg16-seed-1``."""
    return "-".join(filter(None, (re.sub(r"[^a-z0-9]+", "-", word.lower()).strip("-") for word in words)))[:100]


def table_file(stem: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> DataFile:
    """A table of the report, as it is shown."""
    return DataFile(stem=stem, columns=list(columns), rows=[list(row) for row in rows])


def claims_file(claims: Sequence[Claim]) -> DataFile:
    """The forest plot: what the run may claim. Differences are fractions."""
    rows: list[list[DataCell]] = []
    for claim in claims:
        for against, joint in ((claim.baseline, claim.against_baseline), (claim.control, claim.against_control)):
            if joint is not None:
                figures = (joint.mean, joint.low, joint.high, joint.p_value)
                rows.append([claim.name, claim.arm, against, claim.seeds, *figures, claim.verdict])
    columns = ["network", "arm", "against", "seeds", "macro_f1_difference", "low", "high", "p_corrected", "verdict"]
    return DataFile(stem="claims", columns=columns, rows=rows)


def comparisons_file(comparisons: Sequence[PairComparison]) -> DataFile:
    """Every comparison by itself, with all metrics of both arms on the test images."""
    told = [
        {
            "pair": each.name,
            "baseline_arm": each.baseline_arm,
            "augmented_arm": each.augmented_arm,
            "images": each.images,
            "groups": each.groups,
            "macro_f1_difference": each.macro_f1_difference,
            "macro_f1_low": each.macro_f1_low,
            "macro_f1_high": each.macro_f1_high,
            "detectable": each.detectable,
            "p_value": each.p_value,
            "sign_p": each.sign_p,
            "verdict_by_itself": each.verdict,
            **{f"baseline_{name}": value for name, value in each.baseline_test.items()},
            **{f"augmented_{name}": value for name, value in each.augmented_test.items()},
        }
        for each in comparisons
    ]
    columns = list(dict.fromkeys(name for row in told for name in row))
    return DataFile(stem="comparisons", columns=columns, rows=[[row.get(name) for name in columns] for row in told])


def confusion_file(comparison: PairComparison) -> DataFile:
    """The confusion matrices of a pair: a row for each true class of each arm, a column for each predicted class."""
    matrices = {
        comparison.baseline_arm: comparison.baseline_confusion,
        comparison.augmented_arm: comparison.augmented_confusion,
    }
    rows: list[list[DataCell]] = [
        [arm, label, *counts]
        for arm, matrix in matrices.items()
        for label, counts in zip(comparison.classes, matrix, strict=True)
    ]
    columns = ["arm", "true_class", *(f"predicted {label}" for label in comparison.classes)]
    return DataFile(stem=stem_of(comparison.name, "confusion"), columns=columns, rows=rows)


def curves_file(name: str, histories: Mapping[str, pd.DataFrame]) -> DataFile:
    """The learning curves of a pair, by arm: a row an epoch."""
    rows = [[arm, *row] for arm, history in histories.items() for row in history.to_numpy().tolist()]
    columns = next((list(history.columns) for history in histories.values()), [])
    return DataFile(stem=stem_of(name, "curves"), columns=["arm", *columns], rows=rows)


def reliability_file(name: str, calibrations: Mapping[str, Calibration]) -> DataFile:
    """The reliability diagrams of a pair, by arm: a row a bin of confidence."""
    rows: list[list[DataCell]] = [
        [arm, each.low, each.high, each.images, each.accuracy, each.confidence]
        for arm, calibration in calibrations.items()
        for each in calibration.bins
    ]
    columns = ["arm", "confidence_above", "confidence_up_to", "images", "accuracy", "mean_confidence"]
    return DataFile(stem=stem_of(name, "reliability"), columns=columns, rows=rows)


def gallery_file(name: str, chosen: pd.DataFrame) -> DataFile:
    """The images of a gallery, in its order: what is true, and what each arm says of them."""
    columns = list(map(str, chosen.columns))
    return DataFile(stem=stem_of(name, "gallery"), columns=columns, rows=chosen.to_numpy().tolist())
