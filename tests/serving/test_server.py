"""The server over real HTTP: hostile calls, many callers, and a champion that changes while they are answered."""

import base64
import json
import struct
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import mlflow
import numpy as np
import pytest
import uvicorn
from PIL import Image

from cxr_tasks import tracking
from cxr_tasks.data.decode import decode
from cxr_tasks.serving.call_metrics import CallMetrics
from cxr_tasks.serving.current_model import CurrentModel
from cxr_tasks.serving.guard import CallLimits
from cxr_tasks.serving.heat import pictures_of
from cxr_tasks.serving.predictor import Predictor
from cxr_tasks.serving.server import build_server
from cxr_tasks.steps.served_facts import log_trained
from tests.browser import HAS_BROWSER, NO_BROWSER, open_browser
from tests.serving.networks import CLASSES, small_network, write_model

pytestmark = pytest.mark.slow
TOKEN = "token of the tests"
KNOWN = {"authorization": f"Bearer {TOKEN}"}


def until(is_so: Callable[[], Any], what: str, seconds: float = 120) -> None:
    """Wait until ``is_so`` says so; a test that waits in vain fails and says for what."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.01)


class RunningServer:
    """A server on loopback in a thread."""

    def __init__(self, current: CurrentModel, limits: CallLimits | None = None, token: str = "") -> None:
        self.metrics = CallMetrics()
        self.guard = build_server(current, limits or CallLimits(), token, self.metrics)
        config = uvicorn.Config(self.guard, port=0, log_level="error", access_log=False)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        until(lambda: self.server.started, "the server begins")
        address = f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}"
        # One for all threads: to make one takes longer than a call.
        self.client = httpx.Client(base_url=address, timeout=300, limits=httpx.Limits(max_connections=None))

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.client.get(path, headers=headers)

    def post(self, content: Any, path: str = "/image", **headers: str) -> httpx.Response:
        return self.client.post(path, content=content, headers=headers)

    def invoke(self, images: list[str]) -> httpx.Response:
        return self.client.post("/invocations", json={"inputs": images})

    def close(self) -> None:
        self.client.close()
        self.server.should_exit = True
        self.thread.join(30)


@pytest.fixture(scope="module")
def versions(mlflow_server: str, model_folder: Path, xrays: list[Path], tmp_path_factory: Any) -> Iterator[Any]:
    """Three versions of a model: two with facts, the first of them champion, and a bare network as 0.1.0 registered."""
    thumbnails = np.stack([decode(path.read_bytes(), path.name, []).thumbnail for path in xrays])
    other = write_model(tmp_path_factory.mktemp("other"), thumbnails, seed=1)
    name = f"cxr-{uuid.uuid4().hex}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
        experiment = tracking.experiment_id("models of the server")
        for folder in (model_folder, other):
            with mlflow.start_run(experiment_id=experiment):
                tracking.register(log_trained(folder, folder), name, {})
        with mlflow.start_run(experiment_id=experiment):
            bare = mlflow.tensorflow.log_model(small_network(2), name="model", pip_requirements=["keras"])
        tracking.register(bare.model_uri, name, {"cxr.classes": "|".join(CLASSES)})
        tracking.set_alias(name, "champion", "1")
        offline = {"1": Predictor.load(model_folder, name, "1"), "2": Predictor.load(other, name, "2")}
        yield SimpleNamespace(name=name, offline=offline)


@pytest.fixture(scope="module")
def current(versions: Any) -> CurrentModel:
    found = CurrentModel(f"{versions.name}@champion")
    assert found.refresh(), found.fault
    return found


@pytest.fixture(scope="module")
def server(current: CurrentModel) -> Iterator[RunningServer]:
    running = RunningServer(current)
    yield running
    running.close()


def equal(told: dict[str, Any], expected: Any) -> bool:
    """Whether two answers are the same; probabilities to the fifth digit, since batches differ in the last."""
    other = expected.model_dump(mode="json")
    close = np.allclose(list(told["probabilities"].values()), list(other["probabilities"].values()), atol=1e-5)
    return close and {**told, "probabilities": None} == {**other, "probabilities": None}


def picture(width: int, height: int, **options: Any) -> bytes:
    ramp = np.add.outer(np.arange(height) % 251, np.arange(width) % 241).astype(np.uint8)
    stream = BytesIO()
    Image.fromarray(ramp).save(stream, **options)
    return stream.getvalue()


def bomb() -> bytes:
    """A PNG of a few kilobytes that says it has 3,600 million pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")


