"""Models in MLflow: logged to a run, registered as a version, found by an alias."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cxr_tasks.tracking.runs import client, is_on

if TYPE_CHECKING:
    import keras
    import numpy as np
    from mlflow.entities.model_registry import ModelVersion


def log_model(model: keras.Model, example: np.ndarray) -> str:
    """Log ``model`` to the active run with signature and input example.

    Args:
        model: Pixels (n, S, S, 1) 0–255 → probabilities.
        example: (n, S, S) uint8 real images.

    Returns:
        Its ``models:/`` address; empty where nothing is tracked.
    """
    if not is_on():
        return ""
    import keras
    import mlflow
    import numpy as np
    import tensorflow as tf
    from mlflow.models import infer_signature

    pixels = example[..., None].astype(np.float32)
    # mlflow.keras would save the same file, but fails on an input example.
    logged = mlflow.tensorflow.log_model(
        model,
        name="model",
        signature=infer_signature(pixels, model.predict(pixels, verbose=0)),
        # A mid-gray image: the model's input format is shown without keeping a patient's image.
        input_example=np.full((1, *pixels.shape[1:]), 127.0, np.float32),
        # Named here, because finding them out takes a process of its own that loads the model again.
        pip_requirements=[f"tensorflow=={tf.__version__}", f"keras=={keras.__version__}", f"numpy=={np.__version__}"],
    )
    return logged.model_uri


def logged_model(uri: str, again: Callable[[], str]) -> str:
    """``uri`` if MLflow has that model; else what ``again`` gives, which logs the model anew."""
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        mlflow.get_logged_model(uri.removeprefix("models:/"))
        return uri
    except MlflowException:
        return again()


def version_by_alias(name: str, alias: str) -> ModelVersion | None:
    """The version of a registered model that has the alias, or ``None`` where there is no such model or alias."""
    from mlflow.exceptions import MlflowException

    try:
        return client().get_model_version_by_alias(name, alias)
    except MlflowException as error:
        # No such model, no such alias. Anything else must not pass for "there is none".
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def version_with_tag(name: str, tag: str, value: str) -> ModelVersion | None:
    """The newest version of a registered model whose ``tag`` is ``value``, or ``None``."""
    for version in client().search_model_versions(f"name = '{name}'"):
        if version.tags.get(tag) == value:
            return version
    return None


def register(uri: str, name: str, tags: Mapping[str, str]) -> ModelVersion:
    """Make a new version of the registered model ``name`` from a logged model."""
    import mlflow

    return mlflow.register_model(uri, name, tags=dict(tags))


def set_alias(name: str, alias: str, version: str) -> None:
    """Give a version the alias, and take the alias from the version that had it."""
    client().set_registered_model_alias(name, alias, version)


def load_version(version: ModelVersion) -> Any:
    """The Keras model of a registered version."""
    import mlflow

    return mlflow.tensorflow.load_model(f"models:/{version.name}/{version.version}")
