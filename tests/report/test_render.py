"""The report stands alone: nothing fetched, everything escaped, and each part may be missing."""

import io
import re
from base64 import b64decode, b64encode
from functools import cache
from hashlib import sha256
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from cxr_tasks.artifacts import Decision
from cxr_tasks.evaluation.claims import Claim, Joint
from cxr_tasks.evaluation.comparison import PairComparison, compare_predictions
from cxr_tasks.evaluation.plots import png_bytes, sample_grid
from cxr_tasks.evaluation.seeds import SeedsComparison
from cxr_tasks.registry.champions import Condition
from cxr_tasks.report import paper
from cxr_tasks.report.render import (
    Link,
    ReportContent,
    ReportPair,
    SampleGrid,
    Table,
    UnpairedArm,
    data_files,
    render_report,
)
from tests.hostile import MARKUP, run_in_page

CLASSES = ["COVID", "Normal", "Viral Pneumonia"]
THRESHOLDS = Table(title="Operating thresholds", note="So many.", columns=["Arm", "Class"], rows=[["none", "COVID"]])
EVIL = '<script>alert("x")</script>'


class Page(HTMLParser):
    """Tags in order with their attributes, and all text."""

    VOID = ("meta", "img", "br")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@cache
def comparison(name: str, seed: int) -> PairComparison:
    rng = np.random.default_rng(seed)
    n = 80
    table = pd.DataFrame(
        {
            "image_id": [f"image-{i}" for i in range(n)],
            "split": ["validation", "test"] * (n // 2),
            "group": [f"patient-{i}" for i in range(n)],
            "label": rng.choice(CLASSES, size=n),
        }
    )
    arms = [pd.concat([table, pd.DataFrame(rng.dirichlet(np.ones(3), n), columns=CLASSES)], axis=1) for _ in range(2)]
    return compare_predictions(*arms, CLASSES, name=name, bootstrap_samples=50, confidence=0.95, seed=0)


def pair(network: str, seed: int = 0, **changes: Any) -> ReportPair:
    return ReportPair(
        network=network,
        seed=seed,
        baseline_arm="classical",
        augmented_arm="synthetic",
        comparison=comparison(network, seed),
        **changes,
    )


def claim(network: str, verdict: str = "no detectable difference", **changes: Any) -> Claim:
    values: dict[str, Any] = {
        "name": network,
        "arm": "synthetic",
        "baseline": "classical",
        "control": "oversample",
        "seeds": 1,
        "against_baseline": Joint(mean=0.0123, low=-0.031, high=0.052, p_value=0.61),
        "against_control": Joint(mean=-0.004, low=-0.02, high=0.018, p_value=1.0),
        "detectable": 0.061,
        "claims": 3,
        "confidence": 0.95,
        "verdict": verdict,
    }
    return Claim.model_validate(values | changes)


def content(**changes: Any) -> ReportContent:
    values: dict[str, Any] = {
        "title": "Synthetic augmentation",
        "created": "2 November 2026",
        "answer": "No answer.",
        "dataset_name": "radiographs",
        "dataset_version": "9f2c41e07ab3",
        "classes": CLASSES,
        "counts": {"training": {"COVID": 1200, "Normal": 3400, "Viral Pneumonia": 450}},
        "profile": "quick",
        "settings_yaml": "seed: 0\n",
    }
    return ReportContent(**(values | changes))


@cache
def picture() -> bytes:
    return png_bytes(sample_grid(np.zeros((3, 8, 8), dtype=np.uint8), CLASSES, CLASSES, "step 1"))


def full() -> ReportContent:
    pairs = [
        pair("VGG16", curves_png=picture(), gallery_png=picture(), thresholds=THRESHOLDS),
        pair("CNN", curves_png=picture(), reliability_png=picture()),
    ]
    return content(
        answer="Synthetic augmentation helps.",
        claims=[claim("VGG16"), claim("CNN", against_control=None)],
        pairs=pairs,
        protocol=[("GAN training", "1,500 epochs, 284,250 steps"), ("Budget", EVIL)],
        leak=Table(title="Wrong figures", note="On purpose.", columns=["Network", "Gain"], rows=[["VGG16", "-5.1"]]),
        synthetic_counts={"COVID": 2200},
        warnings=["Random weights: this says nothing about medicine."],
        sample_grids=[SampleGrid(caption="Three images.", png=picture())],
        tables=[Table(title="GAN quality", note="KID.", columns=["Class", "KID"], rows=[["COVID", "-0.1"]])],
        promoted=[
            Decision(
                name="cxr",
                version="7",
                alias="champion",
                arm="CNN, classical",
                validation_macro_f1=0.9,
                decision="Better than version 6.",
                conditions=(Condition(about="size", passed=True, words="The model's size is 5 MB."),),
            )
        ],
        links=[
            Link(label="MLflow run", url="https://mlflow.example/#/runs/1"),
            Link(label="Data docs", url="docs/index.html"),
            Link(label="Artifacts", url="s3://bucket/key"),
            Link(label="Bad", url="javascript:alert(1)"),
        ],
    )


@cache
def rendered() -> str:
    return render_report(full())


def test_a_full_report_stands_alone() -> None:
    html = rendered()
    page = Page(html)

    assert page.open == []
    # Forest, two learning curves, one gallery, one reliability diagram, one grid.
    assert len(page.all("img")) == 6
    assert all(str(image["src"]).startswith("data:image/png;base64,") for image in page.all("img"))
    assert all(image["alt"] for image in page.all("img"))
    assert not {"link", "iframe", "object"} & {tag for tag, _ in page.tags}
    addresses = [str(a["href"]) for a in page.all("a") if "download" not in a]
    elsewhere = [address for address in addresses if not address.startswith("#")]
    assert elsewhere == ["https://mlflow.example/#/runs/1", "docs/index.html"]
    assert html.count("http://") == 0 and html.count("https://") == 1
    assert "url(" not in html and "@import" not in html


def test_the_page_allows_its_own_script_and_styles_and_no_others() -> None:
    html = rendered()

    (policy,) = [str(meta["content"]) for meta in Page(html).all("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none';") and "unsafe" not in policy
    for tag in ("script", "style"):
        (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        assert f"{tag}-src 'sha256-{b64encode(sha256(inside.encode()).digest()).decode()}'" in policy
    assert 'style="' not in html and not re.search(r"<[^>]* on\w+=", html)


def test_the_contents_lead_to_every_section_and_pair() -> None:
    html = rendered()
    page = Page(html)

    anchors = [str(a["href"])[1:] for a in page.all("a") if str(a["href"]).startswith("#")]
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) and set(anchors) <= set(ids)
    titled = [attributes["id"] for tag, attributes in page.tags if tag == "h2" and "id" in attributes]
    assert len(titled) == len(page.all("h2")) and set(titled) - {"warnings"} <= set(anchors)
    assert {"pair-1", "pair-2"} <= set(anchors)


def test_the_data_of_every_figure_and_table_are_inside() -> None:
    given = full()
    page = Page(rendered())

    inside = {
        str(a["download"]): b64decode(str(a["href"]).split("base64,")[1]).decode()
        for a in page.all("a")
        if "download" in a
    }
    assert inside == {file.name: file.csv for file in data_files(given)}
    table = pd.read_csv(io.StringIO(inside["vgg16-confusion.csv"]))
    matrix = given.pairs[0].comparison.baseline_confusion
    assert table[table["arm"] == "baseline"].iloc[:, 2:].to_numpy().tolist() == matrix
    claims = pd.read_csv(io.StringIO(inside["claims.csv"]))
    assert claims["against"].tolist() == ["classical", "oversample", "classical"]
    assert claims["macro_f1_difference"].tolist() == [0.0123, -0.004, 0.0123]
    assert inside["table-2-wrong-figures.csv"].split() == ["Network,Gain", "VGG16,-5.1"]
    assert len(pd.read_csv(io.StringIO(inside["comparisons.csv"]))) == 2


def test_a_confusion_matrix_shows_counts_shares_and_shades() -> None:
    shown = pair("VGG16")
    c = shown.comparison
    html = render_report(content(pairs=[shown]))

    count, row = c.baseline_confusion[0][0], sum(c.baseline_confusion[0])
    share = 100 * count / row
    assert f'<td class="h{round(share / 10)}">{count}<small>{share:.1f} %</small></td>' in html


def test_a_full_report_says_what_it_was_given() -> None:
    given = full()
    text = " ".join(Page(rendered()).text.split()).replace("\N{MINUS SIGN}", "-")
    for each in given.pairs:
        assert each.comparison.sentence in text
    for words in (
        given.answer,
        *given.warnings,
        "1,500 epochs, 284,250 steps",
        "Synthetic, training only",
        "5,050",
        "champion",
        "Better than version 6.",
        "The model's size is 5 MB.",
        "GAN quality",
        "Operating thresholds",
        "Wrong figures",
        "s3://bucket/key",
        "The run asked for 3 comparisons",
        "+1.2 (-3.1 to +5.2)-0.4 (-2.0 to +1.8)oversample",
        "not measuredoversample",
        "each has 98.33 % confidence",
        "The exact sign test counts groups and not images",
        *paper.CAVEATS,
    ):
        assert words in text
    # ResNet50 was not trained here: both its rows say so and show no invented figure.
    assert text.count("not trained") == 2


def spoilt(value: Any, kept: set[tuple[Any, ...]], place: tuple[Any, ...] = ()) -> Any:
    """``value`` with markup at the end of every text that has none, but for the ``kept`` places."""
    if isinstance(value, str):
        return value if place in kept or any(text in value for text in MARKUP) else value + "".join(MARKUP)
    if isinstance(value, dict):
        return {key: spoilt(each, kept, (*place, key)) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [spoilt(each, kept, (*place, number)) for number, each in enumerate(value)]
    return value


def test_every_text_of_a_report_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    classes = [f"{label}{text}" for label, text in zip(CLASSES, MARKUP, strict=False)]
    monkeypatch.setitem(globals(), "CLASSES", classes)
    comparison.cache_clear()
    given, kept = full().model_copy(update={"counts": {text: {classes[0]: 3} for text in MARKUP}}), set[Any]()
    comparison.cache_clear()
    for _ in range(5):
        try:
            harmful = ReportContent.model_validate(spoilt(given.model_dump(), kept))
            break
        except ValidationError as error:
            # Words of the code's own, such as champion.
            kept |= {each["loc"] for each in error.errors()}
    html = render_report(harmful)

    assert harmful.answer != given.answer and len(kept) < 10
    assert html.count("&lt;img src=x onerror=alert(1)&gt;") > 50
    assert run_in_page(html) == [] and Page(html).open == []


def test_an_address_that_runs_a_script_is_no_link() -> None:
    html = render_report(content(links=[Link(label=EVIL, url=f"https://a.example/{MARKUP[1]}")]))

    assert run_in_page(html) == [] and "&lt;script&gt;" in html


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "No synthetic set was made"),
        ({}, "No model was promoted"),
        ({"pairs": [pair("ResNet50")]}, "Each comparison by itself"),
        ({"claims": [claim("CNN", claims=1)]}, "The run asked for 1 comparison:"),
        ({"protocol": [("Budget", "so many steps")]}, "so many steps"),
    ],
)
def test_each_part_may_be_missing(changes: dict[str, Any], words: str) -> None:
    page = Page(render_report(content(**changes)))
    assert words in " ".join(page.text.split())
    assert page.open == []