def test_a_hundred_images_in_one_call_are_those_of_the_offline_prediction(
    server: RunningServer, versions: Any, xrays: list[Path]
) -> None:
    contents = [path.read_bytes() for path in xrays[:100]]

    answer = server.invoke([base64.b64encode(content).decode() for content in contents])

    expected = versions.offline["1"].predict(contents)
    assert answer.status_code == 200 and len(expected) == len(contents) == 100
    assert all(equal(told, each) for told, each in zip(answer.json()["predictions"], expected, strict=True))


def test_what_is_no_image_costs_its_own_answer_alone(server: RunningServer, versions: Any, xrays: list[Path]) -> None:
    good = base64.b64encode(xrays[0].read_bytes()).decode()
    given = ["no base64!", base64.b64encode(b"a text file\n").decode(), base64.b64encode(bomb()).decode(), "", good]

    told = server.invoke(given).json()["predictions"]

    assert [each["error"].split(":")[0] for each in told] == [
        "The text is not base64",
        "The file is not an image.",
        "60000×60000 pixels",
        "The file is empty (0 bytes)",
        "",
    ]
    assert equal(told[-1], versions.offline["1"].predict([xrays[0].read_bytes()])[0])


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_twenty_megapixels_are_answered(format: str, server: RunningServer, versions: Any) -> None:
    content = picture(5000, 4000, format=format)

    told = server.post(content).json()

    assert equal(told, versions.offline["1"].predict([content])[0]) and told["error"] == ""


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"1" * 10_000, "application/json", 400),
        (b"{" * 2_000_001, "application/json", 400),
        (b"\xff\xfe", "text/csv", 400),
        (b'a,b\n"', "text/csv", 400),
        (b"", "text/csv", 400),
        (b"a text", "text/plain", 415),
        (b"{}", "application/json; charset=latin-1", 415),
        (b"PAR1", "application/vnd.apache.parquet", 415),
    ],
)
def test_a_call_that_is_none_gets_a_sentence(body: bytes, kind: str, status: int, server: RunningServer) -> None:
    answer = server.post(body, "/invocations", **{"content-type": kind})

    assert answer.status_code == status and is_sentence(answer)


def is_sentence(answer: httpx.Response) -> bool:
    """Whether an answer is an error of one short sentence."""
    told = answer.json()
    return (
        list(told) == ["error"]
        and len(told["error"]) < 250
        and told["error"].endswith(".")
        and "\n" not in told["error"]
    )


FORMS_OF_CALLS: dict[str, Callable[[list[Any]], Any]] = {
    "inputs": lambda images: {"inputs": images},
    "instances": lambda images: {"instances": images},
    "inputs in rows": lambda images: {"inputs": [{"image": image} for image in images]},
    "instances in rows": lambda images: {"instances": [{"image": image} for image in images]},
    "inputs in a column": lambda images: {"inputs": {"image": images}},
    "instances in a column": lambda images: {"instances": {"image": images}},
    "mixed": lambda images: {"instances": [images[0], *({"image": image} for image in images[1:])]},
    "records": lambda images: {"dataframe_records": [{"image": image} for image in images]},
    "split": lambda images: {"dataframe_split": {"columns": ["image"], "data": [[image] for image in images]}},
    "split with an index": lambda images: {
        "dataframe_split": {"index": [7, 8, 9], "columns": ["image"], "data": [[image] for image in images]}
    },
    "split without names": lambda images: {"dataframe_split": {"data": [[image] for image in images]}},
    "no params": lambda images: {"inputs": images, "params": None},
}


