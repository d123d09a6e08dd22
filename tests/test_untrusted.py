"""What comes from outside runs no code: it is refused in a sentence, or read as plain numbers and text.

Every trap is sprung once on purpose, so that a trap that does not work makes its test fail.
"""

import ast
import logging
import pickle
import uuid
from pathlib import Path

import keras
import mlflow
import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from cxr_tasks import artifacts, tracking
from cxr_tasks.checkpoints import CheckpointFolder
from cxr_tasks.classifiers.backbones import build_backbone
from cxr_tasks.classifiers.weights import backbone_with_weights
from cxr_tasks.data.label_rules import split_labels
from cxr_tasks.data.stacks import mapped
from cxr_tasks.data.table_files import read_text_table
from cxr_tasks.errors import DataError, WeightsError
from tests.traps import Trap

ROOT = Path(__file__).parents[1]
IMAGES = np.zeros((4, 32, 32), np.uint8)
PICKLERS = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


@pytest.fixture
def trap(tmp_path: Path) -> Trap:
    return Trap(tmp_path / "sprung")


def spring(trap: Trap, path: Path) -> None:
    """Read a file as nobody should, and take the mark away."""
    if path.suffix == ".npy":
        np.load(path, allow_pickle=True)
    elif path.suffix == ".npz":
        list(np.load(path, allow_pickle=True).values())
    elif path.suffix == ".keras" and path.read_bytes().startswith(b"PK"):
        keras.models.load_model(path, safe_mode=False)
    else:
        pickle.loads(path.read_bytes())  # noqa: S301  the trap is ours
    assert trap.is_sprung
    trap.mark.unlink()


def is_a_sentence(text: str) -> bool:
    return "\n" not in text and text.endswith(".")


@pytest.mark.parametrize("name", ["w.h5", "w.weights.h5", "w.keras", "w.hdf5"])
def test_a_pickle_is_no_weights_file(name: str, trap: Trap, tmp_path: Path) -> None:
    path = trap.pickled(tmp_path / name)
    spring(trap, path)

    with pytest.raises(WeightsError, match="does not fit the vgg16 backbone") as refused:
        backbone_with_weights("vgg16", 32, str(path), "paper", IMAGES, seed=0)

    assert is_a_sentence(str(refused.value)) and not trap.is_sprung


def test_the_lambda_of_a_weights_file_does_not_run(trap: Trap, tmp_path: Path) -> None:
    path = trap.network(tmp_path / "w.keras", build_backbone("vgg16", 32))
    spring(trap, path)

    # Only the numbers of the layers are read.
    try:
        backbone_with_weights("vgg16", 32, str(path), "paper", IMAGES, seed=0).predict(np.zeros((1, 32, 32, 3)))
    except WeightsError as refused:
        assert is_a_sentence(str(refused))

    assert not trap.is_sprung


def test_a_network_with_a_lambda_in_the_store_is_refused(trap: Trap, tmp_path: Path) -> None:
    path = trap.network(tmp_path / "model.keras")
    spring(trap, path)

    with pytest.raises(DataError, match=r"model\.keras cannot be loaded") as refused:
        artifacts._load_model(path)

    assert is_a_sentence(str(refused.value)) and not trap.is_sprung


def test_an_array_of_objects_is_refused(trap: Trap, tmp_path: Path) -> None:
    path = trap.array(tmp_path / "pixels.npy")
    spring(trap, path)

    with pytest.raises(DataError, match="cannot be read as numbers") as refused:
        mapped(path)

    assert is_a_sentence(str(refused.value)) and not trap.is_sprung


def test_a_pickle_is_no_array(trap: Trap, tmp_path: Path) -> None:
    path = trap.pickled(tmp_path / "pixels.npy")

    with pytest.raises(DataError, match="cannot be read as numbers"):
        mapped(path)

    assert not trap.is_sprung