def test_arms_without_a_partner_are_shown_and_set_beside_the_source() -> None:
    done = comparison("VGG16", 0)
    single = UnpairedArm(
        network="VGG16", seed=0, arm="classical", validation=done.baseline_validation, test=done.baseline_test
    )
    text = Page(render_report(content(unpaired=[single]))).text
    assert "Arms without a partner" in text
    assert "Does synthetic augmentation help?" not in text
    assert f"{100 * done.baseline_validation['accuracy']:.2f}" in text


def test_several_seeds_are_summed_up_by_network() -> None:
    pairs = [pair("VGG16", seed) for seed in range(3)]
    summary = SeedsComparison(
        name="VGG16",
        baseline_arm="none",
        augmented_arm="both",
        seeds=[0, 1, 2],
        mean=0.0123,
        sd=0.0456,
        least=-0.01,
        most=0.02,
        low=-0.03,
        high=0.04,
        detectable=0.051,
        p_value=0.6,
        variances=(0.0003,),
        degrees=(30.0,),
        confidence=0.95,
        verdict="no detectable difference",
        sentence="",
    )
    text = " ".join(Page(render_report(content(pairs=pairs, summaries=[summary]))).text.split())

    assert "Over seeds" in text and "none → both" in text
    assert "+1.2 (−3.0 to +4.0)4.6−1.0 to +2.0±5.1" in text
    assert "Over seeds" not in Page(render_report(content(pairs=pairs[:1]))).text


