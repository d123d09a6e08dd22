"""The client of Airflow's API on a server in trouble: the server is real, and says what the test wants."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from infra.embedded.airflow_api import AirflowApi

# What the server answers to a trigger, in order. ``None``: it begins the run, and breaks off without a word.
LOST, BUSY, BEGUN, THERE_ALREADY, WRONG = None, 500, 200, 409, 422


class Airflow(ThreadingHTTPServer):
    """Stands for Airflow: notes the ids of the runs that it is asked to begin."""

    def __init__(self, answers: list[int | None]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.asked = iter(answers), []


class Handler(BaseHTTPRequestHandler):
    server: Airflow

    def do_GET(self) -> None:
        self.say(200, {"access_token": "x"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body["dag_run_id"])
        status = next(self.server.answers)
        if status is None:
            self.close_connection = True
            return
        self.say(status, {"dag_run_id": body["dag_run_id"]})

    def say(self, status: int, told: dict[str, str]) -> None:
        body = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def airflow(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[AirflowApi, Airflow]]:
    monkeypatch.setattr("infra.embedded.airflow_api.time.sleep", lambda _: None)
    server = Airflow(request.param)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield AirflowApi(f"http://127.0.0.1:{server.server_port}", patience=30), server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    "airflow", [[BEGUN], [BUSY, BUSY, BEGUN], [LOST, THERE_ALREADY], [LOST, BUSY, THERE_ALREADY]], indirect=True
)
def test_a_run_is_begun_once_by_a_server_in_trouble(airflow: tuple[AirflowApi, Airflow]) -> None:
    api, server = airflow

    run = api.trigger("cxr_data", {})

    assert set(server.asked) == {run} and not list(server.answers)


@pytest.mark.parametrize("airflow", [[WRONG], [THERE_ALREADY]], indirect=True)
def test_what_airflow_does_not_accept_is_an_error_at_once(airflow: tuple[AirflowApi, Airflow]) -> None:
    api, server = airflow

    with pytest.raises(ValueError, match="Airflow did not accept the trigger of cxr_data"):
        api.trigger("cxr_data", {})

    assert len(server.asked) == 1
