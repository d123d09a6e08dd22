"""Who becomes challenger and champion, on a real registry, and that validation images alone decide it."""

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from cxr_tasks import registry, tracking
from cxr_tasks.data.ingest import pixels_file
from cxr_tasks.execution import RunContext, StepResult
from cxr_tasks.registry import CHALLENGER, CHAMPION, Candidate, Decision, best, champion_score, promote, promote_best
from cxr_tasks.store import FolderStore

CLASSES = ["COVID", "Normal", "Viral Pneumonia"]
SIZE = 16
# The gray value of every pixel of a class's images.
GRAY = {"COVID": 50, "Normal": 127, "Viral Pneumonia": 200}
# Macro F1 of always answering the same of three equally frequent classes.
ONE_ANSWER = 1 / 6


@pytest.fixture(scope="module")
def model_uris(mlflow_server: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Logged models that need no training: ``sees`` is always right, ``guesses`` always says Normal."""
    import keras
    import mlflow

    from cxr_tasks.training.arm import MODEL, log_model

    centres = np.array(list(GRAY.values()), np.float32)
    weights = {
        "sees": [2 * centres[None] / 100, -(centres**2) / 100],
        "guesses": [np.zeros((1, 3), np.float32), np.array([0, 5, 0], np.float32)],
    }
    uris = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
        experiment = tracking.experiment_id("models for the tests of the registry")
        for name, values in weights.items():
            image = keras.Input((SIZE, SIZE, 1))
            answer = keras.layers.Dense(3, activation="softmax")(keras.layers.GlobalAveragePooling2D()(image))
            model = keras.Model(image, answer)
            model.layers[-1].set_weights(values)
            with mlflow.start_run(experiment_id=experiment):
                uris[name] = log_model(model, np.zeros((2, SIZE, SIZE), np.uint8))
            uris[f"{name} file"] = str(tmp_path_factory.mktemp(name) / MODEL)
            model.save(uris[f"{name} file"])
    return uris


@pytest.fixture
def name() -> str:
    return f"cxr-{uuid.uuid4().hex}"


def candidate(f1: float, artifact: str = "", **changes: Any) -> Candidate:
    values = {
        "classifier": "cnn",
        "role": "baseline",
        "arm": "classical",
        "seed": 0,
        "validation_macro_f1": f1,
        "artifact": artifact or f"train_arm/{uuid.uuid4().hex}",
        "dataset": "split/a",
        "classes": "|".join(CLASSES),
        "model_uri": "",
    }
    return Candidate.model_validate(values | changes)


def version_at(name: str, alias: str) -> str:
    return str(tracking.client().get_model_version_by_alias(name, alias).version)


def versions(name: str) -> int:
    return len(tracking.client().search_model_versions(f"name = '{name}'"))


def never(version: object) -> float:
    pytest.fail("there was no champion to score")


def test_best_has_the_highest_validation_figure_and_of_equals_is_the_first() -> None:
    baseline, augmented = candidate(0.9, "b"), candidate(0.9, "a", role="augmented")

    assert best([baseline, augmented]).role == "baseline"
    assert best([candidate(0.8), augmented, baseline]) == augmented


@pytest.mark.slow
@pytest.mark.usefixtures("mlflow_uri")
class TestPromote:
    @pytest.fixture
    def given(self, name: str, model_uris: dict[str, str]) -> Callable[..., Decision]:
        def promoted(f1: float, score: Callable[[Any], float | None] = never, **changes: Any) -> Decision:
            return promote(name, candidate(f1, model_uri=model_uris["guesses"], **changes), score)

        return promoted

    def test_first_candidate_is_champion(self, name: str, given: Callable[..., Decision]) -> None:
        decision = given(0.5)

        assert (decision.alias, decision.version) == (CHAMPION, "1")
        assert version_at(name, CHAMPION) == version_at(name, CHALLENGER) == "1"
        tags = tracking.client().get_model_version(name, "1").tags
        assert tags["cxr.classes"] == "COVID|Normal|Viral Pneumonia"
        assert tags["cxr.validation_macro_f1"] == "0.500000"

    @pytest.mark.parametrize("f1", [0.4, 0.6])
    def test_one_that_does_not_beat_the_champion_is_challenger(
        self, name: str, given: Callable[..., Decision], f1: float
    ) -> None:
        given(0.5)

        # What counts is the champion's figure on today's images, not the one it was registered with.
        decision = given(f1, lambda version: 0.6)

        assert decision.alias == CHALLENGER
        assert f"{f1:.3f} does not beat champion 1 (0.600 on the same validation images)" in decision.decision
        assert (version_at(name, CHAMPION), version_at(name, CHALLENGER)) == ("1", "2")

    def test_better_one_is_champion(self, name: str, given: Callable[..., Decision]) -> None:
        given(0.5)
        scored = []

        decision = given(0.51, lambda version: scored.append(str(version.version)) or 0.5)

        assert scored == ["1"]
        assert (decision.alias, version_at(name, CHAMPION), version_at(name, CHALLENGER)) == (CHAMPION, "2", "2")

    def test_champion_of_other_classes_is_not_compared_and_stays(
        self, name: str, given: Callable[..., Decision]
    ) -> None:
        given(0.5)

        decision = given(0.99, lambda version: None)

        assert decision.alias == CHALLENGER
        assert "not compared" in decision.decision
        assert version_at(name, CHAMPION) == "1"

    def test_server_that_fails_is_not_an_empty_registry(
        self, name: str, given: Callable[..., Decision], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given(0.9)

        def fails(*_: object) -> None:
            raise MlflowException("the database is locked")

        with monkeypatch.context() as broken, pytest.raises(MlflowException):
            broken.setattr(MlflowClient, "get_model_version_by_alias", fails)
            given(0.1)

        assert version_at(name, CHAMPION) == "1"

    def test_same_artifact_again_makes_no_new_version(self, name: str, given: Callable[..., Decision]) -> None:
        given(0.5, artifact="train_arm/one")
        given(0.4, lambda version: 0.5, artifact="train_arm/two")

        again = given(0.4, lambda version: 0.5, artifact="train_arm/two")
        assert (again.version, again.alias) == ("2", CHALLENGER)

        champion = given(0.5, artifact="train_arm/one")
        assert (champion.version, champion.alias) == ("1", CHAMPION)
        assert versions(name) == 2
        assert version_at(name, CHALLENGER) == "1"


def publish_dataset(store: FolderStore, ref: str) -> StepResult:
    """A dataset as the steps leave it: two images of each class in each split."""
    rows = [(f"{split}-{label}-{n}", split, label) for split in ("train", "validation", "test") for label in CLASSES
            for n in range(2)]  # fmt: skip
    manifest = pd.DataFrame(rows, columns=["image_id", "split", "label"])
    manifest = manifest.assign(group=manifest["image_id"], provenance="real", shard=0, row=range(len(rows)))
    pixels = np.empty((len(rows), SIZE, SIZE), np.uint8)
    pixels[:] = manifest["label"].map(GRAY).to_numpy()[:, None, None]
    with store.publish(f"ingest/{ref}", {}) as folder:
        np.save(folder / pixels_file(SIZE), pixels)
    with store.publish(f"split/{ref}", {"summary": {"shards": [f"ingest/{ref}"]}}) as folder:
        manifest.to_parquet(folder / "manifest.parquet", index=False)
    return step_result("split", f"split/{ref}", {"counts": {"train": dict.fromkeys(CLASSES, 2)}})


def step_result(step: str, ref: str, summary: dict[str, Any]) -> StepResult:
    return StepResult(
        step=step, ref=ref, reused=False, forced=False, seconds=0.0, mlflow_run_id="", url="", summary=summary
    )


def publish_arm(
    store: FolderStore, classifier: str, role: str, f1: float, model_uri: str, validation: str, model: str = ""
) -> StepResult:
    """An arm whose saved predictions are ``right`` or ``wrong`` on validation and the other way round on test."""
    rows = []
    for split, verdict in (("validation", validation), ("test", {"right": "wrong", "wrong": "right"}[validation])):
        for k, label in enumerate(CLASSES):
            answer = np.eye(3)[k if verdict == "right" else (k + 1) % 3]
            rows += [(f"{split}-{label}-{n}", split, f"{split}-{label}-{n}", label, *answer) for n in range(2)]
    table = pd.DataFrame(rows, columns=["image_id", "split", "group", "label", *CLASSES])
    ref = f"train_arm/{uuid.uuid4().hex}"
    with store.publish(ref, {"model_uri": model_uri, "mlflow_run_id": "run"}) as folder:
        table.to_parquet(folder / "predictions.parquet", index=False)
        if model:
            (folder / "model.keras").write_bytes(Path(model).read_bytes())
    summary = {"classifier": classifier, "role": role, "arm": "classical", "seed": 0, "validation_macro_f1": f1}
    return step_result("train_arm", ref, summary)


@pytest.mark.slow
@pytest.mark.usefixtures("mlflow_uri")
class TestChampionScore:
    @pytest.fixture
    def champion(self, name: str, store: FolderStore, model_uris: dict[str, str]) -> Any:
        """Guesses, but its saved predictions on the validation images of dataset ``a`` are all right."""
        arm = publish_arm(store, "cnn", "baseline", 1.0, "", "right")
        promote(name, candidate(1.0, arm["ref"], model_uri=model_uris["guesses"], dataset="split/a"), never)
        return tracking.client().get_model_version_by_alias(name, CHAMPION)

    def test_same_dataset_uses_the_saved_validation_predictions(self, champion: Any, store: FolderStore) -> None:
        assert champion_score(champion, publish_dataset(store, "a"), "|".join(CLASSES)) == 1.0

    def test_other_dataset_is_predicted_anew(self, champion: Any, store: FolderStore) -> None:
        score = champion_score(champion, publish_dataset(store, "b"), "|".join(CLASSES))

        assert score == pytest.approx(ONE_ANSWER)

    def test_lost_predictions_are_made_anew(self, champion: Any, store: FolderStore) -> None:
        dataset = publish_dataset(store, "a")
        os.unlink(store.root / champion.tags["cxr.artifact"] / "artifact.json")

        assert champion_score(champion, dataset, "|".join(CLASSES)) == pytest.approx(ONE_ANSWER)

    @pytest.mark.parametrize("classes", ["COVID|Normal", "Normal|COVID|Viral Pneumonia"])
    def test_other_classes_are_not_compared(self, champion: Any, store: FolderStore, classes: str) -> None:
        assert champion_score(champion, publish_dataset(store, "a"), classes) is None


@pytest.mark.slow
class TestPromoteBest:
    @pytest.fixture
    def classifiers(self, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
        """Names that no other test registers, with an overall name of their own."""
        own = uuid.uuid4().hex
        monkeypatch.setattr(registry, "OVERALL", f"cxr-overall-{own}")
        return f"vgg16-{own}", f"cnn-{own}"

    def compared(self, baseline: StepResult, augmented: StepResult) -> StepResult:
        pair = {"baseline": baseline, "augmented": augmented}
        return step_result("compare", f"compare/{uuid.uuid4().hex}", pair)

    def test_each_classifier_and_all_together_get_their_champion(
        self,
        new_run: Callable[..., RunContext],
        store: FolderStore,
        model_uris: dict[str, str],
        classifiers: tuple[str, str],
    ) -> None:
        first, second = classifiers
        dataset = publish_dataset(store, "a")
        sees, guesses = model_uris["sees"], model_uris["guesses"]
        comparisons = [
            self.compared(
                publish_arm(store, first, "baseline", 0.7, guesses, "wrong"),
                publish_arm(store, first, "augmented", 0.9, sees, "right"),
            ),
            self.compared(
                publish_arm(store, second, "baseline", 0.9, sees, "right"),
                publish_arm(store, second, "augmented", 0.9, guesses, "wrong"),
            ),
        ]

        result = promote_best(new_run(), dataset, comparisons, CLASSES)

        decided = {d["name"]: (d["alias"], d["arm"]) for d in result["summary"]["decisions"]}
        assert decided == {
            f"cxr-{first}": (CHAMPION, f"{first} augmented (classical), seed 0"),
            f"cxr-{second}": (CHAMPION, f"{second} baseline (classical), seed 0"),
            # As good as the augmented one: the simpler training wins.
            registry.OVERALL: (CHAMPION, f"{second} baseline (classical), seed 0"),
        }

    def test_retry_and_next_run_make_no_new_versions(
        self,
        new_run: Callable[..., RunContext],
        store: FolderStore,
        model_uris: dict[str, str],
        classifiers: tuple[str, str],
    ) -> None:
        dataset, run = publish_dataset(store, "a"), new_run()
        arms = [publish_arm(store, classifiers[0], "baseline", 0.9, model_uris["sees"], "right"),
                publish_arm(store, classifiers[0], "augmented", 0.8, model_uris["sees"], "right")]  # fmt: skip
        comparisons = [self.compared(*arms)]

        results = [promote_best(each, dataset, comparisons, CLASSES) for each in (run, run, new_run())]

        assert len({result["ref"] for result in results}) == 2
        assert versions(f"cxr-{classifiers[0]}") == versions(registry.OVERALL) == 1

    def test_model_that_the_server_lost_is_logged_again(
        self,
        new_run: Callable[..., RunContext],
        store: FolderStore,
        model_uris: dict[str, str],
        classifiers: tuple[str, str],
    ) -> None:
        import mlflow

        arm = publish_arm(
            store, classifiers[0], "baseline", 0.9, "models:/m-00000000000000000000000000000000", "right",
            model_uris["sees file"],
        )  # fmt: skip
        dataset = publish_dataset(store, "a")

        promote_best(new_run(), dataset, [self.compared(arm, arm)], CLASSES)

        served = mlflow.tensorflow.load_model(f"models:/cxr-{classifiers[0]}@champion")
        pixels = np.full((1, SIZE, SIZE, 1), GRAY["COVID"], np.float32)
        assert served.predict(pixels, verbose=0).argmax() == 0
