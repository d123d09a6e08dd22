"""MLflow's own webhooks, as the documentation says: whoever listens hears of a new champion."""

from __future__ import annotations

import json
import uuid

import pytest
from mlflow import MlflowClient

from tests.servers import listening

pytestmark = pytest.mark.slow


def test_who_listens_hears_of_a_new_champion(mlflow_server: str) -> None:
    client, name = MlflowClient(mlflow_server), f"cxr-{uuid.uuid4().hex}"
    client.create_registered_model(name)
    run = client.create_run("0").info
    client.create_model_version(name, f"{run.artifact_uri}/model", run.run_id)
    with listening() as (address, said):
        webhook = client.create_webhook(name, f"{address}/champions", ["model_version_alias.created"])
        try:
            client.set_registered_model_alias(name, "champion", "1")

            path, body = said.get(timeout=60)
        finally:
            client.delete_webhook(webhook.webhook_id)
    assert path == "/champions" and json.loads(body)["data"] == {"name": name, "alias": "champion", "version": "1"}
