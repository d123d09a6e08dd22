"""The page as HTML: every text of people stays text, and what the page says is there for those who cannot see it."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from cxr_tasks.artifacts import ClaimRow, Missing, PairRow, Report
from cxr_tasks.how_far import HowFar
from cxr_tasks.overview.gathering import PagePart
from cxr_tasks.overview.published import NewestData, PublishedData
from cxr_tasks.overview.registered import Figure, KnownModel, KnownVersion
from cxr_tasks.overview.render import POLICY, STATIC, render_part, render_parts, render_refusal, static_file
from cxr_tasks.overview.samples import Samples
from cxr_tasks.overview.trainings import TrainingFound, TrainingRun
from cxr_tasks.overview.under_way import (
    AirflowFacts,
    OpenQuestion,
    RunUnderWay,
    TaskUnderWay,
    Visitor,
    WorkUnderWay,
)
from tests.hostile import MARKUP, TEMPLATES, run_in_page

AT = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
EVERYTHING = Visitor(may_train=True, may_roll_back=True, may_answer=True)


def claim(name: str, **given: Any) -> ClaimRow:
    told = {"classifier": name, "seeds": 2, "baseline_arm": "classical", "arm": name, "difference": 0.02}
    told |= {"low": -0.01, "high": 0.05, "p_value": 0.2, "detectable": 0.04, "control": "", "claims": 2}
    told |= dict.fromkeys(("beyond_control", "beyond_control_low", "beyond_control_high"))
    return ClaimRow.model_validate(told | {"verdict": name} | given)


def under_way_of(name: str, visitor: Visitor = EVERYTHING) -> dict[str, Any]:
    """A run and a question whose texts are ``name``."""
    task = TaskUnderWay(name=name, state="running", seconds=70, page="/task")
    run = RunUnderWay(
        dag=name, dag_run=name, seconds=3700, tasks=(task,), done=3, total=9, failed=(name,), page="/dags/x"
    )
    question = OpenQuestion(
        dag_run=name, subject=name, models=(name,), asked=AT, page="/page", api="/api", yes="Approve", no="Decline"
    )
    far = HowFar(work=name, done=10, total=40, first=0, since=AT, at=AT)
    airflow = AirflowFacts(runs=(run,), questions=(question,), visitor=visitor)
    work = [WorkUnderWay(told=far, dag_run=name, left=90, url=name, run_id=name)]
    return {"airflow": airflow, "work": work}


def page_of(name: str, visitor: Visitor = EVERYTHING) -> str:
    """A page on which everything is there, and every text of people is ``name``."""
    training = TrainingRun(
        run_id="a" * 32, dag_run=name, name=name, begun=AT, status="FINISHED", answer=name, dataset=name, cause=name,
        url=name, compare=name, report=name,
    )  # fmt: skip
    pair = PairRow(
        classifier=name, seed=0, baseline_arm=name, arm=name, baseline_macro_f1=0.8, augmented_macro_f1=0.82,
        difference=0.02, low=-0.01, high=0.05, detectable=0.04, p_value=0.2, sign_p=0.5, test_images=1234,
        verdict=name,
    )  # fmt: skip
    report = Report(
        answer=name, warnings=(name,), claims=(claim(name),), pairs=(pair,), champions=(), address=name,
        missing=(Missing(what=name, why=name),),
    )  # fmt: skip
    version = KnownVersion(
        number="2", trained=name, test=Figure(value=94.1, low=90.0, high=97.2), validation=93.0, since="2026-03-01",
        decision=name, reply=name, conditions=(name,), rolled_back=name, dataset=name, url=name,
    )  # fmt: skip
    model = KnownModel(
        name=name, display=name, champion=version, newest=version.model_copy(update={"number": "3", "test": None}),
        versions=(version,), back_to=("1",),
    )  # fmt: skip
    data = PublishedData(
        version=name, counts={"train": {name: 5}, "test": {name: 1}}, rejected=1, near_duplicates=2, masks=3,
        warnings=(name,), data_docs=name,
    )  # fmt: skip
    now = under_way_of(name, visitor)
    found = TrainingFound(training=training, report=report)
    newest = NewestData(version=name, at=AT, changes=name, url=name, told=data)
    samples = Samples(run_id="b" * 32, steps=(1, 1200), names=("step-000001", "step-001200"), url=name)
    parts = [
        PagePart("top", now),
        PagePart("champions", {"airflow": now["airflow"], "models": [model]}),
        PagePart("comparison", {"airflow": now["airflow"], "runs": [training], "found": found, "is_missing": False}),
        PagePart("samples", {"samples": samples, "training": training}),
        PagePart("data", {"data": newest, "training": training}),
        PagePart("away", {"why": name, "is_fault": False}),
        PagePart("bottom", {}),
    ]
    return "".join(render_parts(parts))


class Elements(HTMLParser):
    """The elements of a page in their order, and the text in each kind of them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))

    def of(self, *tags: str) -> list[dict[str, str]]:
        return [told for tag, told in self.found if tag in tags]


@pytest.mark.parametrize("name", [*MARKUP, *TEMPLATES, "javascript:alert(1)"])
def test_texts_of_people_stay_texts(name: str) -> None:
    page = page_of(name)

    assert run_in_page(page) == [] and "1337" not in page
    assert not re.search(r"""(href|src|action)=["']?\s*javascript:""", page)
    # Nothing of theirs ends an attribute in which a script looks for data.
    models = [told["data-models"] for told in Elements(page).of("form") if "data-models" in told]
    assert [json.loads(told) for told in models] == [[name]]


