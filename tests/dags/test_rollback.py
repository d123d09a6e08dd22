"""The DAG ``cxr_rollback`` in a real Airflow, on a real registry: it says who asked, and another try goes back once."""

import json
import uuid

import pytest
from mlflow import MlflowClient

pytestmark = pytest.mark.slow

RUN = """
import json
from airflow.dag_processing.dagbag import BundleDagBag
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
bag = BundleDagBag(DAGS, bundle_path=DAGS, bundle_name="dags")
dag = bag.dags["cxr_rollback"]
said, states = [], []
for form in FORMS:
    run = dag.test(run_conf=form)
    states.append(run.state)
    with create_session() as session:
        rows = session.query(XComModel).filter_by(run_id=run.run_id, key="return_value")
        said += [XComModel.deserialize_value(row) for row in rows]
print(json.dumps([said, states]))
"""


def test_the_champion_before_is_champion_again(in_airflow, airflow_environment, mlflow_server, tmp_path):
    client, name = MlflowClient(mlflow_server), f"cxr-{uuid.uuid4().hex}"
    client.create_registered_model(name)
    run = client.create_run("0").info
    for replaced in ("", "1", "2"):
        source = f"{run.artifact_uri}/model"
        client.create_model_version(name, source, run.run_id, tags={"cxr.replaced_version": replaced})
    client.set_registered_model_alias(name, "champion", "3")
    forms = [{"model": name, "reason": "misses children"}, {"model": "cxr-nothing", "reason": "misses children"}]
    script = f"DAGS = {airflow_environment['AIRFLOW__CORE__DAGS_FOLDER']!r}\nFORMS = {forms!r}\n{RUN}"

    said, states = json.loads(in_airflow(script, MLFLOW_TRACKING_URI=mlflow_server, CXR_STORE=str(tmp_path)))

    assert states == ["success", "failed"]
    told = "was rolled back by dag_test: misses children"
    assert said == [{"name": name, "version": "2", "words": f"Champion again: version 3 {told}"}]
    assert client.get_model_version_by_alias(name, "champion").version == "2"
    assert client.get_model_version(name, "3").tags["cxr.rolled_back"].endswith(" by dag_test: misses children")
