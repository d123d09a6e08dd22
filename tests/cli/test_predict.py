"""``cxr predict`` on a training in the store: one image in words, a folder as a table, and files that are none."""

import csv
import io
import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest

from cxr_tasks import tracking
from cxr_tasks.artifacts import TrainedModel
from cxr_tasks.data.decode import decode
from cxr_tasks.serving.model_facts import ModelFacts
from cxr_tasks.serving.predictor import UNKNOWN_USUAL, Predictor, as_sentence
from cxr_tasks.steps.served_facts import log_trained
from cxr_tasks.store import FolderStore
from tests.servers import free_port
from tests.serving.networks import CLASSES, write_model

REF = "train_arm/0123456789abcdef"
# A training without an evaluation.
BARE = "train_arm/ffff000000000000"


@pytest.fixture(scope="module")
def files(phantoms: Path) -> list[Path]:
    return sorted(phantoms.glob("*/images/*.png"))[:12]


@pytest.fixture
def trained(store: FolderStore, files: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The files of a training that is in the store of the command with its evaluation."""
    thumbnails = np.stack([decode(path.read_bytes(), path.name, []).thumbnail for path in files])
    made = write_model(tmp_path / "model", thumbnails)
    for ref in (REF, BARE):
        with store.publish(ref, {"step": "train_arm", "settings": {"classes": list(CLASSES)}, "made": {}}) as folder:
            shutil.copy(made / TrainedModel.MODEL, folder)
    record = {"step": "evaluate_arm", "inputs": {"model": REF, "dataset": "split/0"}}
    with store.publish("evaluate_arm/0123456789abcdef", record) as folder:
        for name in (ModelFacts.FILE, ModelFacts.TYPICAL):
            shutil.copy(made / name, folder)
    monkeypatch.setenv("CXR_STORE", str(store.root))
    return made


def test_an_image_is_answered_in_words(cxr: Callable[..., Any], trained: Path, files: list[Path]) -> None:
    expected = Predictor.load(trained, REF).predict([files[0].read_bytes()])[0]

    done = cxr("predict", files[0], "--model", REF, "--store", os.environ["CXR_STORE"])

    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(expected.decision) and "not for diagnosis" in " ".join(done.stdout.split())
    assert all(name in done.stdout for name in CLASSES)


def test_warnings_are_those_of_the_evaluation_of_the_training(
    cxr: Callable[..., Any], trained: Path, files: list[Path]
) -> None:
    known, bare = (json.loads(cxr("predict", files[0], "--model", ref, "--json").stdout) for ref in (REF, BARE))

    expected = Predictor.load(trained, REF).predict([files[0]])[0]
    assert known["warnings"] == list(expected.warnings) and known["reached"] == list(expected.reached)
    assert bare["warnings"] == [as_sentence(UNKNOWN_USUAL)] and bare["probabilities"] == known["probabilities"]


def test_a_folder_becomes_a_table_and_a_bad_file_a_line(
    cxr: Callable[..., Any], trained: Path, files: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "given"
    (folder / "more").mkdir(parents=True)
    for path in files[:3]:
        (folder / "more" / path.name).write_bytes(path.read_bytes())
    (folder / "=cmd.png").write_bytes(b"a text")
    (folder / "cut.png").write_bytes(files[0].read_bytes()[:300])
    expected = Predictor.load(trained, REF).predict([path.read_bytes() for path in files[:3]])

    done = cxr("predict", folder, "--model", REF, "--csv", tmp_path / "answers.csv", "--store", os.environ["CXR_STORE"])

    rows = list(csv.DictReader(io.StringIO((tmp_path / "answers.csv").read_text())))
    assert done.exit_code == 1 and "5 images in" in " ".join(done.stdout.split())
    assert [row["file"] for row in rows[:2]] == ["'=cmd.png", "cut.png"]
    assert rows[0]["error"] == "The file is not an image." and "cut off" in rows[1]["error"]
    assert [row["decision"] for row in rows[2:]] == [answer.decision for answer in expected]
    assert [float(row["COVID"]) for row in rows[2:]] == pytest.approx(
        [a.probabilities["COVID"] for a in expected], abs=1e-5
    )
    assert all(row["model"] == REF and row["error"] == "" for row in rows[2:])


def test_answers_are_json_for_programs(cxr: Callable[..., Any], trained: Path, files: list[Path]) -> None:
    done = cxr("predict", files[0], "--model", REF, "--json", "--store", os.environ["CXR_STORE"])

    assert json.loads(done.stdout)["decision"] in CLASSES


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nothing.png"], "There is no file or folder nothing.png"),
        (["."], "holds no file"),
        (["x.png", "--model", "train_arm/ffffffffffffffff"], "The store has no training"),
    ],
)
def test_what_cannot_be_done_is_said(
    arguments: list[str], sentence: str, cxr: Callable[..., Any], store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    if arguments[0] == "x.png":
        Path("x.png").write_bytes(b"x")

    done = cxr("predict", *arguments, "--store", store.root)

    assert done.exit_code == 2 and sentence in " ".join(done.output.split())


def test_a_server_that_others_reach_needs_a_token(cxr: Callable[..., Any]) -> None:
    done = cxr("serve", "--host", "192.0.2.1")

    assert done.exit_code == 2 and "set SERVING_TOKEN" in " ".join(done.output.split())


@pytest.mark.slow
def test_a_registered_model_is_asked_by_its_alias_and_by_its_number(
    cxr: Callable[..., Any], trained: Path, files: list[Path], mlflow_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"cxr-{uuid.uuid4().hex}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    with mlflow.start_run(experiment_id=tracking.experiment_id("models that are asked")):
        version = tracking.register(log_trained(trained, trained), name, {})
    tracking.set_alias(name, "champion", version.version)
    expected = Predictor.load(trained, name, "1").predict(files[:2])

    told = [
        json.loads(cxr("predict", files[place], "--model", asked, "--mlflow", mlflow_server, "--json").stdout)
        for place, asked in enumerate((f"{name}@champion", f"models:/{name}/1"))
    ]
    nobody = cxr("predict", files[0], "--model", f"{name}@nobody", "--mlflow", mlflow_server)
    closed = cxr("predict", files[0], "--model", f"{name}@champion", "--mlflow", f"http://127.0.0.1:{free_port()}")

    assert len(told) == len(expected) == 2
    for one, other in zip(told, expected, strict=True):
        assert (one["decision"], one["model"], one["version"]) == (other.decision, name, "1")
        assert list(one["probabilities"].values()) == pytest.approx(list(other.probabilities.values()), abs=1e-5)
        assert one["warnings"] == list(other.warnings)
    assert nobody.exit_code == 2 and "MLflow has no registered model" in " ".join(nobody.output.split())
    assert closed.exit_code == 2 and "Traceback" not in closed.output
