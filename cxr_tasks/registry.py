"""Challenger and champion in MLflow's registry. Validation figures decide; the test set is never asked."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from cxr_tasks import tracking

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities.model_registry import ModelVersion

    from cxr_tasks.execution import Record, RunContext, StepResult

log = logging.getLogger(__name__)

CHAMPION, CHALLENGER = "champion", "challenger"
OVERALL = "cxr-overall"
TAG_ARTIFACT, TAG_DATASET, TAG_CLASSES = "cxr.artifact", "cxr.dataset", "cxr.classes"


class Candidate(BaseModel):
    """One trained arm. ``artifact`` and ``dataset`` are store references; ``classes`` are joined by ``|``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    classifier: str
    role: str
    arm: str
    seed: int
    validation_macro_f1: float
    artifact: str
    dataset: str
    classes: str
    model_uri: str


class Decision(BaseModel):
    """What became of the candidate of one registered model, in words too."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str
    alias: str
    arm: str
    validation_macro_f1: float
    decision: str


def model_name(classifier: str) -> str:
    """The registered model of a classifier."""
    return f"cxr-{classifier}"


def best(candidates: Sequence[Candidate]) -> Candidate:
    """The candidate with the highest validation macro F1; of equals the first, so baselines stand first."""
    return max(candidates, key=lambda candidate: candidate.validation_macro_f1)


def promote(name: str, candidate: Candidate, score: Callable[[ModelVersion], float | None]) -> Decision:
    """Register ``candidate`` as challenger and make it champion if it beats the present one.

    Args:
        score: the present champion's macro F1 on the candidate's validation images, or ``None`` if it
            cannot be compared.
    """
    server = tracking.client()
    champion = _by_alias(name, CHAMPION)
    if champion is not None and champion.tags.get(TAG_ARTIFACT) == candidate.artifact:
        server.set_registered_model_alias(name, CHALLENGER, champion.version)
        return _decision(candidate, champion, CHAMPION, "the same model is champion already")
    challenger = _version_of(name, candidate)
    server.set_registered_model_alias(name, CHALLENGER, challenger.version)
    if champion is None:
        server.set_registered_model_alias(name, CHAMPION, challenger.version)
        return _decision(candidate, challenger, CHAMPION, "first champion: there was none to beat")
    standing = score(champion)
    if standing is None:
        return _decision(
            candidate,
            challenger,
            CHALLENGER,
            f"champion {champion.version} has other classes or was trained on some of these images: not compared",
        )
    beaten = candidate.validation_macro_f1 > standing
    if beaten:
        server.set_registered_model_alias(name, CHAMPION, challenger.version)
    verdict = "beats" if beaten else "does not beat"
    return _decision(
        candidate,
        challenger,
        CHAMPION if beaten else CHALLENGER,
        f"{candidate.validation_macro_f1:.3f} {verdict} champion {champion.version} "
        f"({standing:.3f} on the same validation images)",
    )


def _decision(candidate: Candidate, version: ModelVersion, alias: str, words: str) -> Decision:
    return Decision(
        name=version.name,
        version=str(version.version),
        alias=alias,
        arm=f"{candidate.classifier} {candidate.role} ({candidate.arm}), seed {candidate.seed}",
        validation_macro_f1=candidate.validation_macro_f1,
        decision=words,
    )


def _by_alias(name: str, alias: str) -> ModelVersion | None:
    from mlflow.exceptions import MlflowException

    try:
        return tracking.client().get_model_version_by_alias(name, alias)
    except MlflowException as error:
        # No such model, no such alias. Anything else must not pass for "there is none".
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _version_of(name: str, candidate: Candidate) -> ModelVersion:
    """The version made from the candidate's artifact: the one there is, or a new one."""
    import mlflow

    for version in tracking.client().search_model_versions(f"name = '{name}'"):
        if version.tags.get(TAG_ARTIFACT) == candidate.artifact:
            return version
    return mlflow.register_model(candidate.model_uri, name, tags=_tags(candidate))


def _tags(candidate: Candidate) -> dict[str, str]:
    return {
        TAG_ARTIFACT: candidate.artifact,
        TAG_DATASET: candidate.dataset,
        TAG_CLASSES: candidate.classes,
        "cxr.arm": candidate.arm,
        "cxr.role": candidate.role,
        "cxr.seed": str(candidate.seed),
        "cxr.validation_macro_f1": f"{candidate.validation_macro_f1:.6f}",
    }


