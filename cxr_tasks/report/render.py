"""Renders the report of a run as one HTML file that needs nothing else.

``ReportContent`` is what goes into the report. ``templates/report.html.j2`` has the words and the styles. This module
draws the plots that follow from the comparisons.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import jinja2
from pydantic import Field

from cxr_tasks.artifacts import Decision, Missing
from cxr_tasks.evaluation.claims import Claim
from cxr_tasks.evaluation.comparison import PairComparison, p_text, points
from cxr_tasks.evaluation.plots import difference_forest, png_bytes
from cxr_tasks.evaluation.seeds import SeedsComparison
from cxr_tasks.names import slug
from cxr_tasks.pictures import data_url
from cxr_tasks.report import paper
from cxr_tasks.report.checklists import Place, checklists
from cxr_tasks.report.data_files import (
    DataFile,
    claims_file,
    comparisons_file,
    confusion_file,
    stem_of,
    table_file,
)
from cxr_tasks.strict import Strict

TEMPLATES = Path(__file__).parent / "templates"
# What the titles of tables begin with, and the warnings about data that are left out.
SUBGROUP_TITLES = ("Classes by subgroup", "By ")
OF_DATA = "Data: "
WARNED = ("warnings", "Before you use these figures")


class Table(Strict):
    """A further measurement, such as the GAN's quality per class. The report shows cells as they are."""

    title: str
    note: str
    columns: list[str]
    rows: list[list[str]]


class ReportPair(Strict):
    """One compared pair.

    Attributes:
        network: The classifier's name for people, such as "VGG16".
        baseline_arm: The baseline's arm, such as "classical".
        augmented_arm: The augmented arm, such as "both".
        data: What the pictures show, as files.
    """

    network: str
    seed: int
    baseline_arm: str
    augmented_arm: str
    comparison: PairComparison
    curves_png: bytes | None = None
    reliability_png: bytes | None = None
    gallery_png: bytes | None = None
    thresholds: Table | None = None
    data: list[DataFile] = Field(default_factory=list)


class UnpairedArm(Strict):
    """An arm that was trained and has no partner, as where the GAN was not good enough.

    Attributes:
        validation: Metrics of the validation images, as ``evaluation.metrics`` names them.
        test: Metrics of the test images, alike.
    """

    network: str
    seed: int
    arm: str
    validation: dict[str, float]
    test: dict[str, float]


class SampleGrid(Strict):
    """Synthetic images with a caption."""

    caption: str
    png: bytes


class Link(Strict):
    """An address to show. Only http, https and relative addresses can be clicked; others are written out."""

    label: str
    url: str

    @property
    def clickable(self) -> bool:
        """Whether following the address can do nothing but open a page."""
        return bool(re.match(r"https?://", self.url)) or re.match(r"[^/\\]*:|[/\\]{2}", self.url) is None


class ReportContent(Strict):
    """Everything in the report that differs from run to run.

    Attributes:
        counts: Real images by split, then by class.
        protocol: How the arms were trained, as terms and their values.
        claims: What the answer rests on: verdicts that are corrected for how many were asked.
        pairs: Every comparison by itself.
        summaries: The comparisons over seeds, where there are several seeds.
        leak: Figures that are wrong on purpose.
        missing: What the run was to make and did not.
    """

    title: str
    created: str
    answer: str
    dataset_name: str
    dataset_version: str
    classes: list[str]
    counts: dict[str, dict[str, int]]
    profile: str
    protocol: list[tuple[str, str]] = Field(default_factory=list)
    synthetic_counts: dict[str, int] = Field(default_factory=dict)
    warnings: list[str] = Field(default_factory=list)
    claims: list[Claim] = Field(default_factory=list)
    pairs: list[ReportPair] = Field(default_factory=list)
    summaries: list[SeedsComparison] = Field(default_factory=list)
    unpaired: list[UnpairedArm] = Field(default_factory=list)
    sample_grids: list[SampleGrid] = Field(default_factory=list)
    tables: list[Table] = Field(default_factory=list)
    leak: Table | None = None
    promoted: list[Decision] = Field(default_factory=list)
    settings_yaml: str
    links: list[Link] = Field(default_factory=list)
    missing: list[Missing] = Field(default_factory=list)


