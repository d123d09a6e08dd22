"""Models in MLflow: logged to a run, registered as a version, found by an alias."""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cxr_tasks.errors import in_one_line
from cxr_tasks.keras_file import NETWORK_FILE, read_network
from cxr_tasks.outages import is_passing
from cxr_tasks.tracking.runs import TAG_ARTIFACT
from cxr_tasks.tracking.server import all_pages, client, is_on, patient

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature

# The status of a registered version whose files are all there.
READY = "READY"
# The folder of a model's files, as its code asks for it.
MODEL_FOLDER = "model"
# Where the network is among the files of a model. Models of 0.1.0 were logged by ``mlflow.tensorflow``.
NETWORK_PATHS = (f"artifacts/{MODEL_FOLDER}/{NETWORK_FILE}", f"data/{NETWORK_FILE}")


class RegisteredVersion(NamedTuple):
    """A version of a registered model: its tags, its aliases such as ``champion``, and the run that logged it."""

    name: str
    version: str
    tags: Mapping[str, str]
    aliases: tuple[str, ...]
    run_id: str = ""


class UnusableModelError(Exception):
    """A registered model that no retry can load: its files are gone, or this Keras cannot read them."""


@patient
def log_model(
    files: Mapping[str, Path],
    code: Path,
    signature: ModelSignature,
    example: pd.DataFrame,
    requirements: Sequence[str],
    metadata: Mapping[str, Any],
) -> str:
    """Log a model from code to the active run.

    Args:
        files: What the model is made of, by the names that the files get in ``MODEL_FOLDER``.
        code: The Python file that MLflow runs to load the model.
        signature: What it takes and gives.
        example: What may be given to it.
        requirements: Of its environment.
        metadata: Plain values that MLflow keeps with the model.

    Returns:
        Its ``models:/`` address; empty where nothing is tracked.
    """
    if not is_on():
        return ""
    import mlflow

    with tempfile.TemporaryDirectory() as place:
        gathered = Path(place, MODEL_FOLDER)
        gathered.mkdir()
        for name, path in files.items():
            shutil.copy(path, gathered / name)
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(code),
            artifacts={MODEL_FOLDER: str(gathered)},
            signature=signature,
            input_example=example,
            # Named here, because finding them out takes a process of its own that loads the model again.
            pip_requirements=list(requirements),
            metadata=dict(metadata),
        )
    return logged.model_uri


@patient
def logged_model(uri: str, again: Callable[[], str]) -> str:
    """``uri`` if MLflow has that model; else what ``again`` gives, which logs the model anew."""
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        mlflow.get_logged_model(uri.removeprefix("models:/"))
        return uri
    except MlflowException as error:
        # A server that is away has lost nothing.
        if is_passing(error):
            raise
        return again()


@patient
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


@patient
def find_version(name: str) -> ModelVersion | str | None:
    """The registered version, or the artifact of a logged model, that ``name`` means.

    Args:
        name: ``cxr-overall@champion``, ``models:/cxr-overall@champion``, ``models:/cxr-overall/3`` or
            ``models:/m-…``.

    Returns:
        A registered version; of a logged model the reference of the artifact that it was logged with; ``None`` where
        there is no such model.
    """
    from mlflow.exceptions import MlflowException

    path = name.removeprefix("models:/")
    try:
        if "@" in path:
            return version_by_alias(*path.rsplit("@", 1))
        if "/" in path:
            return client().get_model_version(*path.rsplit("/", 1))
        return client().get_run(client().get_logged_model(path).source_run_id).data.tags.get(TAG_ARTIFACT)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


@patient
def version_with_tag(name: str, tag: str, value: str) -> ModelVersion | None:
    """The newest version of a registered model whose ``tag`` is ``value``, or ``None``.

    A version whose registration is under way or has failed does not count.
    """
    for version in client().search_model_versions(f"name = '{name}'"):
        if version.tags.get(tag) == value and version.status == READY:
            return version
    return None


