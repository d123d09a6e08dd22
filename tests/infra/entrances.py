"""The doors of docker-compose.yaml on loopback: PostgreSQL, Redis, Airflow's API server and MLflow, with its settings.

Before Airflow and MLflow stands nginx with a certificate of its own making, where nginx is installed.
"""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.infra.celery_stack import CeleryStack, answers, until
from tests.infra.compose import ROOT, SignedInApi, command, environment
from tests.infra.tls import AIRFLOW_NAME, HAS_NGINX, MLFLOW_NAME, browser, tls_variables
from tests.servers import free_port


class Entrances(CeleryStack):
    """Starts the doors, and nothing that works behind them.

    Attributes:
        airflow: The address of the API server, past nginx.
        airflow_url: What people type.
        mlflow_url: Likewise.
    """

    def __init__(self, folder: Path, dags: Path) -> None:
        """Nothing is started yet."""
        self.tls_port, self.http_port = free_port(), free_port()
        self.airflow_url = f"https://{AIRFLOW_NAME}:{self.tls_port}"
        self.mlflow_url = f"https://{MLFLOW_NAME}:{self.tls_port}"
        super().__init__(folder, dags, AIRFLOW__API__BASE_URL=self.airflow_url)
        self.airflow = f"http://127.0.0.1:{self.api_port}"

    def start(self) -> SignedInApi:
        """Start everything; returns a client of Airflow's API."""
        self.folder.mkdir(parents=True)
        self.start_postgres()
        self.start_redis()
        self._once("databases", ["bash", str(ROOT / "infra/postgres/databases.sh")], self._postgres_variables())
        cors = {"MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": self.mlflow_url}
        self.serve_mlflow(str(self.folder / "artifacts"), f",{MLFLOW_NAME}:*", **cors)
        self._once("init", ["sh", str(ROOT / "infra/airflow/init.sh")], self.variables)
        self._once("DAGs", ["airflow", "dags", "reserialize"], self.variables)
        self._serve("api-server", [part.replace("8080", str(self.api_port)) for part in command("api-server")])
        if HAS_NGINX:
            self._start_nginx()
            until(lambda: answers(f"http://127.0.0.1:{self.http_port}/healthy"), "nginx answers")
        self.until_api_answers()
        return SignedInApi(self.airflow, environment("airflow-init"))

    def browser(self) -> httpx.Client:
        """A client that trusts the certificate and knows the names."""
        return browser(self.folder)

    def _start_nginx(self) -> None:
        given = tls_variables(self.folder, self.tls_port, self.http_port, self.api_port, self.mlflow_port)
        self._serve("tls", ["sh", str(ROOT / "infra/tls/start.sh")], given)
