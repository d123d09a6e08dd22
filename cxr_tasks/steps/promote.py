"""The step ``promote``: register the best arms, and make a challenger champion where it beats the present one."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cxr_tasks import tracking
from cxr_tasks.artifacts import Artifact, Comparison, Dataset, Decision, Promotion, RunContext, TrainedArm
from cxr_tasks.config import Settings
from cxr_tasks.pipeline import Made, load_settings, perform
from cxr_tasks.registry.champions import (
    CHALLENGER,
    CHAMPION,
    TAG_CLASSES,
    TAG_DATASET,
    TAG_DIGEST,
    Candidate,
    chosen_for,
    decide,
)
from cxr_tasks.store import open_store

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger(__name__)


def promote(run: RunContext, dataset: Dataset, comparisons: list[Comparison]) -> Promotion:
    """Register, for each classifier and over all, the arm with the best validation macro F1."""
    settings = load_settings(run)

    def fill(folder: Path) -> Made[Promotion]:
        candidates = _candidates(settings, dataset, comparisons)
        champion_f1 = _Scores(dataset, list(settings.data.classes))
        decisions = tuple(
            register_candidate(name, candidate, champion_f1) for name, candidate in chosen_for(candidates).items()
        )
        for decision in decisions:
            log.info("%s version %s is %s: %s", decision.name, decision.version, decision.alias, decision.decision)
        told = json.dumps([decision.model_dump() for decision in decisions], indent=2)
        (folder / Promotion.DECISIONS).write_text(told, encoding="utf-8")
        return Made(Promotion(decisions=decisions), {"candidates": len(candidates), "promoted": len(decisions)})

    # What becomes of a candidate depends on the registry as it is now, so this is never taken from the store.
    inputs: dict[str, Artifact | str] = {"dag_run": run.dag_run, "work": run.mlflow_run_id}
    inputs |= {f"comparison {i}": comparison for i, comparison in enumerate(comparisons)}
    return perform(run, Promotion, fill, settings={}, inputs=inputs)


def register_candidate(
    name: str, candidate: Candidate, champion_f1: Callable[[ModelVersion], float | None]
) -> Decision:
    """Register ``candidate`` as challenger and make it champion if it beats the present one.

    Args:
        name: The registered model.
        candidate: What is registered.
        champion_f1: The present champion's macro F1 on the candidate's validation images, or ``None`` if it cannot
            be compared.
    """
    champion = tracking.version_by_alias(name, CHAMPION)
    if champion is not None and champion.tags.get(TAG_DIGEST) == candidate.weights_digest:
        tracking.set_alias(name, CHALLENGER, champion.version)
        return _decision(candidate, champion, CHAMPION, "the same model is champion already")
    challenger = tracking.version_with_tag(name, TAG_DIGEST, candidate.weights_digest)
    if challenger is None:
        challenger = tracking.register(candidate.model_uri, name, candidate.tags(tracking.TAG_ARTIFACT))
    tracking.set_alias(name, CHALLENGER, challenger.version)
    standing = champion_f1(champion) if champion is not None else None
    alias, words = decide(candidate, str(champion.version) if champion is not None else "", standing)
    if alias == CHAMPION:
        tracking.set_alias(name, CHAMPION, challenger.version)
    return _decision(candidate, challenger, alias, words)


class _Scores:
    """Macro F1 of registered models on the validation images of a dataset, each computed once."""

    def __init__(self, dataset: Dataset, classes: list[str]) -> None:
        self.dataset, self.classes = dataset, classes
        self._known: dict[str, float | None] = {}

    def __call__(self, version: ModelVersion) -> float | None:
        model = version.tags.get(TAG_DIGEST) or f"{version.name}/{version.version}"
        if model not in self._known:
            self._known[model] = champion_score(version, self.dataset, self.classes)
        return self._known[model]


def champion_score(version: ModelVersion, dataset: Dataset, classes: list[str]) -> float | None:
    """Macro F1 of a registered model on the validation images of ``dataset``.

    Its saved predictions are used where they are of these images, else the model predicts anew.

    Returns:
        ``None`` if it cannot be compared: its classes differ, or it was trained on some of these images.
    """
    import pandas as pd

    from cxr_tasks.artifacts import TrainedModel
    from cxr_tasks.evaluation.metrics import classification_metrics

    if version.tags.get(TAG_CLASSES) != "|".join(classes):
        return None
    store, artifact = open_store(), version.tags.get(tracking.TAG_ARTIFACT, "")
    record = store.record(artifact) if artifact else None
    # Trained anew, an artifact of this reference holds the predictions of another model.
    known = (record or {}).get("made", {}).get("weights_digest")
    is_there = known is not None and known == version.tags.get(TAG_DIGEST)
    if _dataset_of_version(version) == dataset.ref and is_there:
        table = pd.read_parquet(store.fetch(artifact) / TrainedModel.PREDICTIONS)
        table = table[table["split"] == "validation"]
    elif _trained_on_validation(version, dataset):
        return None
    else:
        table = _predict(version, dataset, classes)
    return classification_metrics(table, classes)["macro_f1"]


def _trained_on_validation(version: ModelVersion, dataset: Dataset) -> bool:
    """Whether the model saw, in training, an image or a patient that is now in the validation split."""
    import pandas as pd

    from cxr_tasks.data.ingest import MANIFEST

    store, trained_on = open_store(), _dataset_of_version(version)
    if not trained_on or store.record(trained_on) is None:
        return False  # nothing is known of its training images any more
    old, new = pd.read_parquet(store.fetch(trained_on) / MANIFEST), dataset.manifest()
    trained, asked = old[old["split"] == "train"], new[new["split"] == "validation"]
    return bool(asked["image_id"].isin(trained["image_id"]).any() or asked["group"].isin(trained["group"]).any())


def _dataset_of_version(version: ModelVersion) -> str:
    """The reference of the dataset that a registered model was trained on; empty where its tags do not say."""
    # Versions of 0.1.0 have it under the tag that runs have for a dataset's version.
    return version.tags.get(TAG_DATASET) or version.tags.get("cxr.dataset", "")


def _predict(version: ModelVersion, dataset: Dataset, classes: list[str]) -> pd.DataFrame:
    from cxr_tasks.classifiers.training import prediction_table

    model = tracking.load_version(version)
    images = dataset.images("validation", model.input_shape[1], classes, resize=True)
    return prediction_table(images, "validation", model.predict(images.pixels[..., None], verbose=0), classes)


def _candidates(settings: Settings, dataset: Dataset, compared: list[Comparison]) -> list[Candidate]:
    """Each trained arm once, baselines first: a baseline that several arms are compared with is one candidate."""
    arms: dict[str, TrainedArm] = {}
    for role in ("baseline", "augmented"):
        for comparison in compared:
            if role in comparison.arms:
                arms.setdefault(comparison.arms[role].model.ref, comparison.arms[role])
    return [
        Candidate(
            classifier=arm.training.classifier,
            role="baseline" if arm.training.arm == settings.arms.baseline else "augmented",
            arm=arm.training.arm,
            seed=arm.training.seed,
            validation_macro_f1=arm.validation_macro_f1,
            artifact=arm.model.ref,
            weights_digest=arm.model.weights_digest,
            dataset=dataset.ref,
            classes="|".join(settings.data.classes),
            model_uri=_model_uri(arm),
        )
        for arm in arms.values()
    ]


def _model_uri(arm: TrainedArm) -> str:
    """Where MLflow has the arm's model. Logged again from the artifact if MLflow lost it, or never had it."""

    def log_again() -> str:
        import numpy as np

        model = arm.model.load()
        return tracking.log_model(model, np.zeros((1, *model.input_shape[1:3]), np.uint8))

    return tracking.logged_model(arm.model.model_uri, log_again)


def _decision(candidate: Candidate, version: ModelVersion, alias: str, words: str) -> Decision:
    return Decision(
        name=version.name,
        version=str(version.version),
        alias=alias,
        arm=candidate.words,
        validation_macro_f1=candidate.validation_macro_f1,
        decision=words,
    )
