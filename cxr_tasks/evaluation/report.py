"""The report of a run as one HTML file that needs nothing else: what goes into it, and how it is laid out.

The words and styles are in ``templates/report.html.j2``; figures that follow from the comparisons are
drawn here.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import jinja2
import numpy as np
from pydantic import BaseModel, ConfigDict

from cxr_tasks.evaluation import figures, paper
from cxr_tasks.evaluation.comparison import PairComparison, p_text, points
from cxr_tasks.evaluation.intervals import holm
from cxr_tasks.evaluation.metrics import slug
from cxr_tasks.evaluation.seeds import SeedsComparison

TEMPLATES = Path(__file__).parent / "templates"


class Part(BaseModel):
    """Plain data, checked when made and never changed after."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Table(Part):
    """A further measurement, such as the GAN's quality per class. Cells are shown as they are."""

    title: str
    note: str
    columns: list[str]
    rows: list[list[str]]


class ReportPair(Part):
    """One compared pair. ``network`` as in "VGG16"; the arms are their augmentation, as in "classical"."""

    network: str
    seed: int
    baseline_arm: str
    augmented_arm: str
    comparison: PairComparison
    curves_png: bytes | None = None
    reliability_png: bytes | None = None
    gallery_png: bytes | None = None
    thresholds: Table | None = None


class UnpairedArm(Part):
    """An arm that was trained and has no partner, as when the GAN was not good enough. Metrics as in
    ``metrics``."""

    network: str
    seed: int
    arm: str
    validation: dict[str, float]
    test: dict[str, float]


class SampleGrid(Part):
    """Synthetic images and what they are, in a few words."""

    caption: str
    png: bytes


class PromotedModel(Part):
    """A registered model; ``decision`` says in words why it got, or did not get, its alias."""

    name: str
    version: str
    alias: str
    arm: str
    validation_macro_f1: float
    decision: str


class Link(Part):
    """An address to show. Only http, https and relative ones can be clicked; others are written out."""

    label: str
    url: str

    @property
    def clickable(self) -> bool:
        """Whether following the address can do nothing but open a page."""
        return bool(re.match(r"https?://", self.url)) or re.match(r"[^/\\]*:|[/\\]{2}", self.url) is None


class ReportContent(Part):
    """Everything the report says that differs from run to run.

    ``counts``: split, then class, then real images. ``protocol``: terms and their values. ``summaries``: over
    seeds, where there are several. ``leak``: figures that are wrong on purpose.
    """

    title: str
    created: str
    answer: str
    dataset_name: str
    dataset_version: str
    classes: list[str]
    counts: dict[str, dict[str, int]]
    profile: str
    protocol: list[tuple[str, str]] = []
    synthetic_counts: dict[str, int] = {}
    warnings: list[str] = []
    pairs: list[ReportPair] = []
    summaries: list[SeedsComparison] = []
    unpaired: list[UnpairedArm] = []
    sample_grids: list[SampleGrid] = []
    tables: list[Table] = []
    leak: Table | None = None
    promoted: list[PromotedModel] = []
    settings_yaml: str
    links: list[Link] = []


def render_report(content: ReportContent) -> str:
    """The report as one HTML document: figures inside it, no scripts, nothing fetched from anywhere.

    Every string of ``content`` is escaped. Pairs, synthetic images and promoted models may each be absent.
    """
    comparisons = [pair.comparison for pair in content.pairs]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=lambda fraction, digits=1: f"{100 * fraction:.{digits}f}",
        points=lambda difference: _minus(points(difference)),
        minus=_minus,
        p=lambda p_value: p_text(p_value).removeprefix("p ").removeprefix("= "),
        image=_data_uri,
        thousands=lambda number: f"{number:,}",
        slug=slug,
    )
    return environment.get_template("report.html.j2").render(
        content=content,
        holm_p=holm([comparison.mcnemar_p for comparison in comparisons]),
        forest=_forest(content),
        confusions=[_confusions(comparison) for comparison in comparisons],
        paper_rows=_paper_rows(content),
        paper_source=paper.SOURCE,
        paper_caveats=paper.CAVEATS,
    )


def _minus(text: str) -> str:
    """Signs of numbers as typographic minus, which lines up with plus; other hyphens stay."""
    return re.sub(r"(?<![\w-])-(?=\d)", "\N{MINUS SIGN}", text)


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def _forest(content: ReportContent) -> bytes | None:
    rows = [
        (pair.comparison.name, c.macro_f1_difference, c.macro_f1_low, c.macro_f1_high)
        for pair in content.pairs
        for c in [pair.comparison]
    ]
    # Over its seeds, each network once more below.
    arms = {summary.augmented_arm for summary in content.summaries}
    for s in content.summaries:
        name = f"{s.name} {s.augmented_arm}" if len(arms) > 1 else s.name
        rows.append((f"{name}, over seeds", s.mean, s.low, s.high))
    return figures.png_bytes(figures.difference_forest(rows)) if rows else None


def _confusions(comparison: PairComparison) -> bytes:
    return figures.png_bytes(
        figures.confusion_matrices(
            np.array(comparison.baseline_confusion),
            np.array(comparison.augmented_confusion),
            comparison.classes,
            f"{comparison.name}: test images",
            arms=(comparison.baseline_arm, comparison.augmented_arm),
        )
    )


def _paper_rows(content: ReportContent) -> list[dict[str, Any]]:
    """The source report's arms, each with this run's mean over seeds or None; all in percent."""
    return [{"paper": arm, "run": _run_means(content, arm)} for arm in paper.ARMS]


def _run_means(content: ReportContent, arm: paper.PaperArm) -> dict[str, Any] | None:
    """The run's arm that is most like the source report's, and its name."""
    trained: dict[str, list[tuple[Mapping[str, float], Mapping[str, float]]]] = {}
    for pair in content.pairs:
        if pair.network == arm.network:
            c = pair.comparison
            trained.setdefault(pair.baseline_arm, []).append((c.baseline_validation, c.baseline_test))
            trained.setdefault(pair.augmented_arm, []).append((c.augmented_validation, c.augmented_test))
    for single in content.unpaired:
        if single.network == arm.network:
            trained.setdefault(single.arm, []).append((single.validation, single.test))
    # What it trained with comes first.
    likest = ("synthetic", "both") if arm.augmented else ("classical", "none")
    name = next((name for name in likest if name in trained), None)
    if name is None:
        return None
    names = {"accuracy": "accuracy", "precision": "macro_precision", "recall": "macro_recall", "f1": "macro_f1"}
    row = {short: 100 * mean(valid[metric] for valid, _ in trained[name]) for short, metric in names.items()}
    tests = [test for _, test in trained[name]]
    images = sum(value for metric, value in tests[0].items() if metric.startswith("support_"))
    return {**row, "arm": name, "test_accuracy": 100 * mean(test["accuracy"] for test in tests), "test_images": images}
