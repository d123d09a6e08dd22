"""The watch over a champion, on datasets that grow: what is new, what is an alarm, and that it is asked for once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from PIL import Image, ImageOps

from cxr_tasks import steps, tracking
from cxr_tasks.artifacts import Dataset, RunContext, Watched
from cxr_tasks.data.phantoms import write_phantoms
from cxr_tasks.local import LocalRun
from cxr_tasks.registry.champions import CHAMPION, OVERALL_MODEL
from cxr_tasks.store import open_store
from cxr_tasks.store.garbage import references
from tests.steps import reading

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("mlflow_uri", "store")]
FIRST, MORE = {"COVID": 30, "Normal": 40, "Viral Pneumonia": 30}, {"COVID": 14, "Normal": 14, "Viral Pneumonia": 14}
CLASSES = list(FIRST)
FORM: dict[str, Any] = {"profile": "quick", "settings": reading.SETTINGS}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """X-rays; more of the same kind; and others, inverted."""
    place = tmp_path_factory.mktemp("hospital")
    write_phantoms(place / "first", FIRST, image_size=64)
    write_phantoms(place / "alike", MORE, image_size=64, seed=7)
    write_phantoms(place / "inverted", MORE, image_size=64, seed=8)
    for path in (place / "inverted").glob("*/images/*.png"):
        with Image.open(path) as image:
            ImageOps.invert(image.convert("L")).save(path)
    return {each.name: each for each in place.iterdir()}


def dataset_with(tmp_path: Path, folders: dict[str, Path], *names: str) -> Dataset:
    """The dataset of these folders together."""
    place = tmp_path / "-".join(names)
    for name in names:
        for path in folders[name].glob("*/images/*.png"):
            to = place / path.relative_to(folders[name]).parent / f"{name}-{path.name}"
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, to)
    return LocalRun(str(place), FORM).dataset


@pytest.fixture
def begin() -> Callable[[], RunContext]:
    number = iter(range(9))
    return lambda: steps.configure("cxr_monitor", f"run {next(number)} {np.random.default_rng().integers(10**9)}", FORM)


def make_champion(dataset: Dataset, digest: str = "one") -> None:
    """A network whose weights are as they were drawn, champion of ``cxr-overall``."""
    import keras
    import mlflow

    # Tests of other files may have promoted models on the same server.
    with suppress(MlflowException):
        tracking.client().delete_registered_model(OVERALL_MODEL)
    keras.utils.set_random_seed(0)
    image = keras.Input((32, 32, 1))
    found = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, activation="relu")(image))
    model = keras.Model(image, keras.layers.Dense(3, activation="softmax")(keras.layers.Rescaling(1 / 255)(found)))
    with mlflow.start_run(experiment_id=tracking.experiment_id("models to watch")):
        uri = mlflow.tensorflow.log_model(model, name="model", pip_requirements=["keras"]).model_uri
    tags = {"cxr.weights_digest": digest, "cxr.dataset_ref": dataset.ref, "cxr.classes": "|".join(CLASSES)}
    version = tracking.register(uri, OVERALL_MODEL, {**tags, "cxr.resize": dataset.resize})
    tracking.set_alias(OVERALL_MODEL, CHAMPION, version.version)


def test_a_champion_is_held_against_new_images_alone_and_an_alarm_asks_once(
    folders: dict[str, Path], begin: Callable[[], RunContext], tmp_path: Path
) -> None:
    old = dataset_with(tmp_path, folders, "first")
    with suppress(MlflowException):
        tracking.client().delete_registered_model(OVERALL_MODEL)
    nobody = steps.watch(begin(), old)
    make_champion(old)

    quiet = steps.watch(begin(), old)
    grown = dataset_with(tmp_path, folders, "first", "alike")
    alike = steps.watch(begin(), grown)
    without_news = steps.watch(begin(), grown)
    changed = dataset_with(tmp_path, folders, "first", "alike", "inverted")
    run = begin()
    alarmed = steps.watch(run, changed)

    assert (nobody.words, nobody.alarm) == ("cxr-overall has no champion yet: nothing is watched.", False)
    assert not any(quiet.images.values()) and not quiet.alarm and quiet.words.startswith("0 new images are like the ")
    # Near-duplicates are of one patient, so a few of the new images may belong to old ones.
    assert not quiet.data_docs and "/artifacts/watch/data-docs/index.html?" in alike.data_docs and alike.warnings == ()
    assert not alike.alarm and 30 <= sum(alike.images.values()) <= 42
    assert alike.champion == "cxr-overall version 1" and "Macro F1 on them is " in alike.words
    seen, later = (pd.read_parquet(each.folder() / Watched.IMAGES)["image_id"].tolist() for each in (alike, alarmed))
    assert later[: len(seen)] == seen and len(later) > len(seen)
    assert not set(seen) & set(old.manifest(["image_id"])["image_id"])
    kept = references(open_store().record(alarmed.ref), {each.ref for each in (quiet, alike, alarmed)})
    assert kept <= {alarmed.ref}, "a watch keeps those before it, and their datasets"
    assert without_news.reused and without_news.ref == alike.ref and without_news.words == alike.words
    assert alarmed.alarm and "new images differ from the" in alarmed.words
    metrics = tracking.client().get_run(alarmed.mlflow_run_id).data.metrics
    assert (alarmed.folder() / "data-docs/index.html").is_file()
    assert metrics["watch/evidence"] >= 20 and metrics["watch/new_images"] == len(later)

    assert steps.reason_to_train(begin(), grown, alike) == ""
    first, again, other = (steps.reason_to_train(each, changed, alarmed) for each in (run, run, begin()))
    assert first == again == f"cxr-overall version 1: {alarmed.words}" and other == ""


def test_a_champion_whose_dataset_is_gone_is_not_watched_and_says_so(
    folders: dict[str, Path], begin: Callable[[], RunContext], tmp_path: Path
) -> None:
    dataset = dataset_with(tmp_path, folders, "first")
    make_champion(dataset.model_copy(update={"ref": "split/gone"}), "two")

    found = steps.watch(begin(), dataset)

    assert not found.alarm and found.words == (
        "cxr-overall version 1 cannot be watched, for its own dataset is not in the store."
    )
    assert open_store().read_pointer("monitor/seen/two") is None


@pytest.mark.parametrize(
    ("events", "given", "cause"),
    [
        ([{"reason": "cxr-overall version 1: changed"}], "new data", "cxr-overall version 1: changed"),
        ([{}], "new data", "new data"),
        (None, "schedule", "schedule"),
    ],
)
def test_a_training_names_its_cause(
    folders: dict[str, Path], tmp_path: Path, events: list[dict[str, Any]] | None, given: str, cause: str
) -> None:
    dataset = dataset_with(tmp_path, folders, "first")
    open_store().write_pointer(f"dataset-versions/{dataset.version}", dataset.model_dump(mode="json"))
    told = [SimpleNamespace(timestamp=0, extra={**each, "dataset": dataset.version}) for each in events or ()]

    begun = steps.begin_training(cause, {**FORM, "dataset": dataset.version}, told, cause=given)

    assert begun is not None
    assert tracking.client().get_run(begun["run"].mlflow_run_id).data.tags["cxr.cause"] == cause