@pytest.mark.parametrize("form", FORMS_OF_CALLS)
def test_every_form_of_a_call_is_answered_alike(
    form: str, server: RunningServer, versions: Any, xrays: list[Path]
) -> None:
    contents = [path.read_bytes() for path in xrays[:2]]
    grays = {"pixels": np.asarray(Image.open(xrays[2])).tolist(), "range": [0, 255]}
    images = [*(base64.b64encode(content).decode() for content in contents), grays]

    answer = server.post(json.dumps(FORMS_OF_CALLS[form](images)).encode(), "/invocations")

    told, expected = answer.json()["predictions"], versions.offline["1"].predict([*contents, grays])
    assert answer.status_code == 200 and len(told) == len(expected) == 3
    assert all(equal(one, other) for one, other in zip(told, expected, strict=True))


def test_a_table_of_csv_and_one_image_alone_are_answered(
    server: RunningServer, versions: Any, xrays: list[Path]
) -> None:
    content = xrays[0].read_bytes()
    text = base64.b64encode(content).decode()

    table = server.post(f"image\n{text}\n{text}\n".encode(), "/invocations", **{"content-type": "text/csv"})
    alone = server.post(json.dumps({"inputs": text}).encode(), "/invocations")

    expected = versions.offline["1"].predict([content])[0]
    assert [len(answer.json()["predictions"]) for answer in (table, alone)] == [2, 1]
    assert all(equal(told, expected) for answer in (table, alone) for told in answer.json()["predictions"])


@pytest.mark.parametrize("form", ["inputs", "instances", "dataframe_records"])
def test_no_images_have_no_answers(form: str, server: RunningServer) -> None:
    answer = server.post(json.dumps({form: []}).encode(), "/invocations")

    assert (answer.status_code, answer.json()) == (200, {"predictions": []})


@pytest.mark.parametrize(
    ("call", "why"),
    [
        ([], "is no JSON object"),
        ("x", "is no JSON object"),
        ({}, "has no images"),
        ({"neither": 1}, "the unknown field 'neither'"),
        ({"inputs": ["x"], "more": 1}, "the unknown field 'more'"),
        ({"inputs": ["x"], "instances": ["x"]}, "has inputs and instances"),
        ({"inputs": ["x"], "params": {"temperature": 1}}, "knows no params"),
        ({"inputs": None}, "inputs is null"),
        ({"instances": 3}, "instances is a number"),
        ({"inputs": {"picture": ["x"]}}, "has the fields 'picture'"),
        ({"instances": [{"picture": "x"}]}, "has the fields 'picture'"),
        ({"instances": [{"image": "x", "patient": "y"}]}, "has the fields 'image', 'patient'"),
        ({"instances": [{}]}, "has the fields of none"),
        ({"dataframe_records": ["x"]}, "holds a text"),
        ({"dataframe_records": [{"image": "x"}, None]}, "holds null"),
        ({"dataframe_records": {"image": ["x"]}}, "dataframe_records is an object"),
        ({"dataframe_split": [["x"]]}, "is not understood"),
        ({"dataframe_split": {"columns": ["image"]}}, "is not understood"),
        ({"dataframe_split": {"columns": ["image"], "data": [["x"]], "more": 1}}, "is not understood"),
        ({"dataframe_split": {"columns": ["image", "id"], "data": [["x", 1]]}}, "has the fields 'image', 'id'"),
        ({"dataframe_split": {"columns": "image", "data": [["x"]]}}, "has the fields 'image'"),
        ({"dataframe_split": {"columns": ["image"], "data": ["x"]}}, "no rows of one image"),
        ({"dataframe_split": {"columns": ["image"], "data": [["x", "y"]]}}, "no rows of one image"),
    ],
)
def test_a_call_of_another_form_is_refused_in_a_sentence(call: Any, why: str, server: RunningServer) -> None:
    answer = server.post(json.dumps(call).encode(), "/invocations")

    assert answer.status_code == 400 and why in answer.json()["error"] and is_sentence(answer)


