"""Finds the model that a name means, and loads it without running code that came with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cxr_tasks import tracking
from cxr_tasks.artifacts import TrainedModel
from cxr_tasks.errors import UserError
from cxr_tasks.image_settings import FIRST_RESIZE
from cxr_tasks.keras_file import read_network
from cxr_tasks.registry.champions import OVERALL_CHAMPION, TAG_CLASSES, TAG_RESIZE
from cxr_tasks.serving.model_facts import ModelFacts
from cxr_tasks.serving.predictor import Predictor
from cxr_tasks.store import open_store

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


def find_predictor(name: str, evaluation: str = "") -> Predictor:
    """The model that ``name`` means, ready to be asked.

    Args:
        name: ``cxr-overall@champion``, an address ``models:/cxr-overall/3``, or the reference of a training's artifact.
        evaluation: Of a training: the reference of the artifact that knows its limits; empty where there is none.

    Raises:
        UserError: There is none, or it cannot be loaded.
    """
    if name.startswith(f"{TrainedModel.step}/"):
        return _of_training(name, evaluation)
    found = tracking.find_version(name) if "@" in name or "/" in name.removeprefix("models:/") else None
    if found is None or isinstance(found, str):
        raise UserError(
            f"MLflow has no registered model {name!r}: give {OVERALL_CHAMPION}, an address such as "
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
    with tracking.network_of(version) as network:
        if (network.parent / ModelFacts.FILE).is_file():
            return Predictor.load(network.parent, version.name, str(version.version))
        classes = version.tags.get(TAG_CLASSES, "")
        if not classes:
            raise tracking.UnusableModelError(f"its tag {TAG_CLASSES} does not say which classes it tells apart")
        resize = version.tags.get(TAG_RESIZE) or FIRST_RESIZE
        return _without_facts(network, classes.split("|"), resize, version.name, str(version.version))


def _of_training(ref: str, evaluation: str) -> Predictor:
    record = open_store().record(ref)
    if record is None:
        raise UserError(f"The store has no training {ref!r}: cxr store ls {TrainedModel.step} shows those that it has.")
    network = open_store().fetch(ref) / TrainedModel.MODEL
    if evaluation:
        return Predictor.load(open_store().fetch(evaluation), ref, network=network)
    return _without_facts(network, record["settings"]["classes"], record["made"].get("resize", FIRST_RESIZE), ref)


def _without_facts(network: Path, classes: list[str], resize: str, model: str, version: str = "") -> Predictor:
    """A network with nothing beside it."""
    loaded = read_network(network)
    return Predictor(loaded, ModelFacts.bare(classes, int(loaded.input_shape[1]), resize), None, model, version)
