"""Markdown that shows names and sentences of people as they are: for model cards, questions and notes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence


def in_markdown(text: str) -> str:
    """``text`` as it is shown by Markdown, in one line: nothing in it is markup."""
    return re.sub(r"([\\`*_{}\[\]<>()#!|~])", r"\\\1", " ".join(text.split()))


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in whose cells nothing is markup."""
    lines = [list(map(in_markdown, head)), ["---"] * len(head), *(list(map(in_markdown, row)) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def markdown_list(told: Sequence[str]) -> str:
    """A list in whose items nothing is markup."""
    return "\n".join(f"- {in_markdown(each)}" for each in told)


def markdown_links(pages: Mapping[str, str]) -> str:
    """A list of links by their names; a page without an address is left out."""
    return "\n".join(f"- [{in_markdown(name)}]({address})" for name, address in pages.items() if address)
