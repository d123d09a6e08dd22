"""The report's page as a tree, for those who lay its content out in another form."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

# Elements of the page that have no end tag.
VOID = frozenset({"meta", "img", "br"})


@dataclass
class PageNode:
    """An element of the page.

    Attributes:
        tag: Its name, such as ``td``.
        attributes: By name; those without a value have the value ''.
        children: Elements and texts, in their order.
    """

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[PageNode | str] = field(default_factory=list)

    @property
    def classes(self) -> set[str]:
        """The words of the attribute ``class``."""
        return set(self.attributes.get("class", "").split())

    @property
    def elements(self) -> list[PageNode]:
        """The children without the texts."""
        return [child for child in self.children if isinstance(child, PageNode)]

    def all(self, *tags: str) -> Iterator[PageNode]:
        """The elements within that have one of these names, in the page's order."""
        for child in self.elements:
            if child.tag in tags:
                yield child
            yield from child.all(*tags)

    def text(self) -> str:
        """All text within, with blanks as a browser shows them."""
        parts = (child if isinstance(child, str) else f"{child.text()} " for child in self.children)
        return re.sub(r"\s+", " ", "".join(parts)).strip()


class _Builder(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = PageNode("")
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = PageNode(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_endtag(self, tag: str) -> None:
        if self.open.pop().tag != tag:
            raise ValueError(f"the page closes {tag}, which is not the element that is open")

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def page_tree(html: str) -> PageNode:
    """The element ``main`` of the report's page.

    Raises:
        ValueError: An element is closed that is not open, or there is no ``main``.
    """
    builder = _Builder()
    builder.feed(html)
    builder.close()
    for node in builder.root.all("main"):
        return node
    raise ValueError("the page has no element main")
