"""What ``promote`` does to a real registry: who becomes challenger and champion, and whose figures decide it."""

import json
import os
import socket
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from cxr_tasks import steps, tracking
from cxr_tasks.artifacts import (
    Comparison,
    Dataset,
    Decision,
    Pair,
    Promotion,
    Reply,
    RunContext,
    TrainedArm,
    TrainedModel,
    Training,
    write_json,
)
from cxr_tasks.config import resolve
from cxr_tasks.data.ingest import MANIFEST, pixels_file
from cxr_tasks.evaluation.findings import arm_findings
from cxr_tasks.gate_settings import GateSettings
from cxr_tasks.overview.registered import read_figure
from cxr_tasks.registry import champions
from cxr_tasks.registry.champions import CHALLENGER, CHAMPION, Candidate, Standing
from cxr_tasks.registry.gate import Evidence, Gate
from cxr_tasks.serving.model_facts import ModelFacts
from cxr_tasks.steps.contest import alone_with, register_challenger
from cxr_tasks.steps.promote import promote_alone
from cxr_tasks.steps.served_facts import log_trained
from cxr_tasks.steps.standing import champion_score
from cxr_tasks.store import FolderStore

CLASSES = ["COVID", "Normal", "Viral Pneumonia"]
SIZE = 16
# The gray value of every pixel of a class's images.
GRAY = {"COVID": 50, "Normal": 127, "Viral Pneumonia": 200}
FIRST = "First champion: it meets every floor, and there was none to beat."
NO_FLOORS: dict[str, Any] = {"min_macro_f1": None, "min_recall": None}
# Macro F1 of always answering the same of three equally frequent classes.
ONE_ANSWER = 1 / 6

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model_uris(mlflow_server: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Logged models that need no training: ``sees`` is always right, ``guesses`` always says Normal.

    The second is logged as 0.1.0 did, as a Keras model with nothing beside it.
    """
    import keras
    import mlflow

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
            folder = tmp_path_factory.mktemp(name)
            uris[f"{name} file"] = str(folder / TrainedModel.MODEL)
            model.save(uris[f"{name} file"])
            write_json(folder / ModelFacts.FILE, ModelFacts.bare(CLASSES, SIZE, "area"))
            with mlflow.start_run(experiment_id=experiment):
                uris[name] = log_trained(folder, folder) if name == "sees" else logged_bare(model)
    return uris


def logged_bare(model: Any) -> str:
    import mlflow

    return mlflow.tensorflow.log_model(model, name="model", pip_requirements=["keras"]).model_uri


STATES = {"3": "PENDING_REGISTRATION", "2": "FAILED_REGISTRATION", "1": "READY"}


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
        "weights_digest": uuid.uuid4().hex,
        "dataset": "split/a",
        "classes": "|".join(CLASSES),
        "model_uri": "",
    }
    return Candidate.model_validate(values | changes)


def version_at(name: str, alias: str) -> str:
    return str(tracking.client().get_model_version_by_alias(name, alias).version)


def versions(name: str) -> int:
    return len(tracking.client().search_model_versions(f"name = '{name}'"))


def never(version: object) -> Standing:
    pytest.fail("there was no champion to score")


def scored(f1: float) -> Callable[[Any], Standing]:
    """Every champion has this figure."""
    return lambda version: Standing(score=f1)


def opened(name: str, chosen: Candidate, standing: Callable[[Any], Standing], **limits: Any) -> Decision:
    """Register ``chosen``, which is right of every image, at a gate that asks for ``limits`` and no other floor."""
    gate, evidence = gate_of(**limits)
    return settled(name, chosen, evidence, gate, standing)


def gate_of(size_mb: float | None = None, **limits: Any) -> tuple[Gate, Callable[[], Evidence]]:
    """A gate that asks for ``limits`` and no other floor, and the evidence of who is right of every image."""
    asked = GateSettings.model_validate({**resolve("quick").gate.model_dump(), **NO_FLOORS, **limits})
    evidence = Evidence(predictions("validation", "right"), size_mb=size_mb)
    return Gate(asked, CLASSES, bootstrap_samples=50, seed=0), lambda: evidence


def tags_of(name: str, version: str) -> dict[str, str]:
    return dict(tracking.client().get_model_version(name, version).tags)


def settled(
    name: str,
    chosen: Candidate,
    evidence: Callable[[], Evidence],
    gate: Gate,
    standing: Callable[[Any], Standing],
    dag_run: str = "",
) -> Decision:
    """Register ``chosen`` and make it champion if the gate lets it, as the two steps do."""

    def challenge(*_: object) -> Decision:
        return register_challenger(name, chosen, evidence, gate, standing, dag_run)

    with alone_with(name, "a test"):
        decision = challenge()
    return promote_alone(decision, challenge, dag_run)


@pytest.mark.usefixtures("mlflow_uri", "store")
class TestRegisterCandidate:
    @pytest.fixture
    def given(self, name: str, model_uris: dict[str, str]) -> Callable[..., Decision]:
        def promoted(f1: float, score: Callable[[Any], Standing] = never, **changes: Any) -> Decision:
            return opened(name, candidate(f1, model_uri=model_uris["guesses"], **changes), score)

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
        decision = given(f1, scored(0.6))

        assert decision.alias == CHALLENGER
        assert f"Macro F1 is {f1:.3f}, and that of champion 1 0.600 on the same validation images." in decision.decision
        assert decision.decision.endswith("Champion 1 stays.")
        assert (version_at(name, CHAMPION), version_at(name, CHALLENGER)) == ("1", "2")

    def test_better_one_is_champion(self, name: str, given: Callable[..., Decision]) -> None:
        given(0.5)
        asked_for = []

        def asked(version: Any) -> Standing:
            asked_for.append(str(version.version))
            return Standing(score=0.5)

        decision = given(0.51, asked)

        assert asked_for == ["1"]
        assert (decision.alias, version_at(name, CHAMPION), version_at(name, CHALLENGER)) == (CHAMPION, "2", "2")

    def test_champion_of_other_classes_is_not_compared_and_stays(
        self, name: str, given: Callable[..., Decision]
    ) -> None:
        given(0.5)

        decision = given(0.99, lambda version: Standing(remark="has other classes"))

        assert decision.alias == CHALLENGER
        assert "so the two are not compared" in decision.decision
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

    def test_same_model_again_makes_no_new_version(self, name: str, given: Callable[..., Decision]) -> None:
        given(0.5, weights_digest="one")
        given(0.4, scored(0.5), weights_digest="two")

        again = given(0.4, scored(0.5), weights_digest="two")
        assert (again.version, again.alias) == ("2", CHALLENGER)

        champion = given(0.5, weights_digest="one")
        assert (champion.version, champion.alias) == ("1", CHAMPION)
        assert versions(name) == 2
        assert version_at(name, CHALLENGER) == "1"

    def test_model_that_was_trained_anew_is_another_one(
        self, name: str, given: Callable[..., Decision], model_uris: dict[str, str]
    ) -> None:
        given(0.5, artifact="train_arm/one")

        anew = candidate(0.9, "train_arm/one", model_uri=model_uris["sees"])

        assert opened(name, anew, scored(0.5)).version == "2"


def publish_dataset(store: FolderStore, name: str, *, turned: bool = False, prefix: str = "") -> Dataset:
    """A dataset as the steps leave it: two images of each class in each split.

    ``turned``: others are validated. ``prefix``: of the names of its images.
    """
    splits = ["validation", "train", "test"] if turned else ["train", "validation", "test"]
    rows = [
        (f"{prefix}{was}-{label}-{n}", split, label)
        for was, split in zip(["train", "validation", "test"], splits, strict=True)
        for label in CLASSES
        for n in range(2)
    ]
    manifest = pd.DataFrame(rows, columns=["image_id", "split", "label"])
    manifest = manifest.assign(group=manifest["image_id"], provenance="real", shard=0, row=range(len(rows)))
    pixels = np.empty((len(rows), SIZE, SIZE), np.uint8)
    pixels[:] = manifest["label"].map(GRAY).to_numpy()[:, None, None]
    with store.publish(f"ingest/{name}", {}) as folder:
        np.save(folder / pixels_file(SIZE), pixels)
    with store.publish(f"split/{name}", {}) as folder:
        manifest.to_parquet(folder / MANIFEST, index=False)
    return Dataset(
        ref=f"split/{name}",
        version=name,
        counts={split: dict.fromkeys(CLASSES, 2) for split in splits},
        shards=(f"ingest/{name}",),
        source="/data",
        warnings=(),
        data_docs="",
    )


def predictions(split: str, verdict: str) -> pd.DataFrame:
    """The prediction table of a split, which is ``right`` or ``wrong`` throughout."""
    rows = []
    for k, label in enumerate(CLASSES):
        answer = np.eye(3)[k if verdict == "right" else (k + 1) % 3]
        rows += [(f"{split}-{label}-{n}", split, f"{split}-{label}-{n}", label, *answer) for n in range(2)]
    return pd.DataFrame(rows, columns=["image_id", "split", "group", "label", *CLASSES])


def publish_arm(
    store: FolderStore, classifier: str, arm: str, f1: float, model_uri: str, validation: str, model: str = ""
) -> TrainedArm:
    """An arm whose saved predictions are ``right`` or ``wrong`` on validation and the other way round on test."""
    other = {"right": "wrong", "wrong": "right"}[validation]
    table = pd.concat([predictions("validation", validation), predictions("test", other)], ignore_index=True)
    trained = TrainedModel(
        ref=f"train_arm/{uuid.uuid4().hex}",
        training=Training(classifier=classifier, arm=arm, seed=0),
        epochs=1,
        steps=1,
        train_images=6,
        weights_digest=f"weights of {arm}",
    )
    with store.publish(
        trained.ref, {"mlflow_run_id": "run", "made": {"weights_digest": trained.weights_digest}}
    ) as folder:
        table.to_parquet(folder / TrainedModel.PREDICTIONS, index=False)
        if model:
            (folder / TrainedModel.MODEL).write_bytes(Path(model).read_bytes())
    ref = trained.ref.replace("train", "evaluate")
    findings = arm_findings(
        arm, table, {}, table.set_index("image_id")[[]], CLASSES, resolve("quick").evaluation, seed=0
    )
    with store.publish(ref, {}) as folder:
        write_json(folder / TrainedArm.FINDINGS, findings)
        write_json(folder / ModelFacts.FILE, ModelFacts.bare(CLASSES, SIZE))
    return TrainedArm(
        ref=ref, model=trained, model_uri=model_uri, validation_macro_f1=f1, test_macro_f1=0.0, test_accuracy=0.0
    )


@pytest.mark.usefixtures("mlflow_uri")
class TestChampionScore:
    @pytest.fixture
    def champion(self, name: str, store: FolderStore, model_uris: dict[str, str]) -> Any:
        """Guesses, but its saved predictions on the validation images of dataset ``a`` are all right."""
        arm = publish_arm(store, "cnn", "none", 1.0, "", "right")
        changes = {"model_uri": model_uris["guesses"], "dataset": "split/a", "weights_digest": arm.model.weights_digest}
        guessing = candidate(1.0, arm.model.ref, **changes)
        opened(name, guessing, never)
        return tracking.version_by_alias(name, CHAMPION)

    def test_same_dataset_uses_the_saved_validation_predictions(self, champion: Any, store: FolderStore) -> None:
        assert champion_score(champion, publish_dataset(store, "a"), CLASSES) == Standing(score=1.0)

    def test_other_dataset_is_predicted_anew(self, champion: Any, store: FolderStore) -> None:
        publish_dataset(store, "a", prefix="other ")

        standing = champion_score(champion, publish_dataset(store, "b"), CLASSES)

        assert standing.score == pytest.approx(ONE_ANSWER) and standing.is_clean and not standing.remark

    @pytest.mark.parametrize("left", ["nothing", "no table", "a table of other columns"])
    def test_where_its_training_images_are_not_known_its_figure_is_not_clean(
        self, champion: Any, store: FolderStore, left: str
    ) -> None:
        if left != "nothing":
            with store.publish("split/a", {}) as folder:
                if left == "a table of other columns":
                    pd.DataFrame({"path": ["x"]}).to_parquet(folder / MANIFEST)

        standing = champion_score(champion, publish_dataset(store, "b"), CLASSES)

        assert standing.score == pytest.approx(ONE_ANSWER) and not standing.is_clean
        assert "not known any more" in standing.remark

    def test_predictions_of_a_model_trained_anew_are_not_taken(self, champion: Any, store: FolderStore) -> None:
        ref = champion.tags["cxr.artifact"]
        record = store.record(ref) | {"made": {"weights_digest": "another"}}
        (store.root / ref / "artifact.json").write_text(json.dumps(record))

        assert champion_score(champion, publish_dataset(store, "a"), CLASSES).score == pytest.approx(ONE_ANSWER)

    def test_an_artifact_of_an_older_version_is_predicted_anew(self, champion: Any, store: FolderStore) -> None:
        ref = champion.tags["cxr.artifact"]
        record = {key: value for key, value in store.record(ref).items() if key != "made"}
        (store.root / ref / "artifact.json").write_text(json.dumps(record))

        assert champion_score(champion, publish_dataset(store, "a"), CLASSES).score == pytest.approx(ONE_ANSWER)

    def test_lost_predictions_are_made_anew(self, champion: Any, store: FolderStore) -> None:
        dataset = publish_dataset(store, "a")
        os.unlink(store.root / champion.tags["cxr.artifact"] / "artifact.json")

        assert champion_score(champion, dataset, CLASSES).score == pytest.approx(ONE_ANSWER)

    @pytest.mark.parametrize("classes", [["COVID", "Normal"], ["Normal", "COVID", "Viral Pneumonia"]])
    def test_other_classes_are_not_compared(self, champion: Any, store: FolderStore, classes: list[str]) -> None:
        standing = champion_score(champion, publish_dataset(store, "a"), classes)

        assert standing.score is None and not standing.is_lost and "other classes" in standing.remark

    def test_one_that_was_trained_on_these_images_is_not_compared(self, champion: Any, store: FolderStore) -> None:
        publish_dataset(store, "a")

        standing = champion_score(champion, publish_dataset(store, "turned", turned=True), CLASSES)

        assert standing.score is None and not standing.is_lost and "trained on some of these images" in standing.remark


def lost_version(name: str, how: str, tags: dict[str, str], place: Path) -> Any:
    """A registered version whose files are gone, or that this Keras cannot read; it is champion."""
    client = tracking.client()
    run = client.create_run(tracking.experiment_id("lost models"))
    source = f"{run.info.artifact_uri}/model"
    if how == "unreadable":
        (place / "data").mkdir(parents=True)
        (place / "data/model.keras").write_bytes(b"of another Keras")
        (place / "data/keras_module.txt").write_text("keras")
        (place / "data/save_format.txt").write_text("tf")
        flavor = "model_type: keras\n    data: data\n    keras_version: 2.9.0\n    save_format: keras"
        (place / "MLmodel").write_text(f"flavors:\n  tensorflow:\n    {flavor}\n")
        client.log_artifacts(run.info.run_id, str(place), "model")
    client.create_registered_model(name)
    version = client.create_model_version(name, source, run.info.run_id, tags=tags)
    tracking.set_alias(name, CHAMPION, version.version)
    return tracking.version_by_alias(name, CHAMPION)


@pytest.mark.usefixtures("mlflow_uri")
@pytest.mark.parametrize("how", ["gone", "unreadable"])
class TestChampionThatCannotBeLoaded:
    TAGS: ClassVar[dict[str, str]] = {"cxr.classes": "|".join(CLASSES), "cxr.dataset_ref": "split/old"}

    def decided(self, name: str, store: FolderStore, f1: float, uri: str) -> Decision:
        dataset = publish_dataset(store, "a")
        return opened(name, candidate(f1, model_uri=uri), lambda version: champion_score(version, dataset, CLASSES))

    def test_the_figure_of_its_registration_counts_where_it_is_of_these_images(
        self, name: str, how: str, store: FolderStore, model_uris: dict[str, str], tmp_path: Path
    ) -> None:
        tags = self.TAGS | {"cxr.dataset_ref": "split/a", "cxr.validation_macro_f1": "0.7"}
        lost_version(name, how, tags, tmp_path / "files")

        decision = self.decided(name, store, 0.6, model_uris["sees"])

        assert decision.alias == CHALLENGER and version_at(name, CHAMPION) == "1"
        assert "that of champion 1 0.700 on the same validation images, as recorded" in decision.decision

    def test_one_that_was_better_on_other_images_is_not_replaced_without_a_person(
        self, name: str, how: str, store: FolderStore, model_uris: dict[str, str], tmp_path: Path
    ) -> None:
        lost_version(name, how, self.TAGS | {"cxr.validation_macro_f1": "0.7"}, tmp_path / "files")

        decision = self.decided(name, store, 0.6, model_uris["sees"])

        assert decision.alias == CHALLENGER and version_at(name, CHAMPION) == "1"
        assert "Champion 1 could not be scored: " in decision.decision and "no decision" in decision.decision
        assert {"gone": "its files are gone", "unreadable": "this version of Keras cannot read"}[
            how
        ] in decision.decision

    @pytest.mark.parametrize("figure", [{"cxr.validation_macro_f1": "0.5"}, {}])
    def test_it_does_not_block_a_candidate_that_is_as_good_for_ever(
        self,
        name: str,
        how: str,
        figure: dict[str, str],
        store: FolderStore,
        model_uris: dict[str, str],
        tmp_path: Path,
    ) -> None:
        lost_version(name, how, self.TAGS | figure, tmp_path / "files")

        decision = self.decided(name, store, 0.6, model_uris["sees"])

        assert decision.alias == CHAMPION and version_at(name, CHAMPION) == "2"
        assert "could not be scored: " in decision.decision and "it is replaced" in decision.decision


@pytest.mark.usefixtures("mlflow_uri")
def test_a_server_that_does_not_answer_makes_no_champion_unusable(
    name: str, model_uris: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    version = tracking.register(model_uris["sees"], name, {})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free.getsockname()[1]}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    with pytest.raises(MlflowException, match="API request to"):
        tracking.load_version(version)


@pytest.mark.usefixtures("store")
def test_one_run_at_a_time_decides_on_a_registered_model() -> None:
    inside, seen = [], []

    def decide(name: str) -> None:
        with alone_with(name, "a test"):
            inside.append(name)
            time.sleep(0.1)
            seen.append(inside.count(name))
            inside.remove(name)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(decide, ["cxr-cnn", "cxr-cnn", "cxr-vgg16"]))

    assert seen == [1, 1, 1]


def test_a_version_that_is_not_ready_is_not_taken_for_a_registered_one(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [SimpleNamespace(version=n, status=status, tags={"digest": "a"}) for n, status in STATES.items()]
    registry = SimpleNamespace(search_model_versions=lambda asked: found)
    monkeypatch.setattr("cxr_tasks.tracking.models.client", lambda: registry)

    version = tracking.version_with_tag("cxr-cnn", "digest", "a")

    assert version is not None and version.version == "1"


def promoted_by(run: RunContext, dataset: Dataset, *given: Any, reply: Reply | None = None) -> Promotion:
    """What the steps ``challenge`` and ``promote`` make of the arms."""
    return steps.promote(run, dataset, steps.challenge(run, dataset, *given), *given, reply=reply)


class TestPromote:
    @pytest.fixture
    def classifiers(self, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
        """Names that no other test registers, with an overall name of their own."""
        own = uuid.uuid4().hex
        monkeypatch.setattr(champions, "OVERALL_MODEL", f"cxr-overall-{own}")
        return f"vgg16-{own}", f"cnn-{own}"

    @pytest.fixture
    def begin(self, store: FolderStore, new_run: Callable[..., RunContext]) -> Callable[[], RunContext]:
        with store.publish("settings/one", {}) as folder:
            (folder / "settings.json").write_text(resolve("quick", {"gate": NO_FLOORS}).model_dump_json())
        return lambda: new_run(settings="settings/one")

    def compared(self, baseline: TrainedArm, augmented: TrainedArm | None) -> Comparison:
        return Comparison(
            ref=f"compare/{uuid.uuid4().hex}",
            pair=Pair(classifier=baseline.training.classifier, arm="synthetic", against=baseline.training.arm, seed=0),
            name="",
            baseline=baseline,
            augmented=augmented,
            verdict="",
        )

    def test_each_classifier_and_all_together_get_their_champion(
        self,
        begin: Callable[[], RunContext],
        store: FolderStore,
        model_uris: dict[str, str],
        classifiers: tuple[str, str],
    ) -> None:
        first, second = classifiers
        dataset = publish_dataset(store, "a")
        sees, guesses = model_uris["sees"], model_uris["guesses"]
        comparisons = [
            self.compared(
                publish_arm(store, first, "none", 0.7, guesses, "wrong"),
                publish_arm(store, first, "synthetic", 0.9, sees, "right"),
            ),
            self.compared(
                publish_arm(store, second, "none", 0.9, sees, "right"),
                publish_arm(store, second, "synthetic", 0.9, guesses, "wrong"),
            ),
        ]

        promoted = promoted_by(begin(), dataset, comparisons)

        assert {decision.name: (decision.alias, decision.arm) for decision in promoted.decisions} == {
            f"cxr-{first}": (CHAMPION, f"{first} augmented (synthetic), seed 0"),
            f"cxr-{second}": (CHAMPION, f"{second} baseline (none), seed 0"),
            # As good as the augmented one: the simpler training wins.
            champions.OVERALL_MODEL: (CHAMPION, f"{second} baseline (none), seed 0"),
        }
        assert promoted.file(promoted.DECISIONS) is not None
        version = tracking.client().get_model_version(f"cxr-{first}", "1")
        assert read_figure(version.tags[champions.TAG_TEST_MACRO_F1]) is not None
        card = version.description
        assert "no diagnosis may rest on it" in card and "Dataset `a`" in card and "| COVID | 0.0 | 0.0 | 0.0 |" in card
        assert card.endswith(f"## Why it is, or is not, champion\n\n{FIRST}")

    def test_retry_and_next_run_make_no_new_versions(
        self,
        begin: Callable[[], RunContext],
        store: FolderStore,
        model_uris: dict[str, str],
        classifiers: tuple[str, str],
    ) -> None:
        dataset, run = publish_dataset(store, "a"), begin()
        comparisons = [
            self.compared(
                publish_arm(store, classifiers[0], "none", 0.9, model_uris["sees"], "right"),
                publish_arm(store, classifiers[0], "synthetic", 0.8, model_uris["sees"], "right"),
            )
        ]

        first, retried, later = (promoted_by(each, dataset, comparisons) for each in (run, run, begin()))

        assert first.ref == retried.ref != later.ref
        # Another try says what the first has done; another run finds it done.
        assert [decision.decision for decision in retried.decisions] == [FIRST] * 2
        assert {decision.decision for decision in later.decisions} == {"The same model is champion already."}
        assert versions(f"cxr-{classifiers[0]}") == versions(champions.OVERALL_MODEL) == 1

    def test_asked_again_it_decides_anew_against_the_champion_of_now(
        self,
        begin: Callable[[], RunContext],
        store: FolderStore,
        model_uris: dict[str, str],
        classifiers: tuple[str, str],
    ) -> None:
        dataset, run, other = publish_dataset(store, "a"), begin(), begin()
        standing, better = (
            [self.compared(publish_arm(store, classifiers[0], arm, f1, model_uris["sees"], validation), None)]
            for arm, f1, validation in (("none", 0.8, "wrong"), ("synthetic", 1.0, "right"))
        )
        promoted_by(run, dataset, standing)
        promoted_by(other, dataset, better)

        again = promoted_by(run, dataset, standing)

        assert {decision.alias for decision in again.decisions} == {CHALLENGER}
        assert all("that of champion 2 1.000" in decision.decision for decision in again.decisions)
        assert again.forced and not again.reused

    def test_the_metric_promoted_counts_champions_that_were_made(
        self,
        begin: Callable[[], RunContext],
        store: FolderStore,
        model_uris: dict[str, str],
        classifiers: tuple[str, str],
    ) -> None:
        dataset = publish_dataset(store, "a")
        good, bad = (
            [self.compared(publish_arm(store, classifiers[0], arm, f1, model_uris["sees"], validation), None)]
            for arm, f1, validation in (("none", 1.0, "right"), ("synthetic", 0.1, "wrong"))
        )

        promotions = [promoted_by(begin(), dataset, each) for each in (good, bad, good)]

        client = tracking.client()
        metrics = [client.get_run(promotion.mlflow_run_id).data.metrics["promote/promoted"] for promotion in promotions]
        assert metrics == [2, 0, 0]

    def test_an_arm_whose_comparison_failed_is_a_candidate_all_the_same(
        self,
        begin: Callable[[], RunContext],
        store: FolderStore,
        model_uris: dict[str, str],
        classifiers: tuple[str, str],
    ) -> None:
        arm = publish_arm(store, classifiers[0], "none", 0.9, model_uris["sees"], "right")

        promoted = promoted_by(begin(), publish_dataset(store, "a"), None, [None, [None, arm, arm]])

        assert [decision.alias for decision in promoted.decisions] == [CHAMPION, CHAMPION]

    def test_model_that_the_server_lost_is_logged_again(
        self,
        begin: Callable[[], RunContext],
        store: FolderStore,
        model_uris: dict[str, str],
        classifiers: tuple[str, str],
    ) -> None:
        lost, file = "models:/m-00000000000000000000000000000000", model_uris["sees file"]
        arm = publish_arm(store, classifiers[0], "none", 0.9, lost, "right", file)
        dataset = publish_dataset(store, "a")

        promoted_by(begin(), dataset, [self.compared(arm, None)])

        served = tracking.load_version(tracking.version_by_alias(f"cxr-{classifiers[0]}", CHAMPION))
        pixels = np.full((1, SIZE, SIZE, 1), GRAY["COVID"], np.float32)
        assert served.predict(pixels, verbose=0).argmax() == 0

    def test_a_challenger_that_the_gate_refuses_is_registered_and_says_why(
        self,
        begin: Callable[[], RunContext],
        store: FolderStore,
        model_uris: dict[str, str],
        classifiers: tuple[str, str],
    ) -> None:
        limits = {"min_macro_f1": 0.9, "min_recall": None, "max_size_mb": 0.001, "max_latency_ms": 1e-6}
        with store.publish("settings/strict", {}) as folder:
            (folder / "settings.json").write_text(resolve("quick", {"gate": limits}).model_dump_json())
        strict = begin().model_copy(update={"settings": "settings/strict"})
        arm = publish_arm(store, classifiers[0], "none", 0.9, model_uris["sees"], "right", model_uris["sees file"])
        dataset = publish_dataset(store, "a")

        refused = promoted_by(strict, dataset, [self.compared(arm, None)])
        tags = tracking.client().get_model_version(f"cxr-{classifiers[0]}", "1").tags
        passed = promoted_by(begin(), dataset, [self.compared(arm, None)])

        assert [decision.alias for decision in refused.decisions] == [CHALLENGER, CHALLENGER]
        failed = [each.about for each in refused.decisions[0].conditions if not each.passed]
        assert failed == ["latency", "size"]
        words = refused.decisions[0].decision
        assert "above the limit of 0 ms" in words and words.endswith("There is no champion yet.")
        assert tags["cxr.gate.macro_F1"] == "passed: Macro F1 is 1.000, at or above the floor of 0.900."
        assert tags["cxr.gate.size"].startswith("refused: The model's size is ")
        kept = json.loads(refused.file(refused.DECISIONS))
        assert kept[0]["conditions"] == [each.model_dump() for each in refused.decisions[0].conditions]
        # What a gate refused once may pass another, and its version is the same.
        assert [(decision.alias, decision.version) for decision in passed.decisions] == [(CHAMPION, "1")] * 2
        tags = tracking.client().get_model_version(f"cxr-{classifiers[0]}", "1").tags
        assert not [tag for tag in tags if tag.startswith("cxr.gate.")]

    def test_a_run_that_trained_nothing_promotes_nothing(
        self, begin: Callable[[], RunContext], store: FolderStore
    ) -> None:
        promoted = promoted_by(begin(), publish_dataset(store, "a"), [])

        assert promoted.decisions == ()


@pytest.mark.usefixtures("mlflow_uri")
def test_twenty_promotions_at_once_end_with_one_champion_and_a_true_history(
    name: str, store: FolderStore, model_uris: dict[str, str]
) -> None:
    asked = GateSettings.model_validate({**resolve("quick").gate.model_dump(), **NO_FLOORS})
    gate, evidence = Gate(asked, CLASSES, 50, 0), Evidence(predictions("validation", "right"))
    figures = {str(number): number / 20 for number in range(20)}

    def standing(version: Any) -> Standing:
        return Standing(score=figures[version.tags["cxr.weights_digest"]])

    def promote(digest: str) -> Decision:
        chosen = candidate(figures[digest], model_uri=model_uris["guesses"], weights_digest=digest)
        return settled(name, chosen, lambda: evidence, gate, standing, f"run {digest}")

    with ThreadPoolExecutor(20) as pool:
        decisions = list(pool.map(promote, figures))

    found = {version.version: version for version in tracking.registered_versions() if version.name == name}
    assert len(found) == 20
    champion = found[version_at(name, CHAMPION)]
    assert champion.tags["cxr.weights_digest"] == "19"
    # From champion to champion before, to the first: each that was made one, and none other.
    history = [champion]
    while before := history[-1].tags["cxr.replaced_version"]:
        history.append(found[before])
    made = {decision.version for decision in decisions if decision.is_new}
    assert {version.version for version in history} == made and len(history) == len(made)
    scores = [figures[version.tags["cxr.weights_digest"]] for version in history]
    assert scores == sorted(scores, reverse=True)
