"""What the monitor reads of the champion's server, as the server itself writes it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cxr_tasks import steps, tracking
from cxr_tasks.artifacts import RunContext
from cxr_tasks.errors import SettingsError
from cxr_tasks.serving.call_metrics import CallMetrics
from cxr_tasks.steps.ask_server import ServerFigures
from tests.servers import answering

pytestmark = pytest.mark.slow


@pytest.fixture
def figures() -> bytes:
    """Of a server that has answered six images in four calls."""
    metrics = CallMetrics()
    for path, status, calls in (("/image", "200", 2), ("/invocations", "503", 1), ("/image", "400", 1)):
        metrics.calls.labels(path, status).inc(calls)
    for answer, images in (("Viral Pneumonia", 3), ("Normal", 2), ("refused", 1)):
        metrics.images.labels(answer).inc(images)
    metrics.warned.inc(3)
    metrics.version.labels("cxr-overall", "3").set(1)
    return metrics.text()


def test_the_run_keeps_what_was_answered(new_run: Callable[..., RunContext], figures: bytes) -> None:
    run = new_run()

    with answering(200, figures) as address:
        found = steps.ask_server(run, f"{address}/", "secret")

    images = {"Viral Pneumonia": 3, "Normal": 2, "refused": 1}
    assert found == ServerFigures(calls=4, failed=1, images=images, warned=3, models=("cxr-overall version 3",))
    told = tracking.client().get_run(run.mlflow_run_id).data
    assert told.tags["cxr.served"] == (
        "6 images since the server's start (2 Normal, 3 Viral Pneumonia, 1 refused), 50.0 % with a warning. "
        "cxr-overall version 3 answers."
    )
    assert told.metrics == {
        "served_calls": 4, "served_calls_failed": 1, "served_warned": 3, "served_Viral_Pneumonia": 3,
        "served_Normal": 2, "served_refused": 1,
    }  # fmt: skip
    assert ServerFigures(calls=0, failed=0, images={}, warned=0, models=()).words == (
        "0 images since the server's start. No model answers."
    )


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (401, b"", SettingsError, r"wants another token: set SERVING_TOKEN to it"),
        (503, b"", ConnectionError, r"\(CXR_SERVING\) answers 503"),
        (200, b"<html>", SettingsError, r"is no cxr serve: give its address"),
        (200, b"python_info 1\n", SettingsError, r"is no cxr serve: give its address"),
        (404, b"", SettingsError, r"is no cxr serve: give its address"),
    ],
)
def test_what_is_no_server_of_ours_or_not_for_us_is_said(
    new_run: Callable[..., RunContext], status: int, body: bytes, kind: type[Exception], words: str
) -> None:
    with answering(status, body) as address, pytest.raises(kind, match=words):
        steps.ask_server(new_run(), address)


def test_the_token_is_sent_without_the_line_break_of_its_file_and_never_quoted(
    new_run: Callable[..., RunContext], figures: bytes
) -> None:
    with answering(200, figures) as address:
        assert steps.ask_server(new_run(), address, "secret\n").calls == 4
        with pytest.raises(SettingsError, match="SERVING_TOKEN has characters") as told:
            steps.ask_server(new_run(), address, "sécret")
    assert "cret" not in str(told.value)


@pytest.mark.parametrize(
    ("address", "kind", "words"),
    [
        ("serving:8088", SettingsError, "give the address of cxr serve, such as"),
        ("http://127.0.0.1:9", ConnectionError, "does not answer"),
    ],
)
def test_an_address_without_a_server_is_named(
    new_run: Callable[..., RunContext], address: str, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        steps.ask_server(new_run(), address)
