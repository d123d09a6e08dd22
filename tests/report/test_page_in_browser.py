"""The report's page in a real browser: everyone can read it, on every screen, with and without its script."""

import base64
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pypdf import PdfReader

from cxr_tasks.report.render import Table, render_report
from tests.browser import HAS_BROWSER, NO_BROWSER, open_browser
from tests.report.test_render import THRESHOLDS, claim, full, pair, picture

pytestmark = pytest.mark.skipif(not HAS_BROWSER, reason=NO_BROWSER)

CELLS = ["2.5", "–", "-5.1", "1,024", "< 0.001", "none", "±6.1 (-3 to 4)"]
ASCENDING = ["−5.1", "< 0.001", "2.5", "±6.1 (−3 to 4)", "1,024", "none", "–"]
WIDE = Table(
    title="Wide",
    note="Many columns.",
    columns=["Row", *(f"A long title of column {n}" for n in range(12))],
    rows=[[f"row {n}", cell, *["12.3 (4.5 to 6.7)"] * 11] for n, cell in enumerate(CELLS)],
)

# The rules of WCAG that axe-core checks too. Each gives the elements that break it.
BROKEN_RULES = """
const shown = (e) => e.checkVisibility({ visibilityProperty: true }) && e.getClientRects().length;
const all = (selector) => [...document.querySelectorAll(selector)];
const named = (e) => (e.getAttribute("aria-label") || e.textContent).trim();
const levels = all("h1, h2, h3, h4").map((e) => +e.tagName[1]);
const ids = all("[id]").map((e) => e.id);
return {
  language: document.documentElement.lang ? [] : ["html"],
  title: document.title ? [] : ["title"],
  landmarks: all("main").length === 1 && all("nav").every(named) ? [] : ["main, nav"],
  outside: [...document.body.children].filter((e) => !["MAIN", "SCRIPT"].includes(e.tagName)).map((e) => e.tagName),
  headings: levels.filter((level, i) => i === 0 ? level !== 1 : level > levels[i - 1] + 1),
  pictures: all("img").filter((e) => !e.alt).length,
  headers: all("th").filter((e) => !e.scope || !named(e)).map((e) => e.outerHTML),
  headless: all("table").filter((e) => !e.querySelector("th")).length,
  unnamed: all("a, button, summary, [role=group]").filter((e) => !named(e)).map((e) => e.outerHTML),
  double: ids.filter((id, i) => ids.indexOf(id) !== i),
  broken: all('a[href^="#"]').filter((e) => !document.getElementById(e.hash.slice(1))).map((e) => e.hash),
  unreachable: all("*").filter((e) => shown(e) && e.scrollWidth > e.clientWidth + 1
    && ["auto", "scroll"].includes(getComputedStyle(e).overflowX)
    && e.tabIndex < 0 && !e.querySelector("a, button")).map((e) => e.outerHTML.slice(0, 200)),
  tiny: all("summary, nav a, th button").filter((e) => shown(e) && e.getBoundingClientRect().height < 24)
    .map((e) => e.outerHTML.slice(0, 100)),
};
"""
# Contrast of every text with what is painted behind it.
FAINT_TEXTS = """
const rgba = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return [n[0], n[1], n[2], n[3] ?? 1]; };
const over = (a, b) => [0, 1, 2].map((i) => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
const light = (c) => {
  const [r, g, b] = c.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (e) => {
  const layers = [];
  for (; e; e = e.parentElement) layers.push(rgba(getComputedStyle(e).backgroundColor));
  return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255, 1]);
};
const faint = [];
let seen = 0;
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const e = walker.currentNode.parentElement;
  if (!walker.currentNode.textContent.trim() || !e.checkVisibility() || e.tagName === "SCRIPT") continue;
  seen += 1;
  const style = getComputedStyle(e), back = behind(e), front = over(rgba(style.color), back);
  const [a, b] = [light(front), light(back)].sort((x, y) => y - x);
  const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && +style.fontWeight >= 700);
  const contrast = (a + 0.05) / (b + 0.05);
  if (contrast < (large ? 3 : 4.5)) faint.push([walker.currentNode.textContent.trim(), style.color, back]);
}
return [seen, faint];
"""
OPEN_ALL = "document.querySelectorAll('details').forEach((each) => (each.open = true));"
FIRST_CELLS = """
const table = [...document.querySelectorAll("table")].find((each) => each.textContent.includes(arguments[0]));
return [...table.querySelectorAll("tbody tr")].map((row) => row.cells[arguments[1]].textContent);
"""