def test_what_is_no_image_of_a_list_of_different_kinds_costs_its_own_answer(
    server: RunningServer, xrays: list[Path]
) -> None:
    good = base64.b64encode(xrays[0].read_bytes()).decode()
    given = [good, None, 3, True, [[0, 255]], {"image": None}, {"image": {"image": good}}, {"image": good}]

    told = server.post(json.dumps({"instances": given}).encode(), "/invocations").json()["predictions"]

    assert [bool(each["error"]) for each in told] == [False, *[True] * 6, False]
    assert "a list does not say its range" in told[4]["error"].lower()


def test_a_fault_of_the_server_is_500_and_in_the_log(
    server: RunningServer,
    current: CurrentModel,
    xrays: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    content = xrays[0].read_bytes()
    call = json.dumps({"inputs": [base64.b64encode(content).decode()]}).encode()
    faults = {
        "probabilities": ValueError("the network is broken"),
        "try_to_read": TypeError("the decoder is broken"),
        "_answer": KeyError("the answer is broken"),
    }
    for name, error in faults.items():
        with monkeypatch.context() as patch:
            patch.setattr(current.loaded.predictor, name, lambda *_, error=error: (_ for _ in ()).throw(error))
            answers = [server.post(content), server.post(call, "/invocations")]

        assert [answer.status_code for answer in answers] == [500, 500], name
        assert all(is_sentence(answer) and "broken" not in answer.text for answer in answers)
        assert caplog.text.count(f"{type(error).__name__}: {error}") == 2

    assert server.post(content).status_code == 200
    assert 'cxr_calls_total{path="/image",status="500"}' in server.get("/metrics").text


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [("/nothing", "GET", 404), ("/image", "GET", 405), ("/image?explain=perhaps", "POST", 400)],
)
def test_what_is_not_there_is_said_in_a_sentence(path: str, method: str, status: int, server: RunningServer) -> None:
    answer = server.client.request(method, path)

    assert answer.status_code == status and is_sentence(answer)


@pytest.mark.parametrize("callers", [8, 64])
def test_callers_at_once_each_get_their_own_answer(
    callers: int, server: RunningServer, versions: Any, xrays: list[Path]
) -> None:
    contents = [path.read_bytes() for path in xrays[:callers]]

    with ThreadPoolExecutor(callers) as threads:
        answers = list(threads.map(server.post, contents))

    assert {answer.status_code for answer in answers} == {200}
    expected = versions.offline["1"].predict(contents)
    assert len(expected) == len(contents) == callers
    assert all(equal(answer.json(), each) for answer, each in zip(answers, expected, strict=True))


