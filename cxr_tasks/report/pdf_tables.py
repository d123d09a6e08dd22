"""The tables of the PDF report: cells placed in a grid, widths that fit the page, and the page's styles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

from reportlab.lib import colors
from reportlab.lib.enums import TA_CENTER, TA_LEFT, TA_RIGHT
from reportlab.lib.styles import ParagraphStyle
from reportlab.platypus import Flowable, Paragraph, Table

from cxr_tasks.report.page_tree import PageNode
from cxr_tasks.report.pdf_text import FACES, FONT, cleaned, is_plain, marked_up, width_of

LINE, RULE, SOFT = colors.HexColor("#dfe3e8"), colors.HexColor("#8d969f"), colors.HexColor("#555d66")
BLUE, RED = colors.HexColor("#005a8f"), colors.HexColor("#a84300")
# From the size that reads best to the smallest that is read at all.
TYPE_SIZES = (8.0, 7.5, 7.0, 6.5, 6.0)
# The head stands on every page of a table. A longer word in it is cut.
LONGEST_HEAD = 160
PAD_X, PAD_Y = 3.0, 2.2
ALIGNED = {TA_LEFT: "LEFT", TA_CENTER: "CENTER", TA_RIGHT: "RIGHT"}


@dataclass
class _Cell:
    """A cell with its place: ``markup`` as paragraphs take it, ``text`` without."""

    node: PageNode
    row: int
    column: int
    rows: int
    columns: int
    markup: str
    text: str
    alignment: int
    bold: bool

    @property
    def lines(self) -> list[str]:
        return [line.strip() for line in self.text.split("\n")]


def table_flowable(table: PageNode, width: float, inline: Callable[[PageNode], str]) -> Flowable:
    """A table of the page as a flowable that breaks over pages and repeats its head.

    Args:
        table: The element.
        width: What the frame gives, in points.
        inline: The content of an element as markup of a paragraph.
    """
    cells, head = _placed(table, inline)
    columns = max((cell.column + cell.columns for cell in cells), default=0)
    rows = max((cell.row + cell.rows for cell in cells), default=0)
    size, widths = _widths(cells, columns, width)
    grid: list[list[Any]] = [[""] * columns for _ in range(rows)]
    for cell in cells:
        inside = sum(widths[cell.column : cell.column + cell.columns]) - 2 * PAD_X
        grid[cell.row][cell.column] = _cell_content(cell, inside, size)
    styles = [
        *_styles_of_all(size, head, rows),
        *(style for cell in cells for style in _styles_of(cell)),
        *_pairs_kept_together(table),
    ]
    return Table(grid, colWidths=widths, repeatRows=head, style=styles, splitInRow=1, hAlign="LEFT")


def _placed(table: PageNode, inline: Callable[[PageNode], str]) -> tuple[list[_Cell], int]:
    """The cells in their places, as HTML places them; and how many rows the head has."""
    cells, taken, row, head = list[_Cell](), set[tuple[int, int]](), 0, 0
    is_matrix = "matrix" in table.classes
    for part in table.elements:
        if part.tag not in ("thead", "tbody"):
            continue
        for line in part.elements:
            column = 0
            for node in line.elements:
                while (row, column) in taken:
                    column += 1
                rows, columns = (int(node.attributes.get(name, "1")) for name in ("rowspan", "colspan"))
                taken |= {(row + i, column + j) for i in range(rows) for j in range(columns)}
                left = column == 0 or node.classes & {"words", "arm", "verdict"}
                alignment = TA_LEFT if left else TA_CENTER if is_matrix or columns > 1 else TA_RIGHT
                text = _line_text(node)
                long = part.tag == "thead" and len(text) > LONGEST_HEAD
                markup = marked_up(text := shorten(text, LONGEST_HEAD, placeholder="…")) if long else inline(node)
                bold = node.tag == "th" or "verdict" in node.classes
                cells.append(_Cell(node, row, column, rows, columns, markup, text, alignment, bold))
                column += columns
            row += 1
        if part.tag == "thead":
            head = row
    return cells, head


def _line_text(node: PageNode) -> str:
    """The text of a cell, a line each."""
    parts = []
    for child in node.children:
        if isinstance(child, str):
            parts.append(" ".join(child.split()) if child.strip() else " ")
        elif child.tag in ("br", "small"):
            parts.append("\n" + child.text())
        else:
            parts.append(f" {child.text()}")
    return cleaned("".join(parts)).strip()


def _widths(cells: Sequence[_Cell], columns: int, width: float) -> tuple[float, list[float]]:
    """The largest size of type at which every word fits, and the widths of the columns."""
    least = most = [0.0] * columns
    for size in TYPE_SIZES:
        least, most = [2 * PAD_X] * columns, [2 * PAD_X] * columns
        for cell in cells:
            if cell.columns > 1:
                continue
            keep = bool(cell.node.classes & {"keep", "arm"})
            words = cell.lines if keep else cell.text.split() or [""]
            longest = max(width_of(word, size, bold=cell.bold) for word in words)
            whole = max(width_of(line, size, bold=cell.bold) for line in cell.lines)
            least[cell.column] = max(least[cell.column], longest + 2 * PAD_X + 1)
            most[cell.column] = max(most[cell.column], whole + 2 * PAD_X + 1)
        if sum(least) <= width:
            break
    spare = width - sum(least)
    if spare < 0:
        # Even the smallest type does not fit: words are broken.
        floor = min(2 * PAD_X + 4 * size, width / columns)
        wish = sum(max(each - floor, 0) for each in least)
        return size, [floor + (width - columns * floor) * max(each - floor, 0) / wish for each in least]
    wanted = [high - low for low, high in zip(least, most, strict=True)]
    if sum(wanted) > spare:
        return size, [low + spare * want / sum(wanted) for low, want in zip(least, wanted, strict=True)]
    return size, [each * width / sum(most) for each in most]


def _cell_content(cell: _Cell, width: float, size: float) -> Any:
    """A plain line where it is one, since such lines are drawn much faster, or else a paragraph."""
    plain = not list(cell.node.all("strong", "a", "code", "small", "br")) and "\n" not in cell.text
    if plain and is_plain(cell.text) and width_of(cell.text, size, bold=cell.bold) <= width:
        return cell.text
    colour = BLUE if "helps" in cell.node.classes else RED if "hurts" in cell.node.classes else None
    style = ParagraphStyle(
        "cell",
        fontName=FACES[cell.bold],
        fontSize=size,
        leading=size * 1.3,
        alignment=cell.alignment,
        textColor=colour or (SOFT if _is_head(cell) else colors.black),
        splitLongWords=1,
    )
    return Paragraph(cell.markup, style)


def _is_head(cell: _Cell) -> bool:
    return cell.node.attributes.get("scope") in ("col", "colgroup") or cell.columns > 1


def _styles_of_all(size: float, head: int, rows: int) -> list[tuple[Any, ...]]:
    """What all cells have."""
    return [
        ("FONT", (0, 0), (-1, -1), FONT, size, size * 1.3),
        ("LEFTPADDING", (0, 0), (-1, -1), PAD_X),
        ("RIGHTPADDING", (0, 0), (-1, -1), PAD_X),
        ("TOPPADDING", (0, 0), (-1, -1), PAD_Y),
        ("BOTTOMPADDING", (0, 0), (-1, -1), PAD_Y),
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LINEBELOW", (0, 0), (-1, -1), 0.4, LINE),
        *(
            [("LINEBELOW", (0, head - 1), (-1, head - 1), 0.8, RULE), ("VALIGN", (0, 0), (-1, head - 1), "BOTTOM")]
            if head
            else []
        ),
    ]


def _styles_of(cell: _Cell) -> list[tuple[Any, ...]]:
    """What one cell has."""
    first, last = (cell.column, cell.row), (cell.column + cell.columns - 1, cell.row + cell.rows - 1)
    styles: list[tuple[Any, ...]] = [("ALIGN", first, last, ALIGNED[cell.alignment])]
    if first != last:
        styles.append(("SPAN", first, last))
    if cell.bold:
        styles.append(("FACE", first, last, FACES[1]))
    if _is_head(cell):
        styles.append(("TEXTCOLOR", first, last, SOFT))
    for name, colour in (("helps", BLUE), ("hurts", RED)):
        if name in cell.node.classes:
            styles.append(("TEXTCOLOR", first, last, colour))
    shade = next((int(name[1:]) for name in cell.node.classes if name[0] == "h" and name[1:].isdigit()), 0)
    if shade:
        # The page lays the blue over white with so much opacity.
        opacity = 0.045 * shade
        mixed = (1 - opacity * (1 - part) for part in (BLUE.red, BLUE.green, BLUE.blue))
        styles.append(("BACKGROUND", first, last, colors.Color(*mixed)))
    return styles


def _pairs_kept_together(table: PageNode) -> list[tuple[Any, ...]]:
    """The rows of a pair stay on one page."""
    styles, row = [], 0
    for part in table.elements:
        rows = len([line for line in part.elements if line.tag == "tr"])
        if "pair" in part.classes:
            styles.append(("NOSPLIT", (0, row), (-1, row + rows - 1)))
        row += rows if part.tag in ("thead", "tbody") else 0
    return styles
