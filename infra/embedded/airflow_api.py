"""The few calls of Airflow's REST API that a run needs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import httpx

ENDED = {"success", "failed"}
PATIENCE_SECONDS = 300.0
PAGE = 100


class AirflowApi:
    """A client of the API, as the administrator that the embedded stack makes of everybody on loopback.

    Attributes:
        url: Airflow's address.
        patience: Seconds that a server which is busy or restarting is asked again.
        account: Name and password; ``None`` where none is asked for.
    """

    def __init__(self, url: str, patience: float = PATIENCE_SECONDS, account: tuple[str, str] | None = None) -> None:
        """Sign in.

        Args:
            url: Airflow's address.
            patience: Seconds that a server which is busy or restarting is asked again.
            account: Name and password; none where everybody on loopback is the administrator.

        Raises:
            httpx.HTTPError: Nobody answers at the address.
        """
        self.url, self.patience, self.account = url, patience, account
        self.http = httpx.Client(base_url=f"{url}/api/v2", timeout=60, transport=httpx.HTTPTransport(retries=3))
        self._sign_in()

    def _sign_in(self) -> None:
        if self.account is None:
            answer = httpx.get(f"{self.url}/auth/token", timeout=30)
        else:
            name, password = self.account
            answer = httpx.post(f"{self.url}/auth/token", json={"username": name, "password": password}, timeout=30)
        token = answer.raise_for_status().json()["access_token"]
        self.http.headers["Authorization"] = f"Bearer {token}"

    def get(self, path: str, **query: Any) -> Any:
        """GET, decoded.

        Args:
            path: Below the address of the API.
            **query: What the address asks for.

        Raises:
            httpx.HTTPError: The server did not answer in all the time, or the path is wrong.
        """
        return self._ask(path, query).raise_for_status().json()

    def _ask(self, path: str, query: Mapping[str, Any], **headers: str) -> httpx.Response:
        """The answer to a GET: the first that tells something, or what the server says when patience has ended."""
        deadline = time.monotonic() + self.patience
        while True:
            try:
                answer = self.http.get(path, params=dict(query), headers=headers)
                if (answer.status_code < 500 and answer.status_code != 401) or time.monotonic() > deadline:
                    return answer
                if answer.status_code == 401:
                    # Tokens last a day, and a training may last a week.
                    self._sign_in()
                    continue
            except httpx.HTTPError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(1)

    def wait_for_dags(self, names: list[str], seconds: float = 120) -> str | None:
        """Wait until the DAGs are there; returns what is wrong with them if they cannot be imported."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            errors = self.get("/importErrors")["import_errors"]
            if errors:
                return errors[0]["stack_trace"]
            if all(self.http.get(f"/dags/{name}").status_code == 200 for name in names):
                return None
            time.sleep(1)
        return f"Airflow did not find the DAGs {', '.join(names)} within {seconds:.0f} s."

    def set_pool(self, name: str, slots: int, description: str) -> None:
        """Create a pool, or bring it to this size."""
        body = {"name": name, "slots": slots, "description": description, "include_deferred": False}
        answer = self.http.patch(f"/pools/{name}", json=body)
        if answer.status_code == 404:
            answer = self.http.post("/pools", json=body)
        answer.raise_for_status()

    def trigger(self, dag: str, conf: Mapping[str, Any]) -> str:
        """Start a run; returns its id.

        Raises:
            ValueError: Airflow does not accept it.
            httpx.TransportError: The server did not answer in all the time.
        """
        # With an id of its own the run is begun once, also where the answer to the first attempt was lost.
        run = f"manual__{datetime.now(UTC).isoformat()}"
        asked = {"dag_run_id": run, "logical_date": None, "conf": dict(conf)}
        deadline, attempts = time.monotonic() + self.patience, 0
        while True:
            attempts += 1
            try:
                answer = self.http.post(f"/dags/{dag}/dagRuns", json=asked)
                if answer.status_code < 400 or (answer.status_code == 409 and attempts > 1):
                    return run
                if answer.status_code < 500 or time.monotonic() > deadline:
                    raise ValueError(f"Airflow did not accept the trigger of {dag}: {answer.text}")
            except httpx.TransportError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(1)

    def dags(self) -> list[str]:
        """The ids of the project's DAGs."""
        return [dag["dag_id"] for dag in self.get("/dags", tags="cxr", limit=PAGE)["dags"]]

    def unfinished_runs(self, dag: str) -> list[dict[str, Any]]:
        """The runs of a DAG that are queued or running."""
        states = ("queued", "running")
        return [
            run for state in states for run in self.get(f"/dags/{dag}/dagRuns", state=state, limit=PAGE)["dag_runs"]
        ]

    def end_unfinished(self, dag: str) -> list[str]:
        """Fail the runs that an earlier stack left unfinished; returns their ids."""
        left = [run["dag_run_id"] for run in self.unfinished_runs(dag)]
        for run in left:
            self.http.patch(f"/dags/{dag}/dagRuns/{run}", json={"state": "failed"}).raise_for_status()
        return left

    def newest_run(self, dag: str) -> dict[str, Any] | None:
        """The run that was queued last."""
        runs = self.get(f"/dags/{dag}/dagRuns", order_by="-run_after", limit=1)["dag_runs"]
        return runs[0] if runs else None

    def run_state(self, dag: str, run: str) -> str:
        """``queued``, ``running``, ``success`` or ``failed``."""
        return self.get(f"/dags/{dag}/dagRuns/{run}")["state"]

    def tasks(self, dag: str, run: str) -> list[dict[str, Any]]:
        """The task instances of a run, mapped ones each by itself."""
        found: list[dict[str, Any]] = []
        while True:
            page = self.get(f"/dags/{dag}/dagRuns/{run}/taskInstances", limit=PAGE, offset=len(found))
            found += page["task_instances"]
            if not page["task_instances"] or len(found) >= page["total_entries"]:
                return found

    def result(self, dag: str, run: str, task: Mapping[str, Any]) -> Any:
        """What a task returned, or ``None``."""
        answer = self._ask(
            f"/dags/{dag}/dagRuns/{run}/taskInstances/{task['task_id']}/xcomEntries/return_value",
            {"map_index": task["map_index"], "deserialize": True},
        )
        return answer.json().get("value") if answer.status_code == 200 else None

    def error(self, dag: str, run: str, task: Mapping[str, Any]) -> str:
        """The message of the exception that ended the task, from its log; empty if there is none."""
        answer = self._ask(
            f"/dags/{dag}/dagRuns/{run}/taskInstances/{task['task_id']}/logs/{max(1, task['try_number'])}",
            {"map_index": task["map_index"], "full_content": True},
            Accept="application/json",
        )
        if answer.status_code != 200:
            return ""
        for line in reversed(answer.json().get("content", [])):
            if isinstance(line, dict) and line.get("error_detail"):
                detail = line["error_detail"][0]
                return f"{detail['exc_type']}: {detail['exc_value']}"
        return ""