def test_a_new_champion_is_taken_up_without_a_lost_call(versions: Any, xrays: list[Path]) -> None:
    """The thread that looks for champions takes up each of them, while callers ask without a pause."""
    contents = [path.read_bytes() for path in xrays[:8]]
    call = json.dumps({"inputs": [base64.b64encode(content).decode() for content in contents]}).encode()
    expected = {version: offline.predict(contents) for version, offline in versions.offline.items()}
    assert {len(answers) for answers in expected.values()} == {8}
    current = CurrentModel(f"{versions.name}@champion")
    running, watching = RunningServer(current), current.watch(0.05)
    until(lambda: running.get("/ready").status_code == 200, "the champion is there")
    ended, statuses = threading.Event(), list[int]()
    told: list[tuple[int, dict[str, Any]]] = []

    def ask(place: int) -> None:
        while not ended.is_set():
            answer = running.post(contents[place]) if place else running.post(call, "/invocations")
            statuses.append(answer.status_code)
            told.extend(enumerate(answer.json()["predictions"]) if not place else [(place, answer.json())])

    callers = [threading.Thread(target=ask, args=(place,)) for place in range(8)]
    try:
        for caller in callers:
            caller.start()
        for version in ("2", "1", "2"):
            tracking.set_alias(versions.name, "champion", version)
            until(lambda: current.loaded.identity[1] == version, f"version {version} is taken up")  # noqa: B023
            before = len(told)
            until(lambda: len(told) >= before + 64, f"version {version} answers")  # noqa: B023
    finally:
        ended.set()
        for caller in callers:
            caller.join(60)
        current.end()
        watching.join(60)
        running.close()
        tracking.set_alias(versions.name, "champion", "1")

    assert set(statuses) == {200} and {answer["version"] for _, answer in told} == {"1", "2"}
    assert all(equal(answer, expected[answer["version"]][place]) for place, answer in told)
    assert current.taken_up == 4 and not watching.is_alive()


