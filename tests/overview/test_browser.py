"""The page in a real browser, in a frame like Airflow's: its theme, its ways out, its slider, and what it asks for."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, Response

from cxr_tasks.overview.gathering import PagePart
from cxr_tasks.overview.render import HEADERS, STATIC, render_part, static_file
from cxr_tasks.overview.under_way import AirflowFacts
from tests.browser import HAS_BROWSER, NO_BROWSER, open_browser
from tests.overview.test_render import page_of, under_way_of
from tests.report.test_page_in_browser import BROKEN_RULES, FAINT_TEXTS, OPEN_ALL
from tests.servers import free_port

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not HAS_BROWSER, reason=NO_BROWSER)]
# As Airflow's own pages have it.
FRAME = (
    '<iframe sandbox="allow-scripts allow-same-origin allow-forms allow-downloads" src="{}" width="100%" height="900">'
)


class StandIn:
    """A server with the page, a frame around it, and an API that keeps what it is asked.

    Attributes:
        asked: Method, path and body of each question.
        status: What the API answers with.
        now: What runs now, when the page looks again.
    """

    def __init__(self) -> None:
        self.asked: queue.Queue[tuple[str, str, Any]] = queue.Queue()
        self.status, self.app = 200, FastAPI()
        self.now = under_way_of("x")
        self.app.get("/around")(lambda: HTMLResponse(f"<title>Airflow</title>{FRAME.format('cxr/')}"))
        self.app.get("/cxr/")(lambda: HTMLResponse(page_of("http://127.0.0.1:9/x"), headers=HEADERS))
        self.app.get("/cxr/now")(lambda: HTMLResponse(render_part(PagePart("under_way", self.now)), headers=HEADERS))
        self.app.get("/cxr/static/{name}")(lambda name: Response(static_file(name), media_type=STATIC[name]))
        self.app.get("/cxr/samples/{run}/{name}")(lambda run, name: Response(b"", media_type="image/png"))
        self.app.api_route("/api/{path:path}", methods=["PATCH", "POST"])(self._answer)
        self.app.api_route("/api", methods=["PATCH", "POST"])(self._answer)

    async def _answer(self, request: Request) -> Response:
        assert request.headers["content-type"] == "application/json"
        self.asked.put((request.method, request.url.path, json.loads(await request.body())))
        told = {"dag_run_id": "manual__1"} if self.status == 200 else {"detail": "It was answered before."}
        return Response(json.dumps(told), self.status, media_type="application/json")


@pytest.fixture(scope="module")
def stand_in() -> Iterator[StandIn]:
    stand_in, port = StandIn(), free_port()
    server = uvicorn.Server(uvicorn.Config(stand_in.app, host="127.0.0.1", port=port, log_level="warning"))
    threading.Thread(target=server.run, daemon=True).start()
    deadline = time.monotonic() + 60
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.05)
    stand_in.address = f"http://127.0.0.1:{port}"
    yield stand_in
    server.should_exit = True


@pytest.fixture(scope="module")
def window(stand_in: StandIn) -> Iterator[Any]:
    with open_browser() as browser:
        browser.set_script_timeout(60)
        browser.implicitly_wait(20)
        yield browser


@pytest.fixture
def framed(window: Any, stand_in: StandIn) -> Any:
    """The browser inside the frame."""
    stand_in.status, stand_in.now = 200, under_way_of("http://127.0.0.1:9/x")
    window.get(f"{stand_in.address}/around")
    window.switch_to.frame(window.find_element("tag name", "iframe"))
    window.find_element("id", "data-head")
    return window


def until(holds: Any) -> Any:
    """What ``holds`` gives as soon as that is something."""
    deadline = time.monotonic() + 30
    while not (found := holds()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def background(browser: Any) -> str:
    return browser.execute_script("return getComputedStyle(document.body).backgroundColor")


def test_it_is_light_or_dark_as_airflow_is(framed: Any) -> None:
    framed.switch_to.default_content()
    framed.execute_script("localStorage.setItem('theme', 'dark')")
    framed.switch_to.frame(0)
    dark = until(lambda: background(framed) == "rgb(15, 17, 21)" and background(framed))
    framed.switch_to.default_content()
    framed.execute_script("localStorage.setItem('theme', 'light')")
    framed.switch_to.frame(0)

    assert until(lambda: background(framed) != dark and background(framed)) == "rgb(245, 246, 248)"


def test_links_lead_out_of_the_frame_that_opens_no_windows(framed: Any, stand_in: StandIn) -> None:
    before = set(framed.window_handles)
    framed.find_element("css selector", "#comparison a[data-open=tab]").send_keys("\n")
    (opened,) = until(lambda: set(framed.window_handles) - before)
    framed.find_element("link text", "Run in Airflow").send_keys("\n")
    framed.switch_to.default_content()
    until(lambda: framed.current_url != f"{stand_in.address}/around")

    assert framed.current_url.startswith(f"{stand_in.address}/dags/cxr_training/runs/http%3A%2F%2F127")
    around = framed.current_window_handle
    framed.switch_to.window(opened)
    framed.close()
    framed.switch_to.window(around)


def test_the_slider_shows_each_step_by_keyboard(framed: Any) -> None:
    slider, picture = framed.find_element("id", "step"), framed.find_element("id", "sample")
    assert picture.get_attribute("src").endswith("/step-001200.png")

    slider.send_keys("\ue012")  # to the left

    assert picture.get_attribute("src").endswith("/step-000001.png") and "at step 1:" in picture.get_attribute("alt")
    assert slider.get_attribute("aria-valuetext") == "step 1"
    framed.find_element("id", "play").send_keys("\n")
    until(lambda: picture.get_attribute("src").endswith("/step-001200.png"))
    assert framed.find_element("id", "play").text == "Play"


def test_an_answer_goes_to_airflows_api_and_a_refusal_is_said(framed: Any, stand_in: StandIn) -> None:
    stand_in.status = 409
    # Enter sends no answer: the first button approves.
    framed.find_element("id", "reason-1").send_keys("Looks right\n")
    time.sleep(0.5)
    assert stand_in.asked.empty()
    framed.find_element("css selector", "button[value=Approve]").send_keys("\n")
    said = framed.find_element("css selector", ".question .said")
    refused = until(lambda: "before" in said.text and said.text)
    stand_in.status = 200
    framed.find_element("css selector", "button[value=Decline]").send_keys("\n")
    until(lambda: "is kept" in said.text)

    fields = {"models": ["http://127.0.0.1:9/x"], "reason": "Looks right"}
    assert refused == "It was answered before."
    assert [stand_in.asked.get(timeout=5) for _ in range(2)] == [
        ("PATCH", "/api", {"chosen_options": [option], "params_input": fields}) for option in ("Approve", "Decline")
    ]


def test_a_rollback_needs_a_reason_and_starts_the_dag(framed: Any, stand_in: StandIn) -> None:
    framed.execute_script("for (const each of document.querySelectorAll('details')) each.open = true")
    reason = framed.find_element("css selector", ".rollback input[name=reason]")
    button = framed.find_element("css selector", ".rollback button")
    button.send_keys("\n")
    assert stand_in.asked.empty()

    reason.send_keys("Worse")
    button.send_keys("\n")

    conf = {"model": "http://127.0.0.1:9/x", "version": "1", "reason": "Worse"}
    asked = stand_in.asked.get(timeout=30)
    assert asked == ("POST", "/api/v2/dags/cxr_rollback/dagRuns", {"logical_date": None, "conf": conf})
    link = framed.find_element("css selector", ".rollback .said a")
    assert link.get_attribute("href") == f"{stand_in.address}/dags/cxr_rollback/runs/manual__1"


def test_what_runs_is_looked_at_again_but_not_under_a_persons_hands(framed: Any, stand_in: StandIn) -> None:
    stand_in.now = {"airflow": AirflowFacts(), "work": []}
    look = "return lookAgain(document.getElementById('under-way')).then(() => document.body.innerText)"
    framed.find_element("id", "reason-1").send_keys("I am")
    assert "Nothing runs now" not in framed.execute_script(look)
    framed.execute_script("document.activeElement.blur()")
    # What was typed stays, too, while a person looks elsewhere.
    assert "Nothing runs now" not in framed.execute_script(look)
    framed.find_element("id", "reason-1").clear()
    framed.execute_script("document.activeElement.blur()")

    assert "Nothing runs now" in framed.execute_script(look)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_no_rule_of_accessibility_is_broken(window: Any, stand_in: StandIn, theme: str, width: int) -> None:
    screen = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    window.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    try:
        window.get(f"{stand_in.address}/cxr/")
        window.execute_script(f"localStorage.setItem('theme', '{theme}')")
        window.get(f"{stand_in.address}/cxr/")
        window.find_element("id", "data-head")
        window.execute_script(OPEN_ALL)
        seen, faint = window.execute_script(FAINT_TEXTS)
        broken = {rule: found for rule, found in window.execute_script(BROKEN_RULES).items() if found}
    finally:
        window.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    # The head, the foot and the way past the head stand beside the content.
    assert sorted(broken.pop("outside")) == ["A", "FOOTER", "HEADER"]
    assert broken == {} and seen > 100 and faint == []


def test_nothing_is_wider_than_a_phone_and_nothing_is_refused_by_the_policy(window: Any, stand_in: StandIn) -> None:
    window.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    )
    try:
        window.get(f"{stand_in.address}/cxr/")
        window.find_element("id", "data-head")
        wide = window.execute_script("return document.documentElement.scrollWidth")
    finally:
        window.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    assert wide == 390
    assert [told for told in window.get_log("browser") if "Content Security Policy" in told["message"]] == []
