"""Models of other runs, found by their name in MLflow or in the store, and tested on an external set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from cxr_tasks import tracking
from cxr_tasks.artifacts import Artifact, Dataset, ExternalSet, ExternalTest, Manifest, RunContext, Split, TrainedModel
from cxr_tasks.config import Settings
from cxr_tasks.data_settings import ExternalSettings
from cxr_tasks.errors import UserError
from cxr_tasks.image_settings import FIRST_RESIZE
from cxr_tasks.pipeline import Made, perform
from cxr_tasks.registry.champions import OVERALL_CHAMPION, TAG_CLASSES, TAG_DATASET, TAG_DIGEST, TAG_RESIZE
from cxr_tasks.steps.external_tests import external_table, how_measured, keep_test
from cxr_tasks.steps.read_external import UNCHECKED, read_set
from cxr_tasks.store import open_store

if TYPE_CHECKING:
    import keras
    import pandas as pd

UNKNOWN_TEST = "its drop is not known, because its own test images or predictions are not in the store"


@dataclass(frozen=True)
class TestedModel:
    """A model to be tested.

    Attributes:
        who: What people call it.
        digest: A hash of its weights.
        classes: In the order of its outputs.
        resize: How images are brought to its side.
        dataset: What it was trained on; ``None`` where the store does not have that.
        trained: Its artifact; ``None`` where the store does not have it.
        load: Gives the model: pixels (n, S, S, 1) 0-255 to probabilities.
    """

    who: str
    digest: str
    classes: tuple[str, ...]
    resize: str
    dataset: Dataset | None
    trained: TrainedModel | None
    load: Callable[[], keras.Model]

    # Not a test, whatever pytest may think of the name.
    __test__ = False


def find_model(name: str) -> TestedModel:
    """The model that ``name`` means.

    Args:
        name: ``cxr-overall@champion``, an address ``models:/…``, or the reference of a training's artifact.

    Raises:
        UserError: There is none.
    """
    if name.startswith(f"{TrainedModel.step}/"):
        return _of_artifact(name, name)
    if not tracking.is_on():
        raise UserError(
            f"The model {name!r} is looked for in MLflow: name its server with --mlflow, or give the reference of a "
            f"training's artifact, such as {TrainedModel.step}/0123456789abcdef (cxr store list shows them)."
        )
    if "@" not in name and not name.startswith("models:/"):
        raise UserError(
            f"{name!r} names no model: give {OVERALL_CHAMPION}, an address such as models:/cxr-overall/3, or the "
            f"reference of a training's artifact, which begins with {TrainedModel.step}/."
        )
    found = tracking.find_version(name)
    if found is None:
        raise UserError(
            f"MLflow has no model {name!r}: look for its name, version or alias on MLflow's page of registered models."
        )
    return _of_artifact(found, name) if isinstance(found, str) else model_of_version(found)


def model_of_version(version: Any) -> TestedModel:
    """The model of a registered version.

    Raises:
        UserError: Its tags do not say which classes it tells apart.
    """
    who, tags = f"{version.name} version {version.version}", version.tags
    if not tags.get(TAG_CLASSES):
        raise UserError(f"{who} does not say which classes it tells apart: its tag {TAG_CLASSES} is empty.")
    return TestedModel(
        who=who,
        digest=tags.get(TAG_DIGEST) or f"{version.name}/{version.version}",
        classes=tuple(tags[TAG_CLASSES].split("|")),
        resize=tags.get(TAG_RESIZE) or FIRST_RESIZE,
        dataset=_dataset_of(tags.get(TAG_DATASET, "")),
        trained=_training_of(tags.get(tracking.TAG_ARTIFACT, ""), tags.get(TAG_DIGEST, "")),
        load=lambda: tracking.load_version(version),
    )


def _of_artifact(ref: str, who: str) -> TestedModel:
    trained, record = _training_of(ref), open_store().record(ref)
    if trained is None or record is None:
        raise UserError(
            f"The store has no training {ref!r}: cxr store list {TrainedModel.step} shows those that it has."
        )
    return TestedModel(
        who=f"{trained.training.label} ({who})",
        digest=trained.weights_digest,
        classes=tuple(record["settings"]["classes"]),
        resize=trained.resize,
        dataset=_dataset_of(record["inputs"].get("dataset", "")),
        trained=trained,
        load=trained.load,
    )


def _training_of(ref: str, digest: str = "") -> TrainedModel | None:
    """The training ``ref`` in the store, unless it is not there, or is another one than that of ``digest`` by now."""
    record = open_store().record(ref) if ref else None
    if record is None:
        return None
    try:
        trained = TrainedModel.model_validate({**record["made"], "ref": ref})
    except (KeyError, ValidationError):
        return None
    return None if digest and digest != trained.weights_digest else trained


def _dataset_of(ref: str) -> Dataset | None:
    """The dataset whose split is ``ref``, as far as the store has it."""
    store = open_store()
    record = store.record(ref) if ref else None
    joined = store.record(record["inputs"].get("manifest", "")) if record and "inputs" in record else None
    if record is None or joined is None:
        return None
    try:
        divided = Split.model_validate(record["made"])
        manifest = Manifest.model_validate(joined["made"])
    except (KeyError, ValidationError):
        return None
    return Dataset(
        ref=ref,
        version=divided.version,
        counts=divided.counts,
        shards=manifest.shards,
        source="",
        warnings=(),
        data_docs="",
        resize=manifest.resize,
    )


def tested_on(
    run: RunContext, settings: Settings, model: TestedModel, external: ExternalSettings
) -> tuple[ExternalSet, ExternalTest]:
    """Test a model on an external set, and give the set too, without what leaks from what the model was trained on.

    Args:
        run: The DAG run, or one by hand.
        settings: Say how images are read, and what is measured.
        model: The model.
        external: The set. Classes that the model does not have are refused.

    Raises:
        UserError: The set has other classes, or nothing of it is left.
    """
    if unknown := set(external.classes or settings.data.classes) - set(model.classes):
        raise UserError(
            f"{model.who} does not know the classes {', '.join(sorted(unknown))} of the external set {external.name}: "
            f"it tells apart {', '.join(model.classes)}."
        )
    network = model.load()
    size, classes = int(network.input_shape[1]), list(model.classes)
    chosen = settings.classifiers.model_copy(update={"image_size": size})
    data = settings.data.model_copy(update={"classes": model.classes, "resize": model.resize})
    if not external.classes:
        external = external.model_copy(update={"classes": settings.data.classes})
    settings = settings.model_copy(update={"classifiers": chosen, "data": data})
    tested = read_set(run, settings, external, model.dataset)
    internal = _own_test(model)
    remarks = [*([] if tested.checked else [UNCHECKED]), *([UNKNOWN_TEST] if internal is None else [])]

    def fill(folder: Path) -> Made[ExternalTest]:
        from cxr_tasks.classifiers.predicting import predict_rows

        rows = tested.table()
        found = predict_rows(rows, len(classes), lambda shard: tested.pixels(shard, size)[..., None], network)
        table = external_table(rows, found, classes)
        metrics = keep_test(folder, settings, tested, table, internal, classes)
        return Made(ExternalTest(who=model.who, external=external.name, remark="; ".join(remarks)), metrics)

    inputs: dict[str, Artifact | str] = {"weights": model.digest, "external": tested}
    inputs["internal"] = model.trained.ref if model.trained is not None and internal is not None else ""
    made = perform(
        run,
        ExternalTest,
        fill,
        settings={**how_measured(settings), "classes": classes, "size": size},
        inputs=inputs,
        label=external.name,
    )
    return tested, made.model_copy(update={"who": model.who})


def _own_test(model: TestedModel) -> pd.DataFrame | None:
    """The model's predictions of its own test images, where the store has them."""
    if model.trained is None:
        return None
    try:
        predictions = model.trained.predictions()
    except FileNotFoundError:
        return None
    return predictions[predictions["split"] == "test"]