def test_a_champion_of_before_is_served_and_one_that_is_lost_replaces_nobody(
    server: RunningServer, current: CurrentModel, versions: Any, xrays: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking.set_alias(versions.name, "champion", "3")
    assert current.refresh(), current.fault
    bare = server.post(xrays[0].read_bytes()).json()
    tracking.set_alias(versions.name, "champion", "2")
    monkeypatch.setattr("cxr_tasks.tracking.models._download", lambda *_: Path("/nowhere"))

    assert not current.refresh()

    assert bare["version"] == "3" and bare["decision"] in CLASSES and "Nothing is known" in bare["warnings"][0]
    ready = server.get("/ready").json()
    assert ready["ready"] and ready["version"] == "3" and "its files are gone" in ready["reason"]
    monkeypatch.undo()
    tracking.set_alias(versions.name, "champion", "1")
    assert current.refresh()


def test_it_tells_who_it_is_and_counts(server: RunningServer, versions: Any, xrays: list[Path]) -> None:
    server.post(xrays[0].read_bytes())

    assert [server.get(path).status_code for path in ("/live", "/ready", "/ping", "/health", "/version")] == [200] * 5
    assert server.get("/version").text == mlflow.__version__
    assert server.get("/ready").json()["version"] == "1"
    figures = server.get("/metrics").text
    assert 'cxr_calls_total{path="/image",status="200"}' in figures
    assert f'cxr_model{{model="{versions.name}",version="1"}} 1.0' in figures
    for page in ("/docs", "/openapi.json", "/redoc"):
        assert server.get(page).status_code == 404


def test_an_explanation_is_two_pictures(server: RunningServer, xrays: list[Path]) -> None:
    told = server.post(xrays[0].read_bytes(), "/image?explain=true").json()

    shown = [Image.open(BytesIO(base64.b64decode(told[name].partition(",")[2]))) for name in ("seen", "heat")]
    assert [image.mode for image in shown] == ["L", "RGBA"] and shown[0].size == shown[1].size
    refused = server.post(b"no image", "/image?explain=true")
    assert refused.json()["error"] == "The file is not an image." and "seen" not in refused.json()


def test_the_page_loads_nothing_from_elsewhere(server: RunningServer) -> None:
    page = server.get("/")

    assert page.status_code == 200 and "not for diagnosis" in page.text
    assert "http://" not in page.text and "https://" not in page.text and "src=" not in page.text.replace(".src =", "")
    assert "default-src 'none'" in page.headers["content-security-policy"]


@pytest.mark.skipif(not HAS_BROWSER, reason=NO_BROWSER)
def test_the_page_answers_in_a_browser_as_wide_as_a_phone(
    server: RunningServer, versions: Any, xrays: list[Path], tmp_path: Path
) -> None:
    text = tmp_path / f"{'a long name ' * 9}.txt"
    text.write_text("no image")
    expected = versions.offline["1"].predict([xrays[0].read_bytes()])[0]
    with open_browser() as browser:
        phone = {"width": 375, "height": 800, "deviceScaleFactor": 1, "mobile": True}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        browser.get(str(server.client.base_url))
        status = browser.find_element("id", "status")

        def drop(path: Path) -> str:
            browser.find_element("id", "file").send_keys(str(path))
            until(lambda: status.text and "Looking at" not in status.text, "the page answers")
            width = browser.execute_script("return document.documentElement.scrollWidth")
            assert width == 375 and browser.find_element("id", "who").text == f"{versions.name}, version 1"
            return str(status.text)

        told = drop(xrays[0])
        shown = browser.find_element("id", "answer").text
        refused = drop(text)

        assert told == f"{xrays[0].name}: {expected.decision}" and all(
            warning in shown for warning in expected.warnings
        )
        assert f"{100 * expected.probabilities['COVID']:.1f} %" in shown
        assert refused.endswith("The file is not an image.") and not browser.find_element("id", "answer").is_displayed()
        assert browser.get_log("browser") == []


class TestLimits:
    @pytest.fixture(scope="class")
    def narrow(self, current: CurrentModel) -> Iterator[RunningServer]:
        limits = CallLimits(body_bytes=20_000, images=3, pixels=100_000, calls=2, body_seconds=5.0)
        running = RunningServer(current, limits, TOKEN)
        yield running
        running.close()

    def test_too_long_a_body_is_refused_said_or_not(self, narrow: RunningServer) -> None:
        said = narrow.post(bytes(30_000), **KNOWN)
        chunked = narrow.post(iter([bytes(15_000)] * 2), **KNOWN)

        assert [said.status_code, chunked.status_code] == [413, 413]
        assert said.json()["error"].startswith("The call has more than 0.0190735 MiB")

    def test_too_many_images_and_pixels_are_refused(self, narrow: RunningServer) -> None:
        many = narrow.post(json.dumps({"inputs": ["x"] * 4}).encode(), "/invocations", **KNOWN)
        large = narrow.post(picture(400, 300, format="JPEG", quality=20), **KNOWN)

        assert (many.status_code, many.json()["error"]) == (413, "The call has 4 images: send at most 3 at once.")
        assert large.status_code == 200 and "at most 100,000 in all" in large.json()["error"]

    def test_callers_who_send_nothing_hold_nobody_up_for_long(self, narrow: RunningServer, xrays: list[Path]) -> None:
        done = threading.Event()

        def slowly() -> Iterator[bytes]:
            yield b"a"
            done.wait(60)

        with ThreadPoolExecutor(2) as threads:
            slow = [threads.submit(lambda: narrow.post(slowly(), **KNOWN)) for _ in range(2)]
            until(lambda: narrow.guard.calls == 2, "two callers are at work")
            busy, live = narrow.post(xrays[0].read_bytes(), **KNOWN), narrow.get("/live")
            until(lambda: not narrow.guard.calls, "the slow callers are refused")
            done.set()
            # The server may close before all is sent.
            for each in slow:
                with suppress(httpx.TransportError):
                    assert each.result().status_code == 408

        assert (busy.status_code, busy.headers["retry-after"], live.status_code) == (503, "1", 200)
        assert narrow.post(xrays[0].read_bytes(), **KNOWN).status_code == 200

    def test_who_does_not_name_the_token_learns_nothing(self, narrow: RunningServer, xrays: list[Path]) -> None:
        content = xrays[0].read_bytes()
        basic = {"authorization": "Basic " + base64.b64encode(f"anybody:{TOKEN}".encode()).decode()}
        wrong = [{}, {"authorization": "Bearer nothing"}, {"authorization": "Basic !"}, {"authorization": "Digest x"}]

        assert [narrow.post(content, **headers).status_code for headers in wrong] == [401] * 4
        assert [narrow.get(path).status_code for path in ("/", "/metrics", "/live")] == [401, 401, 200]
        assert [narrow.post(content, **headers).status_code for headers in (KNOWN, basic)] == [200, 200]
        assert 'cxr_calls_total{path="/image",status="401"} 4.0' in narrow.get("/metrics", **KNOWN).text

    def test_who_does_not_name_the_token_learns_only_whether_it_is_ready(
        self, narrow: RunningServer, versions: Any
    ) -> None:
        assert narrow.get("/ready").json() == {"ready": True}
        assert narrow.get("/ready", **KNOWN).json()["model"] == versions.name
        assert [narrow.get(path).text.strip() for path in ("/ping", "/health")] == ["", ""]

    def test_bodies_share_a_budget(self, current: CurrentModel, xrays: list[Path]) -> None:
        running = RunningServer(current, CallLimits(body_bytes=20_000, bodies_bytes=25_000, body_seconds=60.0))
        done = threading.Event()

        def slowly() -> Iterator[bytes]:
            yield xrays[0].read_bytes() + bytes(15_000)
            done.wait(60)

        try:
            with ThreadPoolExecutor(1) as threads:
                slow = threads.submit(running.post, slowly())
                until(lambda: running.guard.held_bytes >= 15_000, "the body is there")
                refused, small = running.post(bytes(18_000)), running.post(xrays[1].read_bytes())
                done.set()
                assert slow.result().status_code == 200

            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1") and is_sentence(refused)
            assert small.status_code == 200 and running.guard.held_bytes == 0 and running.guard.calls == 0
        finally:
            done.set()
            running.close()

    def test_explanations_are_few_at_a_time(
        self, current: CurrentModel, xrays: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        running, content = RunningServer(current, CallLimits(explanations=2)), xrays[0].read_bytes()
        began, go, at_work = threading.Semaphore(0), threading.Event(), []

        def held(*given: Any) -> dict[str, Any]:
            at_work.append(1)
            began.release()
            go.wait(60)
            most.append(len(at_work))
            at_work.pop()
            return pictures_of(*given)

        most: list[int] = []
        read, decode_it = list[bytes](), current.loaded.predictor.try_to_read
        monkeypatch.setattr(
            current.loaded.predictor, "try_to_read", lambda *given: read.append(given[0]) or decode_it(*given)
        )
        monkeypatch.setattr("cxr_tasks.serving.server.pictures_of", held)
        try:
            with ThreadPoolExecutor(2) as threads:
                first = threads.submit(running.post, content, "/image?explain=true")
                began.acquire(timeout=60)
                second = threads.submit(running.post, content, "/image?explain=true")
                until(lambda: len(read) == 2, "the second is read")
                third, plain = running.post(content, "/image?explain=true"), running.post(content)
                go.set()
                assert [each.result().status_code for each in (first, second)] == [200, 200]

            assert (third.status_code, third.headers["retry-after"]) == (503, "1") and is_sentence(third)
            assert plain.status_code == 200 and most == [1, 1]
            assert running.post(content, "/image?explain=true").status_code == 200
        finally:
            go.set()
            running.close()


def test_a_server_without_a_model_says_that_it_is_not_ready(versions: Any, xrays: list[Path]) -> None:
    current = CurrentModel(f"{versions.name}@nobody")
    current.refresh()
    running = RunningServer(current)
    try:
        ready = running.get("/ready")
        asked = [running.post(xrays[0].read_bytes()), running.invoke(["x"])]

        assert ready.status_code == 503 and "has no registered model" in ready.json()["reason"]
        assert [answer.status_code for answer in asked] == [503, 503] and all(map(is_sentence, asked))
        assert [running.get(path).status_code for path in ("/live", "/ping", "/health")] == [200, 503, 503]
    finally:
        running.close()