def data_files(content: ReportContent) -> list[DataFile]:
    """The data of every figure and table, each as a file with a name of its own."""
    comparisons = [pair.comparison for pair in content.pairs]
    titled = [table for table in (*content.tables, content.leak) if table is not None]
    return [
        *(each.file() for each in checklists(places_of(content))),
        *([claims_file(content.claims)] if content.claims else []),
        *([comparisons_file(comparisons)] if comparisons else []),
        *(each for pair in content.pairs for each in (confusion_file(pair.comparison), *pair.data)),
        *(table_file(stem_of_table(number, t.title), t.columns, t.rows) for number, t in enumerate(titled, start=1)),
    ]


def places_of(content: ReportContent) -> dict[str, Place]:
    """The parts of a report that say something of an item of a checklist, by the names of ``checklist_items``."""
    tables = {table.title: f"table-{number}" for number, table in enumerate(content.tables, start=1)}
    of_kind = {"subgroups": SUBGROUP_TITLES, "external": ("External test",), "shortcuts": ("Shortcuts",)}
    of_tables = {
        name: (anchor, title)
        for name, starts in of_kind.items()
        for title, anchor in reversed(tables.items())
        if title.startswith(starts)
    }
    told = {
        "answer": ("answer", content.title),
        "compared": ("compared", "What was compared"),
        "method": ("method", "How it was measured"),
        "settings": ("settings", "Settings"),
        **of_tables,
    }
    pairs, thresholds = ("pairs", "Pair by pair"), [pair for pair in content.pairs if pair.thresholds is not None]
    optional = {
        "claims": (content.claims, ("claims", "What this run may claim")),
        "comparison": (content.pairs, ("comparison", "Each comparison by itself")),
        "seeds": (content.summaries, ("seeds", "Over seeds")),
        "pairs": (content.pairs, pairs),
        "thresholds": (thresholds, pairs),
        "gallery": ([pair for pair in content.pairs if pair.gallery_png is not None], pairs),
        "promoted": (content.promoted, ("promoted", "Promoted models")),
        "links": (content.links, ("links", "Links")),
        "warnings": (content.warnings, WARNED),
        "left_out": ([warning for warning in content.warnings if warning.startswith(OF_DATA)], WARNED),
    }
    told |= {name: place for name, (there, place) in optional.items() if there}
    return {name: Place(anchor=anchor, title=title) for name, (anchor, title) in told.items()}


def stem_of_table(number: int, title: str) -> str:
    """What the file of a table is called. Titles may differ in signs alone, so the number tells them apart."""
    return stem_of("table", str(number), title)


def render_report(content: ReportContent) -> str:
    """The report as one HTML document that needs nothing else: plots and data are inside, nothing is fetched.

    Every string of ``content`` is escaped. The one script sorts tables and opens details. The page allows no other
    script, and is whole without it. Pairs, synthetic images and promoted models may each be absent.
    """
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
        image=data_url,
        csv_url=lambda file: f"data:text/csv;charset=utf-8;base64,{base64.b64encode(file.csv.encode()).decode()}",
        columns_of_words=_columns_of_words,
        thousands=lambda number: f"{number:,}",
        slug=slug,
        stem=stem_of,
        digest=_policy_hash,
        headings=_headings,
        opens_a_page=lambda url: url.startswith(("http://", "https://")),
    )
    script, style = (_asset(name) for name in ("report.js", "report.css"))
    return environment.get_template("report.html.j2").render(
        content=content,
        script=script,
        style=style,
        files={file.stem: file for file in data_files(content)},
        stem_of_table=stem_of_table,
        forest=_forest(content),
        confusions=_confusions,
        checklists=checklists(places_of(content)),
        paper_rows=_paper_rows(content),
        paper_source=paper.CITATION,
        paper_caveats=paper.CAVEATS,
    )


