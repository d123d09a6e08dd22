"""nginx of infra/tls on loopback, with a certificate of its own making."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
from pathlib import Path

import httpx

AIRFLOW_NAME, MLFLOW_NAME = "airflow.localhost", "mlflow.localhost"
HAS_NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") is not None


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


def browser(folder: Path) -> httpx.Client:
    """A client that trusts the certificate below ``folder`` and knows both names."""
    trusting = ssl.create_default_context(cafile=str(folder / "certificates" / "certificate.pem"))
    return httpx.Client(transport=ToThisMachine(verify=trusting), timeout=120)


def tls_variables(folder: Path, tls_port: int, http_port: int, airflow_port: int, mlflow_port: int) -> dict[str, str]:
    """The variables of infra/tls/start.sh, with a new certificate and a folder for nginx's files."""
    for name in ("certificates", "nginx"):
        (folder / name).mkdir(parents=True)
    make_certificate(folder / "certificates")
    return {
        "AIRFLOW_URL": f"https://{AIRFLOW_NAME}:{tls_port}",
        "MLFLOW_URL": f"https://{MLFLOW_NAME}:{tls_port}",
        "AIRFLOW_SERVER": f"127.0.0.1:{airflow_port}",
        "MLFLOW_SERVER": f"127.0.0.1:{mlflow_port}",
        "CERTIFICATES": str(folder / "certificates"),
        "SCRATCH": str(folder / "nginx"),
        "TLS_LISTEN": f"127.0.0.1:{tls_port}",
        "HTTP_LISTEN": f"127.0.0.1:{http_port}",
        "PATH": f"{os.environ['PATH']}:/usr/sbin",
    }
