"""The client of Airflow's API on a server in trouble: the server is real, and says what the test wants."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from infra.embedded.airflow_api import AirflowApi

# What the server answers to a trigger, in order. ``None``: it begins the run, and breaks off without a word.
LOST, BUSY, BEGUN, THERE_ALREADY, WRONG = None, 500, 200, 409, 422


class Airflow(ThreadingHTTPServer):
    """Stands for Airflow: notes the ids of the runs that it is asked to begin."""

    def __init__(self, answers: list[int | None]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.asked = iter(answers), []
        # What is said to the next GETs, but for those of a token.
        self.troubles: list[int | None] = []


class Handler(BaseHTTPRequestHandler):
    server: Airflow

    def do_GET(self) -> None:
        if self.server.troubles and "token" not in self.path:
            trouble = self.server.troubles.pop(0)
            if trouble is None:
                self.close_connection = True
            else:
                self.say(trouble, {})
            return
        self.say(200, {"access_token": "x", "value": "made"})

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


@pytest.mark.parametrize("airflow", [[]], indirect=True)
def test_a_result_is_asked_for_until_the_server_answers(airflow: tuple[AirflowApi, Airflow]) -> None:
    api, server = airflow
    server.troubles = [BUSY, LOST, 401, BUSY]

    told = api.result("cxr_training", "run", {"task_id": "report", "map_index": -1})

    assert told == "made" and not server.troubles


@pytest.mark.parametrize("airflow", [[]], indirect=True)
def test_a_task_without_a_result_has_none(airflow: tuple[AirflowApi, Airflow]) -> None:
    api, server = airflow
    server.troubles = [404]

    assert api.result("cxr_training", "run", {"task_id": "report", "map_index": -1}) is None


@pytest.mark.parametrize("airflow", [[]], indirect=True)
def test_patience_ends_also_where_the_token_is_refused_for_ever(airflow: tuple[AirflowApi, Airflow]) -> None:
    api, server = airflow
    api.patience, server.troubles = 0.5, [401] * 100_000

    with pytest.raises(httpx.HTTPStatusError):
        api.get("/dags/cxr_data")
