"""Fonts and text of the PDF report: every sign in a font that has it, and nothing that is read as markup."""

from __future__ import annotations

import unicodedata
from functools import cache
from pathlib import Path
from xml.sax.saxutils import escape

from reportlab import rl_config
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFError, TTFont

# matplotlib brings these fonts.
FONT, MONO = "DejaVuSans", "DejaVuSansMono"
FACES = (FONT, f"{FONT}-Bold", f"{FONT}-Oblique", f"{FONT}-BoldOblique", MONO)
# Stands for a sign that no font at hand has.
NO_GLYPH = "\N{WHITE VERTICAL RECTANGLE}"


@cache
def set_up_fonts() -> None:
    """Make the fonts known to ReportLab, and let its files hold bytes: text of bytes is larger and slow to write."""
    from matplotlib import get_data_path

    rl_config.useA85 = 0
    for face in FACES:
        pdfmetrics.registerFont(TTFont(face, Path(get_data_path(), "fonts", "ttf", f"{face}.ttf")))
    pdfmetrics.registerFontFamily(FONT, *FACES[:4])
    pdfmetrics.registerFontFamily(MONO, MONO, MONO, MONO, MONO)


def width_of(text: str, size: float, *, bold: bool = False) -> float:
    """How wide a line is, in points."""
    return pdfmetrics.stringWidth(text, FACES[bold], size)


def cleaned(text: str) -> str:
    """``text`` without signs that control a terminal or the direction of writing."""
    return "".join(sign for sign in text if sign in "\n\t" or unicodedata.category(sign) not in ("Cc", "Cf", "Cs"))


def is_plain(text: str) -> bool:
    """Whether the report's own font has every sign of a text."""
    return all(font_of(sign) == FONT for sign in text)


def in_mono(text: str) -> str:
    """``text`` with a mark for each sign that the font of settings and code lacks: it takes none from other fonts."""
    known = pdfmetrics.getFont(MONO).face.charToGlyph
    return "".join(sign if sign.isspace() or ord(sign) in known else NO_GLYPH for sign in cleaned(text))


def marked_up(text: str, base: str = FONT) -> str:
    """``text`` as ReportLab's paragraphs take it: escaped, and with other fonts for signs that ``base`` lacks."""
    runs: list[list[str]] = []
    for sign in cleaned(text):
        font = font_of(sign, base)
        sign = sign if font else NO_GLYPH
        if runs and runs[-1][0] == (font or base):
            runs[-1][1] += sign
        else:
            runs.append([font or base, sign])
    return "".join(escape(run) if font == base else f'<font name="{font}">{escape(run)}</font>' for font, run in runs)


@cache
def font_of(sign: str, base: str = FONT) -> str:
    """The font that draws a sign: ``base``, the report's own, or else one of this machine; '' where none does."""
    for own in (base, FONT):
        if sign.isspace() or ord(sign) in pdfmetrics.getFont(own).face.charToGlyph:
            return own
    return next((name for path, signs in _of_machine() if ord(sign) in signs and (name := _registered(path))), "")


@cache
def _of_machine() -> tuple[tuple[str, frozenset[int]], ...]:
    """The machine's fonts with their signs. They are looked up only where a sign is missing."""
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    found = []
    for path in sorted(font_manager.findSystemFonts()):
        try:
            found.append((path, frozenset(FT2Font(path).get_charmap())))
        except (RuntimeError, OSError):
            # A file that is damaged, or no font.
            continue
    return tuple(found)


@cache
def _registered(path: str) -> str:
    """The name of a machine's font for ReportLab; '' where ReportLab cannot embed its outlines."""
    name = f"machine {Path(path).name}"
    try:
        pdfmetrics.registerFont(TTFont(name, path))
    except (TTFError, OSError, KeyError, ValueError):
        return ""
    return name