PAIRS = """
const pairs = [...document.querySelectorAll("tbody.pair")].slice(0, 3);
return pairs.map((pair) => [pair.rows.length, pair.rows[0].cells[0].innerText]);
"""
ARE_OPEN = """
return [...new Set([...document.querySelectorAll("section details")].map((each) => each.open))];
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page of a report that has every part."""
    several = [pair(name, thresholds=THRESHOLDS, curves_png=picture()) for name in ("VGG16", "CNN", "ResNet50")]
    claims = [claim("VGG16", "helps"), claim("CNN", "hurts"), claim("ResNet50")]
    given = full()
    more = {"pairs": several, "claims": claims, "tables": [*given.tables, WIDE]}
    folder = tmp_path_factory.mktemp("page")
    (folder / "report.html").write_text(render_report(given.model_copy(update=more)), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as opened:
        yield opened


@pytest.fixture
def show(browser: Any, place: Path) -> Any:
    """Opens the page on a screen of that width, in the light or in the dark, with all details open."""

    def shown(width: int = 1400, scheme: str = "light", *, details: bool = True) -> Any:
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
        screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        browser.get((place / "report.html").as_uri())
        if details:
            browser.execute_script(OPEN_ALL)
        return browser

    return shown


def test_no_rule_of_accessibility_is_broken(show: Any) -> None:
    page = show()
    time.sleep(0.2)

    assert {rule: found for rule, found in page.execute_script(BROKEN_RULES).items() if found} == {}
    assert [entry["message"] for entry in page.get_log("browser")] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_what_is_behind_it(show: Any, scheme: str) -> None:
    page = show(scheme=scheme)

    seen, faint = page.execute_script(FAINT_TEXTS)
    assert seen > 500 and faint == []
    back = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (back == "rgb(255, 255, 255)") == (scheme == "light")


@pytest.mark.parametrize("width", [320, 390, 768])
def test_the_page_is_no_wider_than_the_screen_and_wide_tables_scroll_in_their_box(show: Any, width: int) -> None:
    page = show(width)

    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    boxes = page.execute_script(
        "return [...document.querySelectorAll('.scroll')].map((e) => [e.scrollWidth, e.clientWidth])"
    )
    assert any(inside > seen for inside, seen in boxes)
    time.sleep(0.2)
    assert page.execute_script(BROKEN_RULES)["unreachable"] == []


def test_a_table_is_sorted_by_the_keyboard_and_goes_back_to_its_order(show: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    page = show()
    before = page.execute_script(FIRST_CELLS, "A long title", 1)
    button = page.find_element("xpath", "//th[contains(., 'title of column 0')]/button")
    header = button.find_element("xpath", "..")

    states = []
    for _ in range(3):
        button.send_keys(Keys.ENTER)
        states.append((header.get_attribute("aria-sort"), page.execute_script(FIRST_CELLS, "A long title", 1)))

    assert states == [("ascending", ASCENDING), ("descending", [*ASCENDING[-2::-1], "–"]), (None, before)]
    assert page.switch_to.active_element == button


def test_the_two_rows_of_a_pair_stay_together(show: Any) -> None:
    page = show()
    page.find_element("xpath", "//th[starts-with(normalize-space(), 'Pair')]/button").click()

    assert page.execute_script(PAIRS) == [[2, "CNN"], [2, "ResNet50"], [2, "VGG16"]]
    assert page.execute_script("return document.querySelectorAll('th[data-fixed] button').length") == 0


def test_the_keyboard_reaches_the_contents_and_the_place_where_it_is_shows(show: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    page = show()
    link = page.find_element("css selector", 'nav a[href="#settings"]')
    link.send_keys(Keys.NULL)
    page.execute_script("arguments[0].focus({ focusVisible: true })", link)

    assert page.execute_script("return getComputedStyle(arguments[0]).outlineStyle", link) == "solid"
    link.send_keys(Keys.ENTER)
    assert page.current_url.endswith("#settings")


def test_data_are_downloaded_from_a_copy_of_the_page_alone(show: Any, tmp_path: Path) -> None:
    page = show()
    behaviour = {"behavior": "allow", "downloadPath": str(tmp_path)}
    page.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)

    page.execute_script("document.querySelector('a[download=\"claims.csv\"]').click()")

    deadline = time.monotonic() + 20
    while not (tmp_path / "claims.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert (tmp_path / "claims.csv").read_text("utf-8").startswith("network,arm,against")


def test_all_details_open_and_close_at_once(show: Any) -> None:
    page = show(details=False)
    button = page.find_element("css selector", "nav button")

    button.click()
    assert page.execute_script(ARE_OPEN) == [True] and button.text == "Close all details"
    button.click()
    assert page.execute_script(ARE_OPEN) == [False]


def test_closed_details_are_printed_too(show: Any) -> None:
    page = show(details=False)
    page.execute_script("document.querySelectorAll('details').forEach((each) => (each.open = false))")

    printed = page.execute_cdp_cmd("Page.printToPDF", {"printBackground": False})

    text = " ".join(each.extract_text() for each in PdfReader(io.BytesIO(base64.b64decode(printed["data"]))).pages)
    assert "Confusion matrices" in text and "seed: 0" in text and "Open all details" not in text


def test_the_page_is_whole_without_its_script(show: Any, browser: Any) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        page = show(details=False)
        assert page.find_elements("css selector", "th button, nav button") == []
        assert "Contents" in page.find_element("css selector", "nav").text
        summary = page.find_element("css selector", "#settings ~ details summary")
        summary.click()
        assert "seed: 0" in page.find_element("css selector", "pre").text
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
