"""The PDF says what the page says, on numbered pages, and no text of it is read as markup or breaks the layout."""

import io
import re
from functools import cache
from typing import Any

import pytest
from pypdf import PdfReader

from cxr_tasks.artifacts import Missing
from cxr_tasks.report.page_tree import PageNode, page_tree
from cxr_tasks.report.pdf import pdf_or_reason, render_pdf
from cxr_tasks.report.pdf_text import FONT, MONO, NO_GLYPH, in_mono, marked_up, set_up_fonts
from cxr_tasks.report.render import Link, Table, render_report
from tests.hostile import CODES, MARKUP
from tests.report.test_render import content, full, pair, rendered


@cache
def read() -> PdfReader:
    return PdfReader(io.BytesIO(render_pdf(rendered())))


def text_of(reader: PdfReader) -> str:
    return " ".join(page.extract_text() for page in reader.pages)


def dense(text: str) -> str:
    """``text`` without blanks: lines break elsewhere on paper."""
    return re.sub(r"\s", "", text)


def pdf_of(**changes: Any) -> PdfReader:
    return PdfReader(io.BytesIO(render_pdf(render_report(content(**changes)))))


def annotations(reader: PdfReader) -> list[Any]:
    return [each.get_object() for page in reader.pages for each in page.get("/Annots", [])]


def said(page: PageNode) -> list[str]:
    """What each paragraph, item and cell of the page says."""
    tags = ("h1", "h2", "h3", "h4", "p", "li", "td", "th", "dt", "dd", "figcaption", "caption", "summary")
    return [text for node in page.all(*tags) if (text := node.text())]


def test_everything_that_the_page_says_is_in_the_pdf() -> None:
    # The foot of each page may stand between two lines of a paragraph.
    told = dense(re.sub(r"Synthetic augmentation\s+Page \d+ of\s+\d+", "", text_of(read())))

    lacks = [text for text in said(page_tree(rendered())) if dense(text) not in told]
    assert lacks == [] and len(said(page_tree(rendered()))) > 200


def test_pages_are_numbered_and_headings_are_bookmarks_that_the_contents_lead_to() -> None:
    reader = read()

    assert all(f"Page {number} of" in page.extract_text() for number, page in enumerate(reader.pages, start=1))
    page = page_tree(rendered())
    headings = [node.text() for node in page.all("h2", "h3") if "id" in node.attributes]

    def flat(entries: list[Any]) -> list[str]:
        return [title for each in entries for title in (flat(each) if isinstance(each, list) else [each.title])]

    assert flat(reader.outline) == headings
    last = reader.outline[-1]
    assert "Settings" in reader.pages[reader.get_destination_page_number(last)].extract_text()
    ids = {node.attributes["id"] for node in page.all("h2", "h3") if "id" in node.attributes}
    assert len({str(each["/Dest"]) for each in annotations(reader) if "/Dest" in each}) == len(ids)
    # A line of the contents ends with the page of its heading.
    contents = reader.pages[0].extract_text() + reader.pages[1].extract_text()
    assert re.search(rf"Settings\s+{reader.get_destination_page_number(last) + 1}\b", contents)


def test_the_document_says_what_it_is() -> None:
    reader = read()

    assert reader.metadata is not None
    assert (reader.metadata.title, reader.metadata.subject) == ("Synthetic augmentation", full().answer)
    assert reader.trailer["/Root"]["/Lang"] == "en"


def test_links_lead_to_pages_alone() -> None:
    reader = pdf_of(
        links=[
            Link(label="MLflow", url="https://mlflow.example/#/runs/1"),
            Link(label="Docs", url="docs/index.html"),
            Link(label="Bad", url="javascript:alert(1)"),
        ]
    )

    actions = [each["/A"] for each in annotations(reader) if "/A" in each]
    assert {action["/URI"] for action in actions if "/URI" in action} == {"https://mlflow.example/#/runs/1"}
    assert not any(action["/S"] in ("/JavaScript", "/Launch") for action in actions)


def test_pictures_are_drawn_and_one_that_cannot_be_read_is_named() -> None:
    different = {node.attributes["src"] for node in page_tree(rendered()).all("img")}
    assert len({image.indirect_reference.idnum for page in read().pages for image in page.images}) == len(different)

    told = " ".join(text_of(pdf_of(pairs=[pair("CNN", curves_png=b"no picture")])).split())
    assert "A picture cannot be read: Loss and accuracy by epoch" in told


LONG = ["a" * 3000, "word " * 1500]
ODD = " ".join(MARKUP), "".join(CODES), """&amp; <b> "quotes" [[[].append(1)]] {'a': 1}"""


@pytest.mark.parametrize("text", [*ODD, *LONG])
def test_no_text_is_markup_or_breaks_the_layout(text: str) -> None:
    table = Table(title=text, note=text, columns=[text, "b"], rows=[[text, text]] * 3)
    html = render_report(
        content(
            title=text,
            answer=text,
            classes=[text, "Normal"],
            counts={"train": {text: 3}},
            warnings=[text],
            protocol=[(text, text)],
            tables=[table],
            missing=[Missing(what=text, why=text)],
            links=[Link(label=text, url=f"https://a.example/{text}")],
            settings_yaml=text,
        )
    )

    made, reason = pdf_or_reason(html)

    assert reason == ""
    told = text_of(PdfReader(io.BytesIO(made)))
    assert not {"\x1b", "\x9b", "\u202e"} & set(told)
    if text in (ODD[0], ODD[2]):
        assert dense(told).count(dense(text)) > 10


def test_signs_that_no_font_has_are_marked_and_told_of() -> None:
    set_up_fonts()

    assert marked_up("µ ≥ − → ≈ Ünïcödé Ελλάδα Кириллица a<b") == "µ ≥ − → ≈ Ünïcödé Ελλάδα Кириллица a&lt;b"
    # Hebrew is in the report's own font, and not in that of code.
    assert marked_up("a א", MONO) == f'a <font name="{FONT}">א</font>' and in_mono("a א\n\x1b") == f"a {NO_GLYPH}\n"
    # A noncharacter is in no font.
    assert marked_up("a\ufdd0b") == f"a{NO_GLYPH}b"
    assert "lack some signs" in text_of(pdf_of(settings_yaml="classes: [א]"))
    plain, lacking = (text_of(pdf_of(dataset_name=name)) for name in ("radiographs", "a\ufdd0b"))
    assert "lack some signs" in lacking and "lack some signs" not in plain


def test_a_page_that_cannot_be_laid_out_costs_the_pdf_alone() -> None:
    assert pdf_or_reason("<p>no page</p>") == (
        b"",
        "The report has no PDF: the page has no element main. The HTML report is whole.",
    )
