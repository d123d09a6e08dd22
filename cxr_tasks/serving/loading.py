"""Finds the model that a name means, and loads it without running code that came with it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cxr_tasks import tracking
from cxr_tasks.artifacts import TrainedModel
from cxr_tasks.errors import UserError, in_one_line
from cxr_tasks.image_settings import FIRST_RESIZE
from cxr_tasks.registry.champions import TAG_CLASSES
from cxr_tasks.serving.model_facts import ModelFacts
from cxr_tasks.serving.predictor import NETWORK_FILE, Predictor
from cxr_tasks.store import open_store

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


def find_predictor(name: str) -> Predictor:
    """The model that ``name`` means, ready to be asked.

    Args:
        name: ``cxr-overall@champion``, an address ``models:/cxr-overall/3``, or the reference of a training's artifact.

    Raises:
        UserError: There is none, or it cannot be loaded.
    """
    if name.startswith(f"{TrainedModel.step}/"):
        return _of_training(name)
    found = tracking.find_version(name) if "@" in name or "/" in name.removeprefix("models:/") else None
    if found is None or isinstance(found, str):
        raise UserError(
            f"MLflow has no registered model {name!r}: give cxr-overall@champion, an address such as "
            f"models:/cxr-overall/3, or the reference of a training's artifact, which begins with {TrainedModel.step}/."
        )
    try:
        return predictor_of(found)
    except tracking.UnusableModelError as error:
        raise UserError(
            f"{found.name} version {found.version} cannot be loaded: {error}. Name another version."
        ) from error


def predictor_of(version: ModelVersion) -> Predictor:
    """A registered version, ready to be asked.

    Raises:
        UnusableModelError: Its files are gone, this Keras cannot read them, or nothing says its classes.
    """
    with tempfile.TemporaryDirectory() as place:
        network = tracking.fetch_version(version, Path(place))
        try:
            if (network.parent / ModelFacts.FILE).is_file():
                return Predictor.load(network.parent, version.name, str(version.version))
            classes = version.tags.get(TAG_CLASSES, "")
            if not classes:
                raise ValueError(f"its tag {TAG_CLASSES} does not say which classes it tells apart")
            resize = version.tags.get("cxr.resize") or FIRST_RESIZE
            return _without_facts(network, classes.split("|"), resize, version.name, str(version.version))
        except MemoryError:
            raise
        except Exception as error:
            raise tracking.UnusableModelError(f"its files cannot be read: {in_one_line(error)}") from error


def _of_training(ref: str) -> Predictor:
    record = open_store().record(ref)
    if record is None:
        raise UserError(f"The store has no training {ref!r}: cxr store ls {TrainedModel.step} shows those that it has.")
    folder = open_store().fetch(ref)
    if (folder / ModelFacts.FILE).is_file():
        return Predictor.load(folder, ref)
    return _without_facts(
        folder / NETWORK_FILE, record["settings"]["classes"], record["made"].get("resize", FIRST_RESIZE), ref
    )


def _without_facts(network: Path, classes: list[str], resize: str, model: str, version: str = "") -> Predictor:
    """A network with nothing beside it."""
    import keras

    loaded = keras.models.load_model(network, compile=False)
    return Predictor(loaded, ModelFacts.bare(classes, int(loaded.input_shape[1]), resize), None, model, version)
