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

from tests.infra.celery_stack import CeleryStack
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
        mlflow: That of MLflow.
        airflow_url: What people type.
        mlflow_url: Likewise.
    """

    def __init__(self, folder: Path, dags: Path) -> None:
        """Nothing is started yet."""
        self.mlflow_port, self.tls_port, self.http_port = free_port(), free_port(), free_port()
        self.airflow_url = f"https://{AIRFLOW_NAME}:{self.tls_port}"
        self.mlflow_url = f"https://{MLFLOW_NAME}:{self.tls_port}"
        super().__init__(folder, dags, AIRFLOW__API__BASE_URL=self.airflow_url, AIRFLOW__CORE__LAZY_LOAD_PLUGINS="true")
        self.airflow, self.mlflow = f"http://127.0.0.1:{self.api_port}", f"http://127.0.0.1:{self.mlflow_port}"
        self.certificates = folder / "certificates"

    def start(self) -> SignedInApi:
        """Start everything; returns a client of Airflow's API."""
        self.certificates.mkdir(parents=True)
        make_certificate(self.certificates)
        self.start_postgres()
        self.start_redis()
        self._once("databases", ["bash", str(ROOT / "infra/postgres/databases.sh")], self._postgres_variables())
        self._start_mlflow()
        self._once("init", ["sh", str(ROOT / "infra/airflow/init.sh")], self.variables)
        self._once("DAGs", ["airflow", "dags", "reserialize"], self.variables)
        self._serve("api-server", [part.replace("8080", str(self.api_port)) for part in command("api-server")])
        if HAS_NGINX:
            self._start_nginx()
            self._until(lambda: answers(f"http://127.0.0.1:{self.http_port}/healthy"), "nginx")
        self._until(self._api_answers, "the API server")
        self._until(lambda: answers(f"{self.mlflow}/health"), "MLflow")
        return SignedInApi(self.airflow, environment("airflow-init"))

    def browser(self, **headers: str) -> httpx.Client:
        """A client that trusts the certificate and knows the names."""
        trusting = ssl.create_default_context(cafile=str(self.certificates / "certificate.pem"))
        return httpx.Client(transport=ToThisMachine(verify=trusting), headers=headers, timeout=120)

    def _start_mlflow(self) -> None:
        given = environment("mlflow")
        given = {
            name: value.replace("@postgres:5432", f"@127.0.0.1:{self.postgres_port}") for name, value in given.items()
        }
        given |= {"MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": self.mlflow_url, "HOME": str(self.folder)}
        given |= {"MLFLOW_AUTH_CONFIG_PATH": str(self.folder / "mlflow-basic-auth.ini"), "PATH": self.variables["PATH"]}
        places = {
            "--host=0.0.0.0": "--host=127.0.0.1",
            "--port=5000": f"--port={self.mlflow_port}",
            "--workers=2": "--workers=1",
        }
        arguments = [places.get(each, each) for each in command("mlflow")]
        arguments = [each.replace("s3://cxr/mlflow", str(self.folder / "artifacts")) for each in arguments]
        arguments = [f"{each},{MLFLOW_NAME}:*" if each.startswith("--allowed-hosts") else each for each in arguments]
        self._serve("mlflow", ["sh", str(ROOT / "mlflow/start.sh"), *arguments], given)

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


def answers(url: str) -> bool:
    """Whether a server is there."""
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