def test_a_checkpoint_with_objects_is_passed_over(trap: Trap, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    value = tf.Variable(1.0)
    folder = CheckpointFolder([value], tmp_path / "checkpoints", keep=2)
    folder.save(1, {}, {"numbers": np.arange(3)})
    folder.save(2, {}, {"numbers": np.arange(3)})
    path = tmp_path / "checkpoints" / "ckpt-2.npz"
    np.savez(path, numbers=np.array([trap], object))
    spring(trap, path)

    with caplog.at_level(logging.WARNING):
        restored = folder.restore()

    assert restored is not None and restored.number == 1 and "ckpt-2 is damaged" in caplog.text
    assert not trap.is_sprung


def test_a_table_whose_type_is_pickled_is_text(trap: Trap, tmp_path: Path) -> None:
    path = trap.table(tmp_path / "labels.parquet")
    pickle.loads(pq.read_schema(path).field("image").metadata[b"ARROW:extension:metadata"])  # noqa: S301  the trap is ours
    assert trap.is_sprung
    trap.mark.unlink()

    table = read_text_table(path)

    assert table["image"].tolist() == ["a.png"] and not trap.is_sprung


@pytest.mark.parametrize("name", ["labels.parquet", "labels.xlsx", "labels.csv.gz", "labels.zip"])
def test_a_pickle_is_no_table(name: str, trap: Trap, tmp_path: Path) -> None:
    path = trap.pickled(tmp_path / name)
    spring(trap, path)

    with pytest.raises(DataError, match="cannot be read") as refused:
        read_text_table(path)

    assert is_a_sentence(str(refused.value)) and not trap.is_sprung


@pytest.mark.parametrize(
    "inside", ["__import__('pathlib').Path('{mark}').touch()", "-" * 100_000 + "1", "1+" * 50_000 + "1", "[" * 300]
)
def test_a_cell_that_looks_like_a_list_is_only_text(inside: str, trap: Trap) -> None:
    assert split_labels("[" + inside.format(mark=trap.mark) + "]", "|")
    assert not trap.is_sprung


@pytest.mark.slow
@pytest.mark.usefixtures("mlflow_uri")
class TestRegisteredModels:
    """Whoever may edit models in MLflow may register one. A step loads it, with the rights of a worker."""

    def registered(self, model: keras.Model, **more: object) -> tuple[tracking.RegisteredVersion, str]:
        with mlflow.start_run(experiment_id=tracking.experiment_id("models of others")):
            uri = mlflow.tensorflow.log_model(model, name="model", pip_requirements=["keras"], **more).model_uri
        return tracking.register(uri, f"cxr-{uuid.uuid4().hex}", {}), uri

    def test_what_is_pickled_beside_a_network_is_not_read(self, trap: Trap) -> None:
        plain = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten()])
        version, uri = self.registered(plain, custom_objects={"trap": trap})
        mlflow.tensorflow.load_model(uri)
        assert trap.is_sprung
        trap.mark.unlink()

        loaded = tracking.load_version(version)

        assert loaded.predict(np.ones((2, 4, 4, 1)), verbose=0).shape == (2, 16) and not trap.is_sprung

    def test_a_lambda_makes_it_unusable(self, trap: Trap, tmp_path: Path) -> None:
        path = trap.network(tmp_path / "model.keras")
        harmful = keras.models.load_model(path, safe_mode=False)
        version, _ = self.registered(harmful)
        trap.mark.unlink()

        with pytest.raises(tracking.UnusableModelError, match="cannot read its files"):
            tracking.load_version(version)

        assert not trap.is_sprung


def careless(source: str) -> list[int]:
    """Lines that switch off what keeps readers from running code. Ruff's rules S301 to S308 find the others."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant):
            if (node.arg, node.value.value) in (("allow_pickle", True), ("safe_mode", False)):
                found.append(node.value.lineno)
        elif isinstance(node, ast.Attribute):
            loads_anything = node.attr == "load_model" and "mlflow" in ast.unparse(node.value)
            if loads_anything or node.attr in ("enable_unsafe_deserialization", "read_pickle", "unpack_archive"):
                found.append(node.lineno)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            if PICKLERS & {name.split(".")[0] for name in names}:
                found.append(node.lineno)
    return found


def test_careless_lines_are_found() -> None:
    lines = ["import joblib", "np.load(p, allow_pickle=True)", "keras.models.load_model(p, safe_mode=False)"]
    lines += ["mlflow.pyfunc.load_model(uri)", "from cloudpickle import loads", "np.load(p, allow_pickle=False)"]

    assert sorted(careless("\n".join(lines))) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("folder", ["cxr_tasks", "dags", "plugins", "infra", "mlflow", "benchmarks"])
def test_no_reader_of_the_project_is_careless(folder: str) -> None:
    assert {
        f"{path.relative_to(ROOT)}:{line}"
        for path in (ROOT / folder).rglob("*.py")
        for line in careless(path.read_text(encoding="utf-8"))
    } == set()
