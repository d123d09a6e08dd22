"""The project's own pages as the tests see them: their headings, links, code and commands."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from markdown.extensions.toc import slugify

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
# The three that stand outside the site; the second comes later than the rest.
BESIDE = [
    REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "infra/README.md", "SECURITY.md", "CHANGELOG.md")
]
PAGES = [*sorted(DOCS.rglob("*.md")), *(page for page in BESIDE if page.exists())]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?<=\n\n)((?: {4}.*\n|\n(?= {4}))+)")
SPAN = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
ELSEWHERE = re.compile(r"[a-z]+:", re.IGNORECASE)


def name(page: Path) -> str:
    """The page as the repository calls it."""
    return page.relative_to(REPOSITORY).as_posix()


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose(page: Path) -> str:
    """The page without its code."""
    return SPAN.sub("", INDENTED.sub("", FENCE.sub("", text(page))))


def fenced(page: Path, language: str) -> list[str]:
    """The blocks of code in a language."""
    return [body for found, body in FENCE.findall(text(page)) if found == language]


def anchors(page: Path) -> set[str]:
    """What the headings are called in an address: by MkDocs in the site, by the forge outside it."""
    headings = [
        re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", h).replace("`", "") for h in HEADING.findall(FENCE.sub("", text(page)))
    ]
    if DOCS in page.parents:
        return {slugify(heading, "-") for heading in headings}
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    """The addresses of the page's links within the repository."""
    return [link for link in LINK.findall(prose(page)) if not ELSEWHERE.match(link)]


def quoted(page: Path) -> Iterator[str]:
    """Every line of code on the page, without its comment."""
    without = FENCE.sub("", text(page))
    blocks = [body for _, body in FENCE.findall(text(page))] + INDENTED.findall(without)
    spans = [" ".join(span.split()) for span in SPAN.findall(INDENTED.sub("", without))]
    for line in (*(line for block in blocks for line in block.splitlines()), *spans):
        yield re.split(r"\s+#", line)[0].strip()


def commands(page: Path, program: str) -> Iterator[list[str]]:
    """The words of each quoted command that calls ``program``, after its name and after variables before it."""
    for line in quoted(page):
        found = re.match(rf"(?:[A-Z_]+=(?:\"[^\"]*\"|\S+) )*(?:\.venv/bin/)?{program} +(.+)", line)
        if found:
            yield shlex.split(found[1])
