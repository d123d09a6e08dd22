"""How a registered champion does on the validation images of a candidate, for the step ``promote``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxr_tasks import tracking
from cxr_tasks.artifacts import Dataset
from cxr_tasks.registry.champions import TAG_CLASSES, TAG_DATASET, TAG_DIGEST, TAG_VALIDATION, Standing
from cxr_tasks.store import open_store

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities.model_registry import ModelVersion

MAYBE_SEEN = "which it may have been trained on: its training images are not known any more"


def champion_score(version: ModelVersion, dataset: Dataset, classes: list[str]) -> Standing:
    """How a registered model does on the validation images of ``dataset``.

    Its saved predictions are used where they are of these images. Otherwise the model predicts anew. A model that
    cannot be loaded has the figure that it was registered with, if that is of these images.

    Raises:
        MlflowException: The server does not answer as it should, which is worth a retry.
    """
    from cxr_tasks.evaluation.metrics import classification_metrics

    if version.tags.get(TAG_CLASSES) != "|".join(classes):
        return Standing(remark="has other classes, or has them in another order")
    if _dataset_of_version(version) == dataset.ref:
        seen: bool | None = False
        table = _saved_predictions(version)
    else:
        seen, table = _trained_on_validation(version, dataset), None
    if seen:
        return Standing(remark="was trained on some of these images")
    try:
        scored = table if table is not None else _predict(version, dataset, classes)
    except tracking.UnusableModelError as reason:
        return _recorded(version, dataset, str(reason))
    score, unknown = classification_metrics(scored, classes)["macro_f1"], seen is None
    return Standing(score, scored, is_clean=not unknown, remark=MAYBE_SEEN if unknown else "")


def _saved_predictions(version: ModelVersion) -> pd.DataFrame | None:
    """The registered model's predictions of validation images in the store, or ``None`` where they are not there."""
    import pandas as pd

    from cxr_tasks.artifacts import TrainedModel

    store, artifact = open_store(), version.tags.get(tracking.TAG_ARTIFACT, "")
    record = store.record(artifact) if artifact else None
    # Trained anew, an artifact of this reference holds the predictions of another model.
    known = (record or {}).get("made", {}).get("weights_digest")
    if known is None or known != version.tags.get(TAG_DIGEST):
        return None
    try:
        table = pd.read_parquet(store.fetch(artifact) / TrainedModel.PREDICTIONS)
    except FileNotFoundError:
        return None
    return table[table["split"] == "validation"]


def _recorded(version: ModelVersion, dataset: Dataset, reason: str) -> Standing:
    """The standing of a model that cannot be loaded for ``reason``: by the figure that it was registered with."""
    try:
        figure = float(version.tags[TAG_VALIDATION])
    except (KeyError, ValueError):
        return Standing(is_lost=True, remark=reason)
    if _dataset_of_version(version) == dataset.ref:
        return Standing(score=figure, remark=f"as recorded when it was registered, for it cannot be scored: {reason}")
    return Standing(is_lost=True, recorded=figure, remark=reason)


def _trained_on_validation(version: ModelVersion, dataset: Dataset) -> bool | None:
    """Whether the model saw, in training, an image or a patient that is now in the validation split.

    Returns:
        ``None`` where nothing is known of its training images any more.
    """
    import pandas as pd

    from cxr_tasks.data.ingest import MANIFEST

    store, trained_on = open_store(), _dataset_of_version(version)
    if not trained_on or store.record(trained_on) is None:
        return None
    try:
        old = pd.read_parquet(store.fetch(trained_on) / MANIFEST)
    except FileNotFoundError:
        return None
    if not {"image_id", "group", "split"} <= set(old.columns):
        return None
    new = dataset.manifest(["image_id", "group"], "validation")
    trained = old[old["split"] == "train"]
    return any(bool(new[name].isin(trained[name]).any()) for name in ("image_id", "group"))


def _dataset_of_version(version: ModelVersion) -> str:
    """The reference of the dataset that a registered model was trained on; empty where its tags do not say."""
    # Versions of 0.1.0 have it under the tag that runs have for a dataset's version.
    return version.tags.get(TAG_DATASET) or version.tags.get("cxr.dataset", "")


def _predict(version: ModelVersion, dataset: Dataset, classes: list[str]) -> pd.DataFrame:
    from cxr_tasks.classifiers.features import FrozenTrunk
    from cxr_tasks.classifiers.predicting import predict_stack
    from cxr_tasks.classifiers.training import prediction_table

    model = tracking.load_version(version)
    images = dataset.images("validation", model.input_shape[1], classes, resize=True)
    probabilities = predict_stack(model, FrozenTrunk(None).all_of(images.pixels))
    return prediction_table(images, "validation", probabilities, classes)