@patient
def registered_versions() -> list[RegisteredVersion]:
    """Every version of every registered model."""
    server = client()
    aliases: dict[tuple[str, str], list[str]] = defaultdict(list)
    for model in all_pages(server.search_registered_models):
        for alias, version in model.aliases.items():
            aliases[model.name, str(version)].append(alias)
    return [
        RegisteredVersion(
            each.name,
            str(each.version),
            dict(each.tags),
            tuple(aliases[each.name, str(each.version)]),
            each.run_id or "",
        )
        for each in all_pages(server.search_model_versions)
    ]


@patient
def register(uri: str, name: str, tags: Mapping[str, str]) -> ModelVersion:
    """Make a new version of the registered model ``name`` from a logged model."""
    import mlflow

    return mlflow.register_model(uri, name, tags=dict(tags))


@patient
def set_alias(name: str, alias: str, version: str) -> None:
    """Give a version the alias, and take the alias from the version that had it."""
    client().set_registered_model_alias(name, alias, version)


@patient
def tag_version(version: ModelVersion, tags: Mapping[str, str], stale: tuple[str, ...] = ()) -> None:
    """Set tags of a registered version; those that begin like one of ``stale``, and are not set, are taken away."""
    for name in version.tags:
        if name.startswith(stale) and name not in tags:
            client().delete_model_version_tag(version.name, version.version, name)
    for name, value in tags.items():
        client().set_model_version_tag(version.name, version.version, name, value)


@patient
def describe_version(version: ModelVersion, text: str) -> None:
    """Set the description of a registered version, which MLflow's pages show as Markdown."""
    client().update_model_version(version.name, version.version, description=text)


@patient
def load_version(version: ModelVersion) -> Any:
    """The Keras model of a registered version, for predictions.

    Whoever may edit models in MLflow may have put it there. MLflow's own readers would run a model's code, unpickle
    what lies beside the network, and import what the model's description names. Keras reads the network alone, and no
    lambda.

    Raises:
        UnusableModelError: Its files are gone, or this Keras cannot read them. A server that does not answer is
            another error, which is worth a retry.
    """
    with network_of(version) as network:
        return read_network(network)


@contextmanager
def network_of(version: ModelVersion) -> Iterator[Path]:
    """Where the network of a registered version is inside the block. What belongs to the network lies beside it.

    Raises:
        UnusableModelError: Its files are gone, or something in the block cannot read them.
    """
    with tempfile.TemporaryDirectory() as place:
        network = fetch_version(version, Path(place))
        try:
            yield network
        except (MemoryError, UnusableModelError):
            raise
        except Exception as error:
            raise UnusableModelError(f"this version of Keras cannot read its files: {in_one_line(error)}") from error


@patient
def fetch_version(version: ModelVersion, place: Path) -> Path:
    """Fetch the files of a registered version into the folder ``place``; returns where its network is.

    What belongs to the network lies beside it. Of a model that was logged without, nothing does.

    Raises:
        UnusableModelError: Its files are gone.
    """
    folder = _download(f"models:/{version.name}/{version.version}", str(place))
    found = [folder / path for path in NETWORK_PATHS if (folder / path).is_file()]
    if not found:
        raise UnusableModelError("its files are gone: there is no network among them")
    return found[0]


def _download(uri: str, place: str) -> Path:
    """Fetch the files of a model into the folder ``place``; returns where they are."""
    import mlflow
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    try:
        folder = Path(mlflow.artifacts.download_artifacts(uri, dst_path=place))
    except RequestException:
        raise
    except (MlflowException, OSError) as error:
        # Anything else is a server that does not answer as it should.
        gone = isinstance(error, FileNotFoundError) or getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST"
        if not gone and not str(error).startswith("No such artifact"):
            raise
        raise UnusableModelError(f"its files are gone: {in_one_line(error)}") from error
    if not (folder / "MLmodel").is_file():
        raise UnusableModelError("its files are gone: MLflow has no file of the model any more")
    return folder
