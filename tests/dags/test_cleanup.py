"""The DAG ``cxr_cleanup`` in a real Airflow, with a real MLflow."""

import json

import pytest

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

RUN = """
import json
from airflow.dag_processing.dagbag import BundleDagBag
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
run = BundleDagBag(DAGS, bundle_path=DAGS, bundle_name="dags").dags["cxr_cleanup"].test(run_conf={"only_list": True})
with create_session() as session:
    rows = session.query(XComModel).filter_by(run_id=run.run_id, key="return_value")
    said = [XComModel.deserialize_value(row) for row in rows]
print(json.dumps([run.state, said]))
"""


def test_it_says_what_would_go(in_airflow, airflow_environment, mlflow_server, tmp_path):
    script = f"DAGS = {airflow_environment['AIRFLOW__CORE__DAGS_FOLDER']!r}\n{RUN}"

    state, (said,) = json.loads(in_airflow(script, MLFLOW_TRACKING_URI=mlflow_server, CXR_STORE=str(tmp_path)))

    assert state == "success"
    assert said["only_listed"] and (said["artifacts"], said["leftovers"], said["size"]) == (0, 0, 0)
