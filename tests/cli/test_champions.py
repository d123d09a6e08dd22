"""``cxr champions`` and ``cxr rollback`` on a real registry."""

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from mlflow import MlflowClient

pytestmark = pytest.mark.slow


@pytest.fixture
def name(mlflow_server: str) -> str:
    """A model whose version 2 replaced version 1 as champion, with a reason that looks like markup."""
    client, name = MlflowClient(mlflow_server), f"cxr-{uuid.uuid4().hex}"
    client.create_registered_model(name)
    run = client.create_run("0").info
    for version, told in (("1", "first [red]"), ("2", "better")):
        tags = {"cxr.champion_since": f"2026-11-0{version}T08:00:00+00:00", "cxr.decision": told, "cxr.arm": "[b]"}
        tags |= {"cxr.replaced_version": "1"} if version == "2" else {}
        client.create_model_version(name, f"{run.artifact_uri}/model", run.run_id, tags=tags)
    client.set_registered_model_alias(name, "champion", "2")
    return name


def test_champions_are_listed_and_rolled_back(cxr: Callable[..., Any], mlflow_server: str, name: str) -> None:
    shown = cxr("champions", "--mlflow", mlflow_server)
    done = cxr("rollback", name, "--reason", "misses children", "--mlflow", mlflow_server)
    told = json.loads(cxr("champions", "--mlflow", mlflow_server, "--json").stdout)

    assert shown.exit_code == 0 and "[red]" in shown.stdout and "[b]" in shown.stdout
    assert done.exit_code == 0, done.output
    assert "version 1. Champion again: version 2 was rolled back by " in " ".join(done.stdout.split())
    own = [version for version in told if version["name"] == name]
    assert [(version["version"], version["aliases"]) for version in own] == [("1", ["champion"]), ("2", [])]
    assert own[1]["tags"]["cxr.rolled_back"].endswith(": misses children")


def test_a_rollback_that_cannot_be_done_says_so(cxr: Callable[..., Any], mlflow_server: str) -> None:
    done = cxr("rollback", "cxr-nothing", "--reason", "misses children", "--mlflow", mlflow_server)

    assert done.exit_code == 2 and "cxr-nothing has no champion" in done.output


def test_a_server_that_does_not_answer_is_named(cxr: Callable[..., Any]) -> None:
    done = cxr("champions", "--mlflow", "http://127.0.0.1:9")

    assert done.exit_code == 2 and "MLflow does not answer at http://127.0.0.1:9" in done.output
