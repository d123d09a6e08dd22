"""The registered model, loaded by MLflow itself: a model from code, with nothing pickled in it."""

import base64
import json
import uuid
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import yaml
from mlflow.pyfunc import scoring_server

from cxr_tasks import tracking
from cxr_tasks.serving.predictor import Predictor
from cxr_tasks.steps.served_facts import log_trained
from tests.serving.networks import CLASSES

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def registered(mlflow_server: str, model_folder: Path) -> Any:
    """A registered version with the alias champion."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
        with mlflow.start_run(experiment_id=tracking.experiment_id("models of serving")):
            uri = log_trained(model_folder, model_folder)
        version = tracking.register(uri, f"cxr-{uuid.uuid4().hex}", {})
        tracking.set_alias(version.name, "champion", version.version)
        yield version


@pytest.fixture(scope="module")
def loaded(registered: Any) -> Any:
    return mlflow.pyfunc.load_model(f"models:/{registered.name}@champion")


def test_bytes_base64_and_tables_are_answered_alike(
    loaded: Any, registered: Any, model_folder: Path, xrays: list[Path]
) -> None:
    content = xrays[0].read_bytes()
    text = base64.b64encode(content).decode()
    predictor = Predictor.load(model_folder, registered.name, str(registered.version))
    expected = [answer.model_dump(mode="json") for answer in predictor.predict([content])]

    for given in ([content], [text], pd.DataFrame({"image": [content]}), pd.Series([text]), {"image": [text]}):
        assert loaded.predict(given) == expected
    assert expected[0]["version"] == "1" and expected[0]["model"] == registered.name


@pytest.mark.parametrize("form", ["inputs", "instances", "rows", "dataframe_records", "dataframe_split"])
def test_mlflows_own_server_takes_every_form(form: str, loaded: Any, xrays: list[Path]) -> None:
    texts = [base64.b64encode(path.read_bytes()).decode() for path in xrays[:2]]
    bodies = {
        "inputs": texts,
        "instances": texts,
        "rows": [{"image": text} for text in texts],
        "dataframe_records": [{"image": text} for text in texts],
        "dataframe_split": {"columns": ["image"], "data": [[text] for text in texts]},
    }

    answer = scoring_server.invocations(
        json.dumps({"instances" if form == "rows" else form: bodies[form]}),
        "application/json",
        loaded,
        loaded.metadata.get_input_schema(),
    )

    told = json.loads(answer.response)["predictions"]
    assert [each["error"] for each in told] == ["", ""]
    assert answer.status == 200 and [set(each["probabilities"]) for each in told] == [set(CLASSES)] * 2


@pytest.mark.parametrize("form", ["instances", "dataframe_records"])
def test_a_table_of_another_column_is_refused(form: str, loaded: Any) -> None:
    call = json.dumps({form: [{"picture": "x"}]})

    with pytest.raises(mlflow.MlflowException) as refused:
        scoring_server.invocations(call, "application/json", loaded, loaded.metadata.get_input_schema())

    assert refused.value.get_http_status_code() == 400 and "give the field image alone" in str(refused.value)


def test_nothing_of_it_is_pickled_and_its_requirements_are_pinned(registered: Any, tmp_path: Path) -> None:
    network = tracking.fetch_version(registered, tmp_path)
    root = network.parents[2]
    described = yaml.safe_load((root / "MLmodel").read_text())

    assert {path.suffix for path in root.rglob("*") if path.is_file()} <= {
        ".keras",
        ".json",
        ".npy",
        ".py",
        ".yaml",
        ".txt",
        "",
    }
    assert described["flavors"]["python_function"]["loader_module"] == "mlflow.pyfunc.loaders.code_model"
    assert "python_model" not in described["flavors"]["python_function"]
    assert described["metadata"]["classes"] == list(CLASSES) and described["signature"]["outputs"]
    lines = (root / "requirements.txt").read_text().split()
    assert all("==" in line for line in lines) and any(line.startswith("pydicom==") for line in lines)


def test_the_product_reads_the_network_beside_the_code(registered: Any, loaded: Any) -> None:
    assert tracking.load_version(registered).output_shape == (None, len(CLASSES))
