"""TLS before servers that stand in for Airflow and MLflow: what they are told, and streams."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler
from typing import ClassVar

import pytest

from tests.infra.celery_stack import answers
from tests.infra.compose import ROOT
from tests.infra.tls import AIRFLOW_NAME, HAS_NGINX, MLFLOW_NAME, browser, tls_variables
from tests.servers import free_port, serving

START = ROOT / "infra/tls/start.sh"


class StandIn(BaseHTTPRequestHandler):
    """Keeps what it was told, and answers in two parts: the second when it is let go on."""

    told: ClassVar[list[dict[str, str]]] = []
    goes_on: ClassVar[threading.Event] = threading.Event()
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.told.append(dict(self.headers))
        self.send_response(200)
        self.send_header("Set-Cookie", "session=1; Path=/")
        self.send_header("Content-Length", "12")
        self.end_headers()
        self.wfile.write(b"first ")
        self.goes_on.wait(30)
        self.wfile.write(b"second")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def behind(tmp_path_factory):
    """The folder with the certificate, and the port."""
    if not HAS_NGINX:
        pytest.skip("not installed: nginx")
    folder, port, http_port = tmp_path_factory.mktemp("tls"), free_port(), free_port()
    with serving(StandIn) as address:
        server_port = int(address.rpartition(":")[2])
        proxy = subprocess.Popen(
            ["sh", str(START)], env=tls_variables(folder, port, http_port, server_port, server_port)
        )
        try:
            while proxy.poll() is None and not answers(f"http://127.0.0.1:{http_port}/healthy"):
                time.sleep(0.1)
            assert proxy.poll() is None
            yield folder, port
        finally:
            proxy.send_signal(signal.SIGTERM)
            proxy.wait(30)


@pytest.mark.parametrize("name", [AIRFLOW_NAME, MLFLOW_NAME])
def test_a_stream_is_handed_on_as_it_comes(behind, name):
    folder, port = behind
    StandIn.goes_on.clear()

    with browser(folder) as client, client.stream("GET", f"https://{name}:{port}/logs") as answer:
        parts = answer.iter_raw()
        assert next(parts) == b"first "
        StandIn.goes_on.set()
        assert b"".join(parts) == b"second"
        assert answer.headers["set-cookie"].lower().endswith("; secure")


def test_servers_hear_from_the_proxy_who_asks_and_how(behind):
    folder, port = behind
    StandIn.goes_on.set()
    StandIn.told.clear()
    forged = {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "http"}
    forged |= {"Forwarded": "for=6.6.6.6;host=evil.example", "X-Forwarded-Prefix": "/evil"}

    with browser(folder) as client:
        client.get(f"https://{MLFLOW_NAME}:{port}/", headers=forged)
        client.get(f"https://{MLFLOW_NAME}:{port}/", headers={"Upgrade": "websocket", "Connection": "Upgrade"})

    plain, upgrade = StandIn.told
    name = f"{MLFLOW_NAME}:{port}"
    expected = {"Host": name, "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": name, "X-Forwarded-Proto": "https"}
    assert {each: plain[each] for each in expected} == expected
    assert not {"Forwarded", "X-Forwarded-Prefix", "Upgrade"} & set(plain) and "evil" not in str(plain)
    assert (upgrade["Upgrade"], upgrade["Connection"].lower()) == ("websocket", "upgrade")


class TestStart:
    """What is wrong with the settings of TLS is said at once."""

    GOOD: ClassVar = {"AIRFLOW_URL": "https://a.example", "MLFLOW_URL": "https://m.example:8443"}

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"AIRFLOW_URL": "http://a.example"}, "not to http://a.example"),
            ({"MLFLOW_URL": "https://m.example/mlflow"}, "not to https://m.example/mlflow"),
            ({"MLFLOW_URL": "https://m.example;evil"}, "not to https://m.example;evil"),
            ({"MLFLOW_URL": "https://a.example:8443"}, "give each its own"),
            ({}, "certificate.pem is missing or may not be read"),
        ],
    )
    def test_a_setting_that_cannot_be_is_refused_in_a_sentence(self, changes, words, tmp_path):
        given = {
            **self.GOOD,
            "CERTIFICATES": str(tmp_path),
            "SCRATCH": str(tmp_path),
            "PATH": os.environ["PATH"],
            **changes,
        }
        done = subprocess.run(["sh", str(START)], env=given, capture_output=True, text=True, timeout=30)

        assert done.returncode == 1 and words in done.stderr and done.stderr.count("\n") == 1
