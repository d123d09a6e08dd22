"""The doors of docker-compose.yaml on loopback: PostgreSQL, Redis, Airflow's API server and MLflow, with its settings.

Before Airflow and MLflow stands nginx with a certificate of its own making, where nginx is installed.
"""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
from pathlib import Path

import httpx

from tests.infra.celery_stack import CeleryStack, answers
from tests.infra.compose import ROOT, SignedInApi, command, environment
from tests.servers import free_port

AIRFLOW_NAME, MLFLOW_NAME = "airflow.localhost", "mlflow.localhost"
HAS_NGINX = shutil.which("nginx") is not None


class ToThisMachine(httpx.HTTPTransport):
    """Finds every name on this machine, whatever its resolver knows."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Ask 127.0.0.1, with the name in TLS and in the header."""
        told = {**request.extensions, "sni_hostname": request.url.host}
        url = request.url.copy_with(host="127.0.0.1")
        return super().handle_request(
            httpx.Request(request.method, url, headers=request.headers, stream=request.stream, extensions=told)
        )


def make_certificate(folder: Path) -> None:
    """A certificate for both names that only who trusts it itself accepts."""
    names = ",".join(f"DNS:{name}" for name in (AIRFLOW_NAME, MLFLOW_NAME))
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=cxr"]
    made += ["-addext", f"subjectAltName={names}", "-keyout", "key.pem", "-out", "certificate.pem"]
    subprocess.run(made, cwd=folder, check=True, capture_output=True)


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
        super().__init__(folder, dags, AIRFLOW__API__BASE_URL=self.airflow_url, AIRFLOW__CORE__LAZY_LOAD_PLUGINS="true")
        self.airflow = f"http://127.0.0.1:{self.api_port}"
        self.certificates = folder / "certificates"

    def start(self) -> SignedInApi:
        """Start everything; returns a client of Airflow's API."""
        self.certificates.mkdir(parents=True)
        make_certificate(self.certificates)
        self.start_postgres()
        self.start_redis()
        self._once("databases", ["bash", str(ROOT / "infra/postgres/databases.sh")], self._postgres_variables())
        cors = {"MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": self.mlflow_url}
        self.start_mlflow(str(self.folder / "artifacts"), f",{MLFLOW_NAME}:*", **cors)
        self._once("init", ["sh", str(ROOT / "infra/airflow/init.sh")], self.variables)
        self._once("DAGs", ["airflow", "dags", "reserialize"], self.variables)
        self._serve("api-server", [part.replace("8080", str(self.api_port)) for part in command("api-server")])
        if HAS_NGINX:
            self._start_nginx()
            self._until(lambda: answers(f"http://127.0.0.1:{self.http_port}/healthy"), "nginx")
        self._until(self._api_answers, "the API server")
        return SignedInApi(self.airflow, environment("airflow-init"))

    def browser(self, **headers: str) -> httpx.Client:
        """A client that trusts the certificate and knows the names."""
        trusting = ssl.create_default_context(cafile=str(self.certificates / "certificate.pem"))
        return httpx.Client(transport=ToThisMachine(verify=trusting), headers=headers, timeout=120)

    def _start_nginx(self) -> None:
        (self.folder / "nginx").mkdir()
        given = {"AIRFLOW_URL": self.airflow_url, "MLFLOW_URL": self.mlflow_url, "CERTIFICATES": str(self.certificates)}
        given |= {"TLS_LISTEN": f"127.0.0.1:{self.tls_port}", "HTTP_LISTEN": f"127.0.0.1:{self.http_port}"}
        given |= {
            "AIRFLOW_SERVER": self.airflow.removeprefix("http://"),
            "MLFLOW_SERVER": self.mlflow.removeprefix("http://"),
        }
        given |= {"SCRATCH": str(self.folder / "nginx"), "PATH": f"{os.environ['PATH']}:/usr/sbin"}
        self._serve("tls", ["sh", str(ROOT / "infra/tls/start.sh")], given)