def promote_best(
    run: RunContext, dataset: StepResult, comparisons: Sequence[StepResult], classes: Sequence[str]
) -> StepResult:
    """Promote, for each classifier and over all, the arm with the best validation macro F1."""
    from cxr_tasks.execution import perform

    def make(folder: Path, record: Record) -> None:
        # A baseline that several arms are compared with is one candidate.
        arms = {
            arm["ref"]: arm
            for role in ("baseline", "augmented")
            for arm in (result["summary"][role] for result in comparisons)
            if arm is not None
        }
        candidates = [_candidate(arm, dataset, classes) for arm in arms.values()]
        if not candidates:
            record["summary"] = {"decisions": []}
            return
        classifiers = list(dict.fromkeys(candidate.classifier for candidate in candidates))
        chosen = {model_name(k): best([c for c in candidates if c.classifier == k]) for k in classifiers}
        chosen[OVERALL] = best(candidates)
        scores: dict[str, float | None] = {}

        def score(version: ModelVersion) -> float | None:
            artifact = version.tags.get(TAG_ARTIFACT, "")
            if artifact not in scores:
                scores[artifact] = champion_score(version, dataset, candidates[0].classes)
            return scores[artifact]

        decisions = [promote(name, candidate, score) for name, candidate in chosen.items()]
        for decision in decisions:
            log.info("%s version %s is %s: %s", decision.name, decision.version, decision.alias, decision.decision)
        (folder / "decisions.json").write_text(
            json.dumps([d.model_dump() for d in decisions], indent=2), encoding="utf-8"
        )
        record["summary"] = {"decisions": [decision.model_dump() for decision in decisions]}
        record["metrics"] = {"candidates": len(candidates), "promoted": len(decisions)}

    # What becomes of a candidate depends on the registry as it is now, so this is never taken from the store.
    inputs: dict[str, StepResult | str] = {"dag_run": run["dag_run"], "work": run["mlflow_run_id"]}
    inputs |= {f"comparison {i}": result for i, result in enumerate(comparisons)}
    return perform(run, "promote", make, settings={}, inputs=inputs)


def champion_score(version: ModelVersion, dataset: StepResult, classes: str) -> float | None:
    """Macro F1 of a registered model on the validation images of ``dataset``.

    ``None`` if it cannot be compared: its classes differ, or it was trained on some of these images. Its
    saved predictions are used where they are of these images, else the model predicts anew.
    """
    import pandas as pd

    from cxr_tasks.evaluation.metrics import classification_metrics
    from cxr_tasks.store import open_store

    names = classes.split("|")
    if version.tags.get(TAG_CLASSES) != classes:
        return None
    store = open_store()
    artifact = version.tags[TAG_ARTIFACT]
    if version.tags.get(TAG_DATASET) == dataset["ref"] and store.record(artifact) is not None:
        table = pd.read_parquet(store.fetch(artifact) / "predictions.parquet")
        table = table[table["split"] == "validation"]
    elif _trained_on_validation(version, dataset):
        return None
    else:
        table = _predict(version, dataset, names)
    return classification_metrics(table, names)["macro_f1"]


def _trained_on_validation(version: ModelVersion, dataset: StepResult) -> bool:
    """Whether the model saw, in training, an image or a patient that is now in the validation split."""
    import pandas as pd

    from cxr_tasks.data.ingest import MANIFEST
    from cxr_tasks.store import open_store

    store = open_store()
    if store.record(version.tags[TAG_DATASET]) is None:
        return False  # nothing is known of its training images any more
    old, new = (pd.read_parquet(store.fetch(ref) / MANIFEST) for ref in (version.tags[TAG_DATASET], dataset["ref"]))
    trained, asked = old[old["split"] == "train"], new[new["split"] == "validation"]
    return bool(asked["image_id"].isin(trained["image_id"]).any() or asked["group"].isin(trained["group"]).any())


def _predict(version: ModelVersion, dataset: StepResult, classes: list[str]) -> pd.DataFrame:
    import mlflow

    from cxr_tasks.data.dataset import load_images
    from cxr_tasks.training.classifier import prediction_table

    model = mlflow.tensorflow.load_model(f"models:/{version.name}/{version.version}")
    images = load_images(dataset["ref"], "validation", model.input_shape[1], classes, resize=True)
    return prediction_table(images, "validation", model.predict(images.pixels[..., None], verbose=0), classes)


def _candidate(arm: StepResult, dataset: StepResult, classes: Sequence[str]) -> Candidate:
    from cxr_tasks.store import open_store

    record = open_store().record(arm["ref"])
    assert record is not None
    summary = arm["summary"]
    return Candidate(
        classifier=summary["classifier"],
        role=summary["role"],
        arm=summary["arm"],
        seed=summary["seed"],
        validation_macro_f1=summary["validation_macro_f1"],
        artifact=arm["ref"],
        dataset=dataset["ref"],
        classes="|".join(classes),
        model_uri=_model_uri(arm, record),
    )


def _model_uri(arm: StepResult, record: dict[str, Any]) -> str:
    """Where MLflow has the arm's model. Logged again from the artifact if MLflow lost it, or never had it."""
    import mlflow
    from mlflow.exceptions import MlflowException

    uri = record["model_uri"]
    try:
        mlflow.get_logged_model(uri.removeprefix("models:/"))
        return uri
    except MlflowException:
        import keras
        import numpy as np

        from cxr_tasks.store import open_store
        from cxr_tasks.training.arm import MODEL, log_model

        model = keras.models.load_model(open_store().fetch(arm["ref"]) / MODEL)
        return log_model(model, np.zeros((1, *model.input_shape[1:3]), np.uint8))
