"""Steps without a tracking server, on a store in a folder of the test's own."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cxr_tasks import steps
from cxr_tasks.artifacts import RunContext
from cxr_tasks.store import FolderStore
from tests.steps.handles import CLASSES, SMALL, Untrained
from tests.steps.reading import FORM


@pytest.fixture
def untracked(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> FolderStore:
    """An empty store, with MLflow switched off."""
    monkeypatch.setenv("CXR_MLFLOW", "off")
    return store


@pytest.fixture
def begin(untracked: FolderStore) -> Callable[..., RunContext]:
    """Begins runs of the data steps, on small images and with room for rejects."""
    return lambda dag_run="one", **form: steps.configure("cxr_data", dag_run, FORM | form)


@pytest.fixture
def source(phantoms: Path, tmp_path: Path) -> Path:
    """A phantom data set of the test's own."""
    return Path(shutil.copytree(phantoms, tmp_path / "source"))


@pytest.fixture(scope="session")
def networks() -> Any:
    """A narrow CovidGAN with its first weights; tests must not change it."""
    from cxr_tasks.config import resolve
    from cxr_tasks.gan.step import CovidGan

    return CovidGan(resolve("quick", SMALL).gan, len(CLASSES), seed=0)


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> Untrained:
    """Takes the place of every training of a classifier."""
    stands = Untrained()
    monkeypatch.setattr("cxr_tasks.classifiers.training.fit_classifier", stands)
    return stands


@pytest.fixture
def small_vgg16(monkeypatch: pytest.MonkeyPatch) -> None:
    """One convolution in the place of VGG16, which is large."""
    import keras

    def application(include_top: bool, weights: None, input_shape: tuple[int, ...], pooling: None) -> keras.Model:
        pixels = keras.Input(input_shape)
        maps = keras.layers.Conv2D(4, 3, strides=4, activation="relu")(pixels)
        return keras.Model(pixels, maps, name="small")

    monkeypatch.setattr(keras.applications, "VGG16", application)