def test_corrected_verdicts_stand_before_those_by_themselves_and_both_are_named() -> None:
    text = " ".join(Page(rendered().split("</nav>")[1].split("</main>")[0]).text.split())

    order = ["What this run may claim", "Verdict, corrected", "Each comparison by itself", "Verdictby itself"]
    places = [text.index(words) for words in order]
    assert places == sorted(places)
    assert "What this run may claim" not in Page(render_report(content(pairs=[pair("CNN")]))).text


def test_figures_that_are_wrong_on_purpose_stand_in_red_and_are_announced() -> None:
    html = rendered()

    assert html.count('class="leak"') == 2 and 'href="#leak"' in html
    assert "Those figures are wrong on purpose" in html
    assert 'class="leak"' not in render_report(content())


def test_columns_of_words_stand_left_and_figures_right() -> None:
    html = rendered()
    assert '<th scope="col" class="words">Class</th>' in html and '<td class="words">COVID</td>' in html
    assert '<th scope="col">KID</th>' in html


def test_a_misspelt_field_is_an_error() -> None:
    with pytest.raises(ValidationError, match="promotd"):
        content(promotd=[])


@pytest.mark.parametrize("url", ["javascript:alert(1)", " javascript:alert(1)", "//evil.example", "data:text/html,x"])
def test_only_plain_addresses_can_be_clicked(url: str) -> None:
    assert not Link(label="x", url=url).clickable


def test_the_sources_figures_are_consistent_with_its_own_tables() -> None:
    first = {arm.network: arm for arm in paper.PAPER_ARMS if not arm.augmented}
    second = {arm.network: arm for arm in paper.PAPER_ARMS if arm.augmented}
    right = {"VGG16": 333 + 998 + 113, "ResNet50": 341 + 999 + 117, "CNN": 331 + 987 + 105}
    recalls = {"VGG16": (0.98, 0.97, 0.93), "ResNet50": (0.98, 0.97, 0.92), "CNN": (0.97, 0.97, 0.96)}
    for network in right:
        assert first[network].test_accuracy == pytest.approx(100 * right[network] / 1516, abs=0.006)
        worked_out = 100 * np.dot(recalls[network], (967, 1023, 136)) / 2126
        assert second[network].test_accuracy == pytest.approx(worked_out, abs=0.05)
