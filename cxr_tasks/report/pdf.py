"""The report as a PDF: the content of its page, laid out on paper.

The page says everything once. This module reads the page and lays out what stands there, so that both say the same.
ReportLab is pure Python, and so there wherever the step runs.
"""

from __future__ import annotations

import base64
import io
import logging
import re
from collections.abc import Iterator
from textwrap import shorten
from typing import Any
from xml.sax.saxutils import quoteattr

from PIL import Image as Pictures
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.platypus import (
    BaseDocTemplate,
    Flowable,
    Frame,
    Image,
    PageTemplate,
    Paragraph,
    Preformatted,
    Spacer,
    Table,
)

from cxr_tasks.errors import in_one_line
from cxr_tasks.report.page_tree import PageNode, page_tree
from cxr_tasks.report.pdf_tables import SOFT, table_flowable
from cxr_tasks.report.pdf_text import FACES, FONT, MONO, NO_GLYPH, cleaned, in_mono, marked_up, set_up_fonts

log = logging.getLogger(__name__)

MARGIN = 16 * mm
FRAME_WIDTH, FRAME_HEIGHT = A4[0] - 2 * MARGIN, A4[1] - 2 * MARGIN - 8 * mm
LINK = "#005a8f"
ALARM = colors.HexColor("#b00020")
# A line of settings that is longer goes on in the next line.
MONO_SIZE, MONO_COLUMNS = 7.0, 118
JPEG_QUALITY = 90
LONGEST_TITLE = 100
# The share of the page's width that a picture takes at most.
PICTURE = 0.85
CONTAINERS = frozenset({"main", "div", "section", "header", "details", "figure"})
PARAGRAPHS = frozenset({"h1", "h2", "h3", "h4", "summary", "p", "figcaption", "caption"})
NO_GLYPH_NOTE = (
    f"The fonts at hand lack some signs of this report. {NO_GLYPH} stands in their place here. "
    "The HTML report shows them."
)


def _style(name: str, size: float, **more: Any) -> ParagraphStyle:
    values = {"fontName": FONT, "fontSize": size, "leading": size * 1.45, "spaceAfter": size * 0.5, "splitLongWords": 1}
    return ParagraphStyle(name, **(values | more))


STYLES = {
    "h1": _style("h1", 10.5, fontName=FACES[1], textColor=SOFT),
    "answer": _style("answer", 14, fontName=FACES[1], leading=19, spaceBefore=6, spaceAfter=9),
    "h2": _style("h2", 13, fontName=FACES[1], spaceBefore=20, keepWithNext=1),
    "h3": _style("h3", 10.5, fontName=FACES[1], spaceBefore=13, keepWithNext=1),
    "h4": _style("h4", 9, fontName=FACES[1], spaceBefore=9, keepWithNext=1),
    "p": _style("p", 9),
    "li": _style("li", 9, leftIndent=11, bulletIndent=2, spaceAfter=2.5, bulletFontName=FONT),
    "note": _style("note", 7.8, textColor=SOFT),
    "term": _style("term", 8.2, textColor=SOFT, spaceAfter=0),
    "value": _style("value", 8.2, spaceAfter=0),
    "pre": _style("pre", MONO_SIZE, fontName=MONO, leading=MONO_SIZE * 1.35),
}


def render_pdf(html: str) -> bytes:
    """The report's page as a PDF.

    Args:
        html: What ``render_report`` made.
    """
    set_up_fonts()
    page = page_tree(html)
    title = next((node.text() for node in page.all("h1")), "")
    answer = next((node.text() for node in page.all("p") if "answer" in node.classes), "")
    stream = io.BytesIO()
    document = _Document(stream, cleaned(title), cleaned(answer))
    document.build(_Layout(page).story())
    return stream.getvalue()


def pdf_or_reason(html: str) -> tuple[bytes, str]:
    """The PDF of a page, or a sentence on why there is none: a report is worth more than its PDF."""
    try:
        return render_pdf(html), ""
    except Exception as error:
        log.exception("the PDF of the report could not be laid out")
        return b"", f"The report has no PDF: {in_one_line(error)}. The HTML report is whole."


def _one_line(node: PageNode) -> str:
    """A heading as one line of the contents and of the outline."""
    return shorten(cleaned(node.text()), LONGEST_TITLE, placeholder="…")


