"""No credential is in the repository, and none that an address holds is repeated."""

import re
import subprocess
from pathlib import Path

import pytest

from cxr_tasks.tracking import artifact_url, run_url, search_url

ROOT = Path(__file__).parents[1]
# What credentials look like, of those that have a look of their own.
LOOKS = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"
    r"|\bgh[pousr]_[A-Za-z0-9]{30,}|\bgithub_pat_\w{30,}|\bglpat-[\w-]{20,}|\bxox[abprs]-[\w-]{10,}|\bhf_[A-Za-z0-9]{30,}"
    r"|\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"
    r"|\b[a-z][a-z0-9+]*://[^\s/:@${}\"'<>]*:(?!password@|secret@)[^\s/:@${}\"'<>]{8,}@"
    r"|(?i:\b\w*(?:password|secret|token|api_?key)\w*\"?\s*[:=]\s*[\"']?(?=[^\s\"']*\d)(?=[^\s\"']*[a-z])[A-Za-z0-9+/_-]{24,}[=]*[\"']?\s*$)"
)


def in_the_repository() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("this is no checkout of git")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_holds_a_credential() -> None:
    found = []
    for path in in_the_repository():
        text = path.read_text(encoding="utf-8", errors="replace")
        lines = enumerate(text.splitlines(), start=1) if path.suffix != ".lock" else []
        found += [f"{path.relative_to(ROOT)}:{number}" for number, line in lines if LOOKS.search(line)]

    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "-----BEGIN " + "RSA PRIVATE KEY-----",
        "AKIA" + "IOSFODNN7EXAMPLE",
        "token = 'ghp_" + "a1" * 18 + "'",
        "redis://:0f" + "3a9c" * 8 + "@redis",
        "postgresql://airflow:" + "3a9c" * 8 + "@postgres/airflow",
        "REDIS_PASSWORD=" + "0f3a9c" * 8,
        'SECRET_KEY: "' + "0f3a9c" * 8 + '"',
        "Bearer eyJ" + "hbGciOiJIUzUx." + "eyJ" + "zdWIiOiIxIiwi." + "RS341g31O-1oIO",
    ],
)
def test_a_credential_would_be_found(line: str) -> None:
    assert LOOKS.search(line)


def test_files_that_hold_secrets_are_ignored() -> None:
    names = [".env", ".cxr/jwt-secret", "backup/monday/env", "sbom/a.json"]
    done = subprocess.run(["git", "check-ignore", *names], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 128:
        pytest.skip("this is no checkout of git")

    assert done.stdout.split() == names
    assert not {path.name for path in in_the_repository()} & {".env", "key.pem", "kaggle.json", ".netrc"}


def test_a_password_in_mlflows_address_is_in_no_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://somebody:hidden@mlflow.example:5000/")
    monkeypatch.delenv("CXR_MLFLOW_UI", raising=False)

    for link in (run_url("1", "a"), artifact_url("1", "a", "b.txt"), search_url("1", "a = 1", "b")):
        assert link.startswith("https://mlflow.example:5000/#/experiments/1") and "hidden" not in link
