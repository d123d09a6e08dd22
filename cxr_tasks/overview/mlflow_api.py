"""MLflow's REST API, as far as a page asks it: answers soon, or a sentence that says why there are none.

MLflow's own client takes seconds to import and waits for minutes; a person waits for this page.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx

from cxr_tasks.errors import in_one_line
from cxr_tasks.tracking import is_on

# A server that is there takes a connection at once. A search in a large database takes longer.
MLFLOW_CONNECTS_WITHIN, MLFLOW_ANSWERS_WITHIN = 1.0, 4.0
KEPT_OPEN = httpx.Limits(max_connections=16, max_keepalive_connections=8, keepalive_expiry=30)
NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


class MlflowAwayError(Exception):
    """MLflow gives no answer; the message is a sentence for people."""


class MlflowApi:
    """A client of one MLflow server, for several threads."""

    def __init__(self, address: str, login: tuple[str, str] | None = None, token: str = "") -> None:
        """Nothing is asked yet.

        Args:
            address: Of the server.
            login: Name and password.
            token: Instead of a login.
        """
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._address = address
        self._http = httpx.Client(
            base_url=address.rstrip("/"),
            auth=login,
            headers=headers,
            timeout=httpx.Timeout(MLFLOW_ANSWERS_WITHIN, connect=MLFLOW_CONNECTS_WITHIN),
            limits=KEPT_OPEN,
        )

    @classmethod
    def of_environment(cls) -> MlflowApi:
        """A client of the server that the variables of MLflow's own client name."""
        told = os.environ
        address = told.get("MLFLOW_TRACKING_URI", "") if is_on() else ""
        name, password = told.get("MLFLOW_TRACKING_USERNAME", ""), told.get("MLFLOW_TRACKING_PASSWORD", "")
        return cls(address, (name, password) if name else None, told.get("MLFLOW_TRACKING_TOKEN", ""))

    def get(self, path: str, /, **query: Any) -> dict[str, Any]:
        """GET, decoded; nothing where MLflow has no such thing.

        Args:
            path: Below the address of the API.
            **query: What the address asks for.

        Raises:
            MlflowAwayError: There is no answer.
        """
        return self._decoded("GET", path, params=query)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """POST of what is a question too long for an address; as :meth:`get`."""
        return self._decoded("POST", path, json=dict(body))

    def file(self, run_id: str, path: str) -> bytes | None:
        """A file of a run, or ``None`` where the run has no such file.

        Raises:
            MlflowAwayError: There is no answer.
        """
        answer = self._ask("GET", "/get-artifact", params={"run_uuid": run_id, "path": path})
        # Of a file that is not there, MLflow finds that something within itself went wrong.
        return answer.content if answer.status_code == 200 else None

    def search_runs(
        self, experiments: Sequence[str], condition: str, most: int, order_by: str = "attributes.start_time DESC"
    ) -> list[dict[str, Any]]:
        """The first runs that meet a condition, as MLflow tells of them; ``experiments``: by their ids."""
        if not experiments:
            return []
        asked = {"experiment_ids": [*experiments], "filter": condition, "max_results": most, "order_by": [order_by]}
        return self.post("runs/search", asked).get("runs", [])

    def experiments(self, names: Sequence[str]) -> dict[str, str]:
        """The ids of experiments by their names; those that are not there are left out."""
        found = {name: self.get("experiments/get-by-name", experiment_name=name) for name in names}
        return {name: told["experiment"]["experiment_id"] for name, told in found.items() if told}

    def _decoded(self, method: str, path: str, **given: Any) -> dict[str, Any]:
        answer = self._ask(method, f"/api/2.0/mlflow/{path}", **given)
        try:
            told = answer.json()
        except ValueError as error:
            raise MlflowAwayError(f"What answers at {self._shown()} is not MLflow.") from error
        if answer.status_code == 200 and isinstance(told, dict):
            return told
        if isinstance(told, dict) and told.get("error_code") in NOT_THERE:
            return {}
        raise MlflowAwayError(f"MLflow at {self._shown()} answers with {answer.status_code}.")

    def _ask(self, method: str, path: str, **given: Any) -> httpx.Response:
        if not self._address.startswith(("http://", "https://")):
            raise MlflowAwayError("This Airflow has no MLflow server: MLFLOW_TRACKING_URI names none.")
        try:
            answer = self._http.request(method, path, **given)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise MlflowAwayError(f"MLflow at {self._shown()} does not answer ({_why(error)}).") from error
        if answer.status_code in (401, 403):
            raise MlflowAwayError(
                f"MLflow at {self._shown()} does not let this Airflow in ({answer.status_code}): look at "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD of its API server."
            )
        if answer.status_code in (502, 503, 504):
            raise MlflowAwayError(f"MLflow at {self._shown()} is busy or starts ({answer.status_code}).")
        return answer

    def _shown(self) -> str:
        """The address without a password."""
        parts = urlsplit(self._address)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def tags_of(told: Mapping[str, Any]) -> dict[str, str]:
    """The tags of a run, or of a registered version, by their names."""
    given = told.get("data", told)
    return {tag["key"]: tag.get("value", "") for tag in given.get("tags", ())}


def _why(error: Exception) -> str:
    return "it takes too long" if isinstance(error, httpx.TimeoutException) else in_one_line(error)