class _Document(BaseDocTemplate):
    """Pages with a line at the foot, and an outline of the headings that were laid out."""

    def __init__(self, stream: io.BytesIO, title: str, answer: str) -> None:
        super().__init__(
            stream,
            pagesize=A4,
            leftMargin=MARGIN,
            rightMargin=MARGIN,
            topMargin=MARGIN,
            bottomMargin=MARGIN + 8 * mm,
            title=title,
            subject=answer,
            creator="cxr",
            lang="en",
            displayDocTitle=True,
        )
        frame = Frame(MARGIN, MARGIN + 8 * mm, FRAME_WIDTH, FRAME_HEIGHT, 0, 0, 0, 0)
        self.addPageTemplates(PageTemplate(frames=[frame], onPage=self._foot))
        self.pages_of: dict[str, int] = {}

    def _foot(self, canvas: Any, _: BaseDocTemplate) -> None:
        canvas.saveState()
        canvas.setFont(FONT, 7)
        canvas.setFillColor(SOFT)
        canvas.drawString(MARGIN, MARGIN, self.title)
        canvas.drawRightString(A4[0] - MARGIN - 15, MARGIN, f"Page {canvas.getPageNumber()} of")
        canvas.translate(A4[0] - MARGIN - 13, MARGIN)
        canvas.doForm("pages")
        canvas.restoreState()
        if canvas.getPageNumber() == 1:
            canvas.showOutline()

    def afterFlowable(self, flowable: Flowable) -> None:
        """Enter a heading in the outline, and remember its page."""
        if isinstance(flowable, _Heading) and flowable.anchor not in self.pages_of:
            self.pages_of[flowable.anchor] = self.canv.getPageNumber()
            self.canv.bookmarkHorizontal(flowable.anchor, 0, self.frame._y + flowable.height + 4)
            self.canv.addOutlineEntry(flowable.title, flowable.anchor, flowable.level, closed=flowable.level == 0)


class _Heading(Paragraph):
    """A heading that the contents and the outline name."""

    anchor, title, level = "", "", 0

    def told_as(self, anchor: str, title: str, level: int) -> _Heading:
        self.anchor, self.title, self.level = anchor, title, level
        return self

    def split(self, width: float, height: float) -> list[Flowable]:
        """The parts of a heading that does not fit on a page; the first stands for it."""
        return [part.told_as(self.anchor, self.title, self.level) for part in super().split(width, height)]


class _Numbers(Flowable):
    """Stands at the end, where every page is known, and draws the numbers that stand before it."""

    def __init__(self, anchors: list[str]) -> None:
        super().__init__()
        self.anchors = anchors

    def wrap(self, *_: float) -> tuple[float, float]:
        return 0, 0

    def draw(self) -> None:
        document = self.canv._doctemplate
        numbers = {f"page-{key}": document.pages_of[key] for key in self.anchors}
        for form, number in {**numbers, "pages": self.canv.getPageNumber()}.items():
            self.canv.beginForm(form, -40, -4, 40, 12)
            self.canv.setFillColor(SOFT)
            self.canv.setFont(FONT, 7 if form == "pages" else 8.5)
            draw = self.canv.drawString if form == "pages" else self.canv.drawRightString
            draw(0, 0, str(number))
            self.canv.endForm()


class _ContentsLine(Flowable):
    """A title of the contents, with a link to it and its page."""

    def __init__(self, anchor: str, markup: str, indent: float) -> None:
        super().__init__()
        self.key, self.indent = anchor, indent
        self.line = Paragraph(
            f'<a href={quoteattr("#" + anchor)} color="{LINK}">{markup}</a>', _style("contents", 8.5, spaceAfter=0)
        )

    def wrap(self, width: float, height: float) -> tuple[float, float]:
        self.width, self.height = width, self.line.wrap(width - self.indent - 40, height)[1] + 1.5
        return self.width, self.height

    def draw(self) -> None:
        self.line.drawOn(self.canv, self.indent, 1.5)
        self.canv.saveState()
        self.canv.translate(self.width, 4)
        self.canv.doForm(f"page-{self.key}")
        self.canv.restoreState()


