"""Texts that harm who shows them as they are: a page, a terminal, a template, a line of a log."""

from html.parser import HTMLParser

MARKUP = [
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "<script>alert(1)</script>",
    "'><b onclick=alert(1)>",
]
# A title, colours, the screen cleared, a CSI of one byte, text turned round, and a line that the program did not write.
CODES = ["\x1b]0;title\x07", "\x1b[31mred", "\x1b[2J", "\x9b31m", "\u202etxet", "a\nError: all is lost", "a\rb\x08"]
TEMPLATES = ["{{ 7 * 191 }}", "{% raw %}", "${x}", "[red]x[/]", "[a](javascript:alert(1))"]


class _Parts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs}
        marks = any("alert(1)" in value for value in told.values()) and any(name.startswith("on") for name in told)
        if marks or str(told.get("href", "")).startswith("javascript:"):
            self.found.append(f"<{tag} {told}>")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script" and "alert(1)" in data:
            self.found.append(data)


def run_in_page(html: str) -> list[str]:
    """What of ``MARKUP`` a browser would run."""
    parts = _Parts()
    parts.feed(html)
    parts.close()
    return parts.found


def obeyed(text: str) -> set[str]:
    """The signs of a text that a terminal obeys. Colours of the program itself are not among them."""
    return {
        sign for sign in text if (ord(sign) < 32 and sign not in "\n\t") or 127 <= ord(sign) < 160 or sign == "\u202e"
    }
