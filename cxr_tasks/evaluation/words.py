"""Names of classes as a plot can draw them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path


@cache
def _glyphs() -> frozenset[int]:
    """The characters that matplotlib's own font has, as code points."""
    from matplotlib import get_data_path
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))).get_charmap())


def drawable(names: Sequence[str]) -> list[str]:
    """Each name as a plot can draw it: with no signs of mathematics, and as its number where letters are missing.

    matplotlib brings one font. A name in another script would be a row of empty boxes, so the plot shows
    ``class 2``: the number of the class in the order of the settings and of the report's tables.
    """
    shown = []
    for number, name in enumerate(names, start=1):
        has_all = all(ord(sign) in _glyphs() for sign in name)
        shown.append(name.replace("$", r"\$") if has_all else f"class {number}")
    return shown