def test_a_page_without_anything_says_what_to_do() -> None:
    facts = AirflowFacts(visitor=Visitor(may_train=True))
    parts = [
        PagePart("top", {"airflow": facts, "work": []}),
        PagePart("champions", {"airflow": facts, "models": []}),
        PagePart("comparison", {"airflow": facts, "runs": [], "found": None, "is_missing": False}),
        PagePart("samples", {"samples": None, "training": None}),
        PagePart("data", {"data": None, "training": None}),
        PagePart("bottom", {}),
    ]
    page = "".join(render_parts(parts))

    assert "Nothing runs now" in page and "No model is registered yet" in page and "run cxr_data" in page


def test_only_what_a_visitor_may_do_is_offered() -> None:
    everything, nothing = page_of("x"), page_of("x", Visitor())

    for words in ("data-rollback", 'name="reply"', ">Train<"):
        assert words in everything and words not in nothing
    assert "Answering it needs the right to edit the DAG" in nothing


def test_figures_are_told_with_their_intervals() -> None:
    page = page_of("helps")

    assert "90.0 to 97.2" in page and "+2.0</strong> (\N{MINUS SIGN}1.0 to +5.0)" in page
    assert "1 min 30 s" in page and "runs for 1 h 1 min" in page and "1,234 test images" in page


class TestForEverybody:
    def test_headings_descend_by_one(self) -> None:
        levels = [int(tag[1]) for tag, _ in Elements(page_of("x")).found if re.fullmatch(r"h\d", tag)]

        assert levels[0] == 1 and all(after - before <= 1 for before, after in pairwise(levels))

    def test_every_field_has_a_label_and_every_picture_words(self) -> None:
        page = Elements(page_of("x"))
        labelled = {told["for"] for told in page.of("label")}

        fields = [told for told in page.of("input", "select") if told.get("type") != "hidden"]
        assert len(fields) > 4 and {told["id"] for told in fields} <= labelled
        assert all(told["alt"] for told in page.of("img"))
        assert all(told.get("aria-label") for told in page.of("progress"))
        assert all(told.get("aria-hidden") == "true" for told in page.of("svg"))

    def test_there_are_landmarks_and_a_language_and_no_id_twice(self) -> None:
        page = Elements(page_of("x"))

        assert page.of("html")[0]["lang"] == "en" and len(page.of("main")) == len(page.of("header")) == 1
        ids = [told["id"] for _, told in page.found if "id" in told]
        assert len(ids) == len(set(ids))
        named = {told["aria-labelledby"] for _, told in page.found if "aria-labelledby" in told}
        assert named and named <= set(ids)
        assert {told["href"][1:] for told in page.of("a") if told["href"].startswith("#")} <= set(ids)

    def test_tables_name_their_rows_and_columns(self) -> None:
        page = Elements(page_of("x"))

        assert len(page.of("table")) >= 4 and all(told.get("scope") in ("row", "col") for told in page.of("th"))

    @pytest.mark.parametrize("theme", [0, 1])
    def test_text_stands_out_from_its_ground(self, theme: int) -> None:
        colours = colours_of(theme)

        for ink, ground in (
            ("ink", "ground"), ("ink", "card"), ("soft", "ground"), ("soft", "card"), ("link", "ground"),
            ("link", "card"), ("good", "good-ground"), ("bad", "bad-ground"), ("bad", "card"), ("bad", "ground"),
            ("ink", "badge"), ("soft", "badge"),
        ):  # fmt: skip
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
        assert contrast("#ffffff", colours["strong"]) >= 4.5 and contrast(colours["strong"], colours["card"]) >= 3
        assert contrast(colours["span"], colours["card"]) >= 2


def colours_of(theme: int) -> dict[str, str]:
    """The colours of the style sheet by their names: of the light theme (0), or of the dark one (1)."""
    sheet = (static_file("overview.css") or b"").decode()
    pairs = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", sheet)
    return {name: both[theme] for name, *both in pairs}


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2.2."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_the_page_fetches_nothing_from_elsewhere() -> None:
    page = page_of("https://evil.example/x")

    sources = [told.get("src") or told.get("href") for told in Elements(page).of("script", "link", "img")]
    assert sources and all(not re.match(r"\w+:|//", source or "") for source in sources)
    assert "unsafe" not in POLICY and "style=" not in page and not re.search(r"\son\w+=", page)
    scripts = [static_file(name) or b"" for name in STATIC if not name.endswith(".svg")]
    assert len(scripts) == 2 and not re.search(rb"https?://", b"".join(scripts))


def test_only_its_own_files_are_handed_out() -> None:
    assert static_file("../render.py") is None and static_file("") is None
    assert (Path(__file__).parents[2] / "cxr_tasks/overview/static/overview.js").read_bytes() == static_file(
        "overview.js"
    )


def test_a_refusal_says_why() -> None:
    assert "Sign in &lt;b&gt;" in render_refusal("Sign in <b>")


def test_a_page_that_breaks_off_says_so() -> None:
    facts = {"airflow": AirflowFacts(), "work": []}
    page = "".join(render_parts([PagePart("top", facts), PagePart("data", {}), PagePart("bottom", {})]))

    assert "A fault of this page" in page and page.rstrip().endswith("</html>")


def test_a_part_alone_is_no_page() -> None:
    part = render_part(PagePart("under_way", {"airflow": AirflowFacts(), "work": []}))

    assert "<html" not in part and "Nothing runs now" in part
