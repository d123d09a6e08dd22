"""docker-compose.yaml as Compose reads it."""

import re
from collections.abc import Mapping
from pathlib import Path

import httpx
import yaml
from cryptography.fernet import Fernet

from infra.embedded.airflow_api import AirflowApi

ROOT = Path(__file__).parents[2]
COMPOSE_TEXT = (ROOT / "docker-compose.yaml").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load(COMPOSE_TEXT)
SERVICES = {name: {"environment": {}, **service} for name, service in COMPOSE["services"].items()}
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<operator>[-?])(?P<rest>[^}]*))?\}")
FERNET_KEY = Fernet.generate_key().decode()


def example() -> dict[str, str]:
    """The variables of env.example, as Compose reads them."""
    lines = (ROOT / "infra/env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def filled() -> dict[str, str]:
    """env.example as a user fills it in; every value tells which variable it belongs to."""
    values = {name: value or f"filled-{name.replace('_', '-').lower()}" for name, value in example().items()}
    return values | {"CXR_DATA": "/tmp", "AIRFLOW_FERNET_KEY": FERNET_KEY, "CXR_GPU_QUEUE": "gpu"}


def resolve(value: object, values: dict[str, str]) -> str:
    """Put variables in as Compose does."""

    def put(match: re.Match[str]) -> str:
        default = match["rest"] or "" if match["operator"] == "-" else ""
        return values.get(match["name"]) or default

    return VARIABLE.sub(put, str(value)).replace("$$", "$")


def environment(service: str) -> dict[str, str]:
    """The variables of a service."""
    return {name: resolve(value, filled()) for name, value in SERVICES[service]["environment"].items()}


def command(service: str) -> list[str]:
    """The command of a service."""
    return [resolve(part, filled()) for part in SERVICES[service]["command"]]


class SignedInApi(AirflowApi):
    """A client of an API that asks who one is."""

    def __init__(self, url: str, variables: Mapping[str, str]) -> None:
        """Sign in as the administrator whom ``variables`` name."""
        self._account = {part: variables[f"AIRFLOW_ADMIN_{part.upper()}"] for part in ("username", "password")}
        super().__init__(url)

    def _sign_in(self) -> None:
        answer = httpx.post(f"{self.url}/auth/token", json=self._account, timeout=60).raise_for_status()
        self.http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