class _Layout:
    """Turns the elements of a page into flowables, in their order."""

    def __init__(self, page: PageNode) -> None:
        self.page = page
        headings = (node for node in page.all("h2", "h3") if "id" in node.attributes)
        self.anchors = {node.attributes["id"]: node for node in headings}
        self.others = {
            "nav": self._contents,
            "ul": self._points,
            "dl": self._terms,
            "img": self._picture,
            "pre": self._settings,
        }

    def story(self) -> list[Flowable]:
        found = list(self._laid_out(self.page))
        texts = [str(getattr(each, "text", "")) for each in found]
        texts += [str(line) for each in found for line in getattr(each, "lines", ())]
        if any(NO_GLYPH in text for text in (*texts, marked_up(self.page.text()))):
            found.insert(2, Paragraph(NO_GLYPH_NOTE, STYLES["note"]))
        return [*found, _Numbers(list(self.anchors))]

    def _laid_out(self, node: PageNode, *, alarm: bool = False) -> Iterator[Flowable]:
        for child in node.elements:
            red = alarm or "leak" in child.classes
            if child.tag in CONTAINERS:
                yield from self._laid_out(child, alarm=red)
            elif child.tag in PARAGRAPHS:
                yield self._paragraph(child, red)
            elif child.tag == "table":
                yield from (self._paragraph(each, red) for each in child.elements if each.tag == "caption")
                yield table_flowable(child, FRAME_WIDTH, self.inline)
                yield Spacer(0, 6)
            elif child.tag in self.others:
                yield from self.others[child.tag](child)

    def _paragraph(self, node: PageNode, alarm: bool) -> Flowable:
        small = node.tag in ("figcaption", "caption") or node.classes & {"note", "data", "when"}
        name = "note" if small else "answer" if "answer" in node.classes else node.tag
        style = STYLES["h4" if node.tag == "summary" else name]
        if alarm:
            style = ParagraphStyle("alarm", parent=style, textColor=ALARM)
        if node.tag == "caption":
            style = ParagraphStyle("caption", parent=style, keepWithNext=1)
        if (anchor := node.attributes.get("id", "")) not in self.anchors:
            return Paragraph(self.inline(node), style)
        heading = _Heading(self.inline(node), style)
        return heading.told_as(anchor, _one_line(node), {"h2": 0, "h3": 1}[node.tag])

    def _points(self, node: PageNode) -> Iterator[Flowable]:
        for item in node.elements:
            yield Paragraph(self.inline(item), STYLES["li"], bulletText="•")
        yield Spacer(0, 4)

    def _settings(self, node: PageNode) -> Iterator[Flowable]:
        text = "".join(child for child in node.children if isinstance(child, str))
        yield Preformatted(in_mono(text), STYLES["pre"], maxLineLength=MONO_COLUMNS)

    def _contents(self, _: PageNode) -> Iterator[Flowable]:
        yield Paragraph("Contents", STYLES["h4"])
        for anchor, node in self.anchors.items():
            yield _ContentsLine(anchor, marked_up(_one_line(node)), 12 if node.tag == "h3" else 0)

    def _terms(self, node: PageNode) -> Iterator[Flowable]:
        cells = [
            Paragraph(self.inline(each), STYLES["term" if each.tag == "dt" else "value"]) for each in node.elements
        ]
        rows = list(zip(cells[::2], cells[1::2], strict=True))
        styles = [("VALIGN", (0, 0), (-1, -1), "TOP"), ("LEFTPADDING", (0, 0), (-1, -1), 0)]
        yield Table(rows, colWidths=[0.24 * FRAME_WIDTH, 0.76 * FRAME_WIDTH], style=styles, splitInRow=1, hAlign="LEFT")

    def _picture(self, node: PageNode) -> Iterator[Flowable]:
        """A picture as large as the page's width allows; JPEG, which ReportLab takes as it is."""
        try:
            with Pictures.open(io.BytesIO(base64.b64decode(node.attributes["src"].partition("base64,")[2]))) as given:
                picture = Pictures.new("RGB", given.size, "white")
                picture.paste(given, mask=given.getchannel("A") if given.mode == "RGBA" else None)
        except OSError:
            yield Paragraph(marked_up(f"A picture cannot be read: {node.attributes['alt']}."), STYLES["note"])
            return
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=JPEG_QUALITY, subsampling=0)
        wide, high = picture.size
        # The plots are drawn with 150 dots an inch.
        scale = min(72 / 150, PICTURE * FRAME_WIDTH / wide, 0.92 * FRAME_HEIGHT / high)
        stream.seek(0)
        yield Image(stream, wide * scale, high * scale, hAlign="CENTER")

    def inline(self, node: PageNode) -> str:
        """The content of an element as markup of ReportLab's paragraphs. Every text is escaped."""
        parts = []
        for child in node.children:
            if isinstance(child, str):
                parts.append(marked_up(re.sub(r"\s+", " ", child)))
            elif child.tag == "br":
                parts.append("<br/>")
            elif child.tag == "strong":
                parts.append(f"<b>{self.inline(child)}</b>")
            elif child.tag == "small":
                parts.append(f"<br/>{self.inline(child)}")
            elif child.tag == "code":
                parts.append(f'<font name="{MONO}">{marked_up(child.text(), MONO)}</font>')
            elif child.tag == "a" and self._leads(target := child.attributes.get("href", "")):
                parts.append(f'<a href={quoteattr(target)} color="{LINK}">{self.inline(child)}</a>')
            else:
                parts.append(self.inline(child))
        return "".join(parts).strip() if node.tag in ("th", "td", "li", "p") else "".join(parts)

    def _leads(self, target: str) -> bool:
        """Whether a link leads to a page elsewhere, or to a place in the document that is there."""
        return target.startswith(("http://", "https://")) or target[1:] in self.anchors
