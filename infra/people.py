"""Makes an account for a person in Airflow and in MLflow, with what the person may do.

``python infra/people.py ada viewer`` asks for a password, or takes it from ``PERSON_PASSWORD``: everybody can read the
arguments of a process. It signs in as the administrators of both, from the environment that docker-compose.yaml gives
to ``airflow-init``. An account that is there gets the role, and keeps its password.
"""

from __future__ import annotations

import argparse
import getpass
import os
from collections.abc import Mapping

import httpx

SHORTEST_PASSWORD = 12
# What each role may do in Airflow besides looking, as action and resource; and with registered models in MLflow.
PEOPLES_ROLES: dict[str, tuple[str, tuple[tuple[str, str], ...], str]] = {
    "viewer": ("Viewer", (), "READ"),
    "trainer": (
        "Trainer",
        # Airflow asks for the right to edit a DAG of who begins one of its runs.
        (("can_edit", "DAGs"), ("can_create", "DAG Runs"), ("can_edit", "DAG Runs"), ("can_edit", "Task Instances")),
        "READ",
    ),
    "approver": ("Approver", (("can_edit", "DAGs"), ("can_edit", "HITL Detail")), "EDIT"),
}


class People:
    """The accounts of both servers."""

    def __init__(self, airflow: str, mlflow: str, variables: Mapping[str, str]) -> None:
        """Sign in.

        Args:
            airflow: Address of the API server.
            mlflow: Address of MLflow.
            variables: ``AIRFLOW_ADMIN_USERNAME``, ``AIRFLOW_ADMIN_PASSWORD``, and MLflow's own for its clients.

        Raises:
            httpx.HTTPStatusError: A server does not know its administrator.
        """
        login = {part: variables[f"AIRFLOW_ADMIN_{part.upper()}"] for part in ("username", "password")}
        token = httpx.post(f"{airflow}/auth/token", json=login, timeout=60).raise_for_status().json()["access_token"]
        self.airflow = httpx.Client(
            base_url=f"{airflow}/auth/fab/v1", headers={"Authorization": f"Bearer {token}"}, timeout=60
        )
        known = (variables["MLFLOW_TRACKING_USERNAME"], variables["MLFLOW_TRACKING_PASSWORD"])
        self.mlflow = httpx.Client(base_url=f"{mlflow}/api", auth=known, timeout=60)

    def admit(self, name: str, role: str, password: str) -> None:
        """Make the accounts, or give those that are there the role.

        Raises:
            httpx.HTTPStatusError: A server refuses.
        """
        title, rights, on_models = PEOPLES_ROLES[role]
        if rights:
            self._make_role(title, rights)
        about = {"username": name, "email": f"{name}@localhost", "first_name": name, "last_name": role}
        if self.airflow.get(f"/users/{name}").status_code == 404:
            made = self.airflow.post("/users", json={**about, "roles": [{"name": title}], "password": password})
        else:
            changed = {**about, "roles": [{"name": title}]}
            made = self.airflow.patch(f"/users/{name}", params={"update_mask": "roles"}, json=changed)
        made.raise_for_status()
        if self.mlflow.get("/2.0/mlflow/users/get", params={"username": name}).status_code == 404:
            account = {"username": name, "password": password}
            self.mlflow.post("/2.0/mlflow/users/create", json=account).raise_for_status()
        models = {"username": name, "resource_type": "registered_model", "resource_id": "*"}
        # MLflow grants only what is not granted yet.
        self.mlflow.post("/3.0/mlflow/users/permissions/revoke", json=models)
        grant = {**models, "permission": on_models}
        self.mlflow.post("/3.0/mlflow/users/permissions/grant", json=grant).raise_for_status()

    def _make_role(self, title: str, rights: tuple[tuple[str, str], ...]) -> None:
        """A role of Airflow that may look, and do what ``rights`` say."""
        looking = self.airflow.get("/roles/Viewer").raise_for_status().json()["actions"]
        more = [{"action": {"name": action}, "resource": {"name": resource}} for action, resource in rights]
        role = {"name": title, "actions": [*looking, *more]}
        if self.airflow.get(f"/roles/{title}").status_code == 404:
            self.airflow.post("/roles", json=role).raise_for_status()
        else:
            self.airflow.patch(f"/roles/{title}", json=role).raise_for_status()


def admit_from_command_line() -> None:
    """What the command does."""
    parser = argparse.ArgumentParser(description="Make an account for a person in Airflow and in MLflow.")
    parser.add_argument("name", help="letters, digits, and . _ -")
    parser.add_argument(
        "role", choices=list(PEOPLES_ROLES), help="viewer: looks; trainer: begins runs; approver: approves"
    )
    given = parser.parse_args()
    if not given.name.replace(".", "").replace("_", "").replace("-", "").isalnum():
        parser.error(f"{given.name!r} is no name: give letters, digits, and . _ -")
    password = os.environ.get("PERSON_PASSWORD") or getpass.getpass(f"Password of {given.name}: ")
    if len(password) < SHORTEST_PASSWORD:
        parser.error(f"the password is too short: give at least {SHORTEST_PASSWORD} characters")
    airflow = os.environ["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"].removesuffix("/execution/")
    try:
        People(airflow, os.environ["MLFLOW_TRACKING_URI"], os.environ).admit(given.name, given.role, password)
    except httpx.HTTPStatusError as error:
        raise SystemExit(f"{error.request.url} says {error.response.status_code}: {error.response.text}") from error
    except httpx.HTTPError as error:
        raise SystemExit(f"A server does not answer ({error}): start the stack first.") from error
    print(f"{given.name} is {given.role} in Airflow and MLflow.")


if __name__ == "__main__":
    admit_from_command_line()
