"""What people hear of runs in a real Airflow, over real HTTP, by a connection that ``CXR_NOTIFY`` names."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.servers import listening

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

RUN = """
import json, logging, sys
from airflow.dag_processing.dagbag import BundleDagBag
bag = BundleDagBag(DAGS, bundle_path=DAGS, bundle_name="dags")
said, logger = [], logging.getLogger("cxr_notices")
logger.addHandler(type("Ear", (logging.Handler,), {"emit": lambda self, record: said.append(record.getMessage())})())
sys.modules["cxr_notices"].SENT_AGAIN_AFTER = 0.1
states = [bag.dags["cxr_rollback"].test(run_conf=form).state for form in FORMS]
print(json.dumps([states, [each for each in said if each.startswith("The connection")]]))
"""


def connection(address: str) -> str:
    return json.dumps(
        {"conn_type": "apprise", "extra": {"config": {"path": address.replace("http", "json"), "tag": "all"}}}
    )


def test_a_success_and_a_failure_are_heard_by_those_who_asked_for_them_and_a_dead_service_stops_nothing(
    in_airflow: Callable[..., str],
    airflow_environment: dict[str, str],
    mlflow_server: str,
    tmp_path: Path,
) -> None:
    client, name = MlflowClient(mlflow_server), f"cxr-{uuid.uuid4().hex}"
    client.create_registered_model(name)
    run = client.create_run("0").info
    for replaced in ("", "1"):
        tags = {"cxr.replaced_version": replaced}
        client.create_model_version(name, f"{run.artifact_uri}/model", run.run_id, tags=tags)
    client.set_registered_model_alias(name, "champion", "2")
    forms = [{"model": name, "reason": "misses children"}, {"model": "cxr-nothing", "reason": "misses children"}]
    told = {"CXR_NOTIFY": "team on_call:failure nobody dead", "MLFLOW_TRACKING_URI": mlflow_server}
    told |= {"AIRFLOW_CONN_DEAD": connection("http://127.0.0.1:9/dead"), "CXR_STORE": str(tmp_path)}
    script = f"DAGS = {airflow_environment['AIRFLOW__CORE__DAGS_FOLDER']!r}\nFORMS = {forms!r}\n{RUN}"

    with listening() as (address, said):
        told |= {name: connection(f"{address}/{name}") for name in ("AIRFLOW_CONN_TEAM", "AIRFLOW_CONN_ON_CALL")}
        states, warned = json.loads(in_airflow(script, **told))

    assert states == ["success", "failed"]
    cannot, nothing = "The connection nobody cannot be used.", "The connection {} was told nothing."
    assert warned == [cannot, nothing.format("nobody"), nothing.format("dead")] * 2
    heard = [(path.rpartition("_")[2], json.loads(body)) for path, body in said.queue]
    failed = "cxr_rollback: the task roll_back has failed"
    assert [(who, each["type"], each["title"]) for who, each in heard] == [
        ("TEAM", "success", f"{name} version 1 is champion again"),
        ("TEAM", "failure", failed),
        ("CALL", "failure", failed),
    ]
    assert "was rolled back by dag_test: misses children" in heard[0][1]["message"]
    assert "cxr-nothing has no champion" in heard[1][1]["message"] and "\nLog: http" in heard[1][1]["message"]
