"""The page as HTML: rendered on the server, every text escaped, nothing fetched from elsewhere."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2

from cxr_tasks.arms import ARMS
from cxr_tasks.artifacts import ClaimRow, PairRow
from cxr_tasks.durations import time_taken
from cxr_tasks.overview.gathering import PagePart
from cxr_tasks.overview.registered import KnownModel

log = logging.getLogger(__name__)

HERE = Path(__file__).parent
# What the page brings with it, and what that is.
STATIC = {
    "overview.css": "text/css",
    "overview.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
# The page may load from Airflow alone, and stand in Airflow alone.
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'self'"
)
# Headers of everything that is answered: names of hospitals are not for caches on the way, or for other sites.
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, no-store",
}


def render_parts(parts: Iterable[PagePart]) -> Iterator[str]:
    """The page as it comes, part by part. Once begun it cannot become an error any more: it says that it breaks off."""
    try:
        for part in parts:
            yield render_part(part)
    except Exception:
        log.exception("The page cannot be shown to its end")
        why = "A fault of this page keeps the rest of it from being shown: the log of Airflow's API server says more."
        yield render_part(PagePart("away", {"why": why, "is_fault": True}))
        yield render_part(PagePart("bottom", {}))


def render_part(part: PagePart) -> str:
    """One part of the page."""
    return _templates().get_template(f"{part.name}.html.j2").render(**part.facts, **_scales(part.facts))


def render_refusal(sentence: str) -> str:
    """What somebody sees who may not see the page, or asks for what is not there."""
    return _templates().get_template("refused.html.j2").render(sentence=sentence)


def static_file(name: str) -> bytes | None:
    """What the page brings with it, by its name; ``None`` where it brings no such file."""
    return (HERE / "static" / name).read_bytes() if name in STATIC else None


@cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        when=lambda at: at.strftime("%-d %b %Y, %H:%M UTC"),
        day=_day,
        points=lambda fraction: _signed(100 * fraction),
        minus=_minus_signs,
        sentences=lambda text: re.split(r"(?<=\.) (?=[A-Z0-9“])", text) if text else [],
        percent=lambda value: f"{value:.1f}",
        thousands=lambda number: f"{number:,}",
        took=time_taken,
        part=lambda value: quote(str(value), safe=""),
        meaning=lambda arm: ARMS[arm].meaning if arm in ARMS else arm,
        opens_a_page=lambda url: url.startswith(("http://", "https://")),
    )
    environment.globals["fresh"] = {name: _content_mark(name) for name in STATIC}
    return environment


def _content_mark(name: str) -> str:
    """Tells versions of a static file apart, so that browsers may keep it."""
    return hashlib.sha256(static_file(name) or b"").hexdigest()[:12]


def _day(iso: str) -> str:
    """``2026-03-01T12:30:00+00:00`` as a date; another text as it is."""
    try:
        return datetime.fromisoformat(iso).strftime("%-d %b %Y")
    except ValueError:
        return iso


def _minus_signs(text: str) -> str:
    """Write the signs of numbers as a typographic minus, which is as wide as a plus. Other hyphens stay."""
    return re.sub(r"(?<![\w-])-(?=\d)", "\N{MINUS SIGN}", text)


def _signed(points: float) -> str:
    """``+1.5`` or ``−1.5``; what rounds to nothing has no sign."""
    return re.sub(r"^[+-](0\.0)$", r"\1", f"{points:+.1f}").replace("-", "\N{MINUS SIGN}")


def _scales(facts: Mapping[str, Any]) -> dict[str, float]:
    """Where the axes of intervals begin and end, so that intervals beside each other can be compared."""
    report = facts["found"].report if facts.get("found") else None
    return {
        "widest": _widest([*report.claims, *report.pairs] if report else []),
        "lowest": _lowest(facts.get("models", ())),
    }


def _widest(rows: Sequence[ClaimRow | PairRow]) -> float:
    """The largest distance from no difference that an interval has, and at least one point."""
    return max([0.01, *(max(abs(row.low), abs(row.high)) for row in rows)])


def _lowest(models: Sequence[KnownModel]) -> float:
    """A round percentage below all intervals of champions."""
    lows = [model.champion.test.low for model in models if model.champion and model.champion.test]
    return max(0.0, 10 * (min(lows, default=50.0) // 10))