def _asset(name: str) -> str:
    """The page's script or its styles."""
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _policy_hash(text: str) -> str:
    """What a Content-Security-Policy calls an inline script or style by."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _headings(body: str) -> list[tuple[int, str, str]]:
    """The headings of the page's body that can be linked to: level, id and title, which is escaped already."""
    found = re.findall(r'<h([23]) id="([^"]+)"[^>]*>(.*?)</h\1>', body, flags=re.DOTALL)
    return [(int(level), anchor, title) for level, anchor, title in found]


def _minus(text: str) -> str:
    """Write the signs of numbers as a typographic minus, which lines up with plus. Other hyphens stay."""
    return re.sub(r"(?<![\w-])-(?=\d)", "\N{MINUS SIGN}", text)


def _columns_of_words(table: Table) -> set[int]:
    """The columns in which every cell begins with a letter. The report aligns these to the left, and figures not."""
    return {index for index, cells in enumerate(zip(*table.rows, strict=True)) if all(c[:1].isalpha() for c in cells)}


def _forest(content: ReportContent) -> bytes | None:
    """The forest plot of what the run may claim, beside baselines and controls; None without claims."""
    rows = []
    for claim in content.claims:
        beside = {claim.baseline: claim.against_baseline, claim.control: claim.against_control}
        rows += [
            (f"{claim.name}: {claim.arm} beside {other}", joint.mean, joint.low, joint.high)
            for other, joint in beside.items()
            if joint is not None
        ]
    return png_bytes(difference_forest(rows)) if rows else None


def _confusions(comparison: PairComparison) -> list[dict[str, Any]]:
    """The confusion matrix of each arm: a row a true class, with counts, shares in percent and shades 0 to 10."""
    matrices = (
        (comparison.baseline_arm, comparison.baseline_confusion),
        (comparison.augmented_arm, comparison.augmented_confusion),
    )
    shown = []
    for arm, matrix in matrices:
        rows = []
        for label, counts in zip(comparison.classes, matrix, strict=True):
            shares = [100 * count / max(sum(counts), 1) for count in counts]
            rows.append((label, [(n, share, round(share / 10)) for n, share in zip(counts, shares, strict=True)]))
        shown.append({"arm": arm, "rows": rows})
    return shown


def _paper_rows(content: ReportContent) -> list[dict[str, Any]]:
    """The source report's arms, each with this run's mean over seeds or None, all in percent."""
    return [{"paper": arm, "run": _run_means(content, arm)} for arm in paper.PAPER_ARMS]


def _run_means(content: ReportContent, arm: paper.PaperArm) -> dict[str, Any] | None:
    """The figures of the run's arm that is most like the source report's ``arm``; None if no such arm was trained."""
    trained: dict[str, list[tuple[Mapping[str, float], Mapping[str, float]]]] = {}
    for pair in content.pairs:
        if pair.network == arm.network:
            c = pair.comparison
            trained.setdefault(pair.baseline_arm, []).append((c.baseline_validation, c.baseline_test))
            trained.setdefault(pair.augmented_arm, []).append((c.augmented_validation, c.augmented_test))
    for single in content.unpaired:
        if single.network == arm.network:
            trained.setdefault(single.arm, []).append((single.validation, single.test))
    # The source report's augmented arm left out classical augmentation, as the arm ``synthetic`` does.
    likest = ("synthetic", "both") if arm.augmented else ("classical", "none")
    name = next((name for name in likest if name in trained), None)
    if name is None:
        return None
    names = {"accuracy": "accuracy", "precision": "macro_precision", "recall": "macro_recall", "f1": "macro_f1"}
    row = {short: 100 * mean(valid[metric] for valid, _ in trained[name]) for short, metric in names.items()}
    tests = [test for _, test in trained[name]]
    images = sum(value for metric, value in tests[0].items() if metric.startswith("support_"))
    return {**row, "arm": name, "test_accuracy": 100 * mean(test["accuracy"] for test in tests), "test_images": images}
