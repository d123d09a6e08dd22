"""MLflow shows for each run the images that it worked with, and no others: a real store, and no training."""

import json
import uuid
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_tasks import steps, tracking
from cxr_tasks.arms import ARMS
from cxr_tasks.artifacts import Dataset, Split, Training
from cxr_tasks.data.ingest import MANIFEST
from cxr_tasks.steps import common
from tests.steps import handles
from tests.steps.test_train_gan import Fit

LARGER: dict[str, Any] = {
    "classifiers": {"image_size": 48},
    "synthetic": {"counts": {"COVID": 5, "Viral Pneumonia": 4}},
}
REAL = "training images: real"
# So that some images of each class are in every split that is dealt at random.
SPLIT = {"data": {"split": {"validation": 0.3, "test": 0.3}}}
Logged = dict[str, tuple[str, str, int, dict[str, int]]]


def logged(run_id: str) -> Logged:
    """Name, digest, rows and counts by origin of the images of a run, by what the run did with them."""
    found: Logged = {}
    for used in tracking.client().get_run(run_id).inputs.dataset_inputs:
        tags = {tag.key: tag.value for tag in used.tags}
        context = tags.pop("mlflow.data.context")
        counts = {key.removeprefix("cxr.images."): int(value) for key, value in tags.items()}
        assert context not in found
        rows = json.loads(used.dataset.profile)["num_rows"]
        found[context] = (used.dataset.name, used.dataset.digest, rows, counts)
    return found


@pytest.fixture(scope="module")
def tracking_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def begin(untracked: object, tracking_store: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Begins runs in an experiment of the test's own; the small artifacts that they are given are not tracked."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_store)
    experiment = ""

    def begin_run(overrides: dict[str, Any] | None = None) -> Any:
        nonlocal experiment
        run = handles.begin(overrides)
        monkeypatch.delenv("CXR_MLFLOW", raising=False)
        experiment = experiment or tracking.experiment_id(f"experiment-{uuid.uuid4().hex}")
        dag_run = uuid.uuid4().hex
        parent = tracking.find_or_create(experiment, dag_run, {tracking.TAG_DAG_RUN: dag_run}, {})
        return run.model_copy(update={"dag_run": dag_run, "experiment_id": experiment, "mlflow_run_id": parent})

    return begin_run


@pytest.fixture(autouse=True)
def no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models are logged by another test; here they only take time."""
    monkeypatch.setattr("cxr_tasks.tracking.log_model", lambda *arguments: "")


def without(dataset: Dataset, prefix: str, number: int) -> Dataset:
    """``dataset`` without the first images whose ids begin with ``prefix``."""
    rows = dataset.manifest()
    left = rows.drop(rows.index[rows["image_id"].str.startswith(prefix)][:number])
    less = handles.keep(
        Split(version="less", counts=dataset.counts, warnings=()),
        lambda folder: left.to_parquet(folder / MANIFEST, index=False),
    )
    return dataset.model_copy(update={"ref": less.ref, "version": less.version})


def arm_of(arm: str, seed: int = 0, classifier: str = "cnn") -> Training:
    return Training(classifier=classifier, arm=arm, seed=seed)


@pytest.mark.slow
class TestRuns:
    def test_arms_show_the_same_training_images_if_and_only_if_they_train_on_the_same(self, begin, untrained):
        dataset, made = handles.dataset(sizes=(32, 48)), handles.synthetic_set()
        run = begin(LARGER)

        shown = {}
        for arm in ARMS:
            shown[arm] = logged(steps.train_arm(run, dataset, arm_of(arm), made).mlflow_run_id)

        training = {arm: images["training"] for arm, images in shown.items()}
        assert training["none"] == training["classical"] and training["synthetic"] == training["both"]
        assert training["oversample"] == training["oversample_classical"]
        names, digests = ({images[k] for images in training.values()} for k in (0, 1))
        assert len(names) == len(digests) == 4
        assert {arm: images[2:] for arm, images in training.items()} == {
            "none": (18, {"real": 18}),
            "classical": (18, {"real": 18}),
            "synthetic": (27, {"real": 18, "synthetic": 9}),
            "both": (27, {"real": 18, "synthetic": 9}),
            "oversample": (27, {"real": 18, "oversample": 9}),
            "oversample_classical": (27, {"real": 18, "oversample": 9}),
            "real_resized": (27, {"real": 18, "real_resized": 9}),
        }
        # All are tested on the same images.
        for split, number in (("validation", 18), ("test", 24)):
            (images,) = {json.dumps(shown[arm][split]) for arm in ARMS}
            assert json.loads(images)[0] == f"{split} images" and json.loads(images)[2] == number

    def test_another_synthetic_set_is_another_training_set(self, begin, untrained):
        dataset, one, other = handles.dataset(), handles.synthetic_set(), handles.synthetic_set(notes=("made anew",))
        run = begin()

        digests = [
            logged(steps.train_arm(run, dataset, arm_of("synthetic", seed), made).mlflow_run_id)["training"][1]
            for seed, made in enumerate([one, other, one])
        ]

        assert digests[0] == digests[2] != digests[1]

    def test_images_that_undersampling_leaves_out_are_not_shown(self, begin, untrained):
        unequal = without(handles.dataset(), "0-train-COVID-", 3)
        run = begin({"classifiers": {"undersample": True}})

        one, other = (
            logged(steps.train_arm(run, unequal, arm_of("none", seed)).mlflow_run_id)["training"] for seed in (0, 1)
        )

        assert one[0] == other[0] == f"{REAL}, undersampled"
        assert one[2:] == other[2:] == (9, {"real": 9}) and one[1] != other[1]

    def test_a_run_that_takes_an_arm_whose_run_is_gone_shows_its_images(self, begin, untrained):
        dataset, made = handles.dataset(), handles.synthetic_set()

        first = steps.train_arm(begin(), dataset, arm_of("synthetic"), made)
        shown = logged(first.mlflow_run_id)
        tracking.client().delete_run(first.mlflow_run_id)

        second = steps.train_arm(begin(), dataset, arm_of("synthetic"), made)

        assert second.model.reused and second.mlflow_run_id != first.mlflow_run_id
        assert logged(second.mlflow_run_id) == shown != {}

    def test_a_run_may_take_what_an_untracked_run_made(self, begin, untrained, monkeypatch):
        dataset = handles.dataset()
        steps.train_arm(handles.begin(), dataset, arm_of("none"))

        taken = steps.train_arm(begin(), dataset, arm_of("none"))

        assert taken.model.reused and logged(taken.mlflow_run_id) == {}

    def test_the_gan_and_the_baseline_show_the_same_training_images(self, begin, untrained, networks, monkeypatch):
        monkeypatch.setattr("cxr_tasks.gan.training.fit_gan", Fit(networks, 1))
        dataset = handles.dataset()
        run = begin()

        gan = steps.train_gan(run, dataset)
        arm = steps.train_arm(run, dataset, arm_of("none"))

        assert logged(gan.mlflow_run_id)["gan training"] == logged(arm.mlflow_run_id)["training"]

    def test_features_and_the_leak_show_what_they_saw(self, begin, untrained, small_vgg16):
        dataset, made = handles.dataset(), handles.synthetic_set({"COVID": 20, "Normal": 0, "Viral Pneumonia": 20})
        # Each in a DAG run of its own: such steps show their images there.
        real = logged(steps.extract_features(begin(SPLIT), dataset, "vgg16").mlflow_run_id)
        synthetic = logged(steps.extract_features(begin(SPLIT), dataset, "vgg16", made).mlflow_run_id)
        leak = logged(steps.reproduce_leak(begin(SPLIT), dataset, arm_of("leaking"), made).mlflow_run_id)

        assert real["features"][2:] == (60, {"real": 60})
        assert synthetic["features"][2:] == (40, {"synthetic": 40})
        assert {split: rows for split, (_, _, rows, _) in leak.items()} == {"train": 40, "validation": 30, "test": 30}
        assert all("LEAKING" in name and counts["synthetic"] for name, _, _, counts in leak.values())


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_a_digest_tells_how_often_each_image_is_there_and_not_in_which_order(ids: list[str], random: Any) -> None:
    def digest_of(images: list[str]) -> str:
        seen = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tracking, "log_dataset", lambda table, name, version, *more: seen.append(version))
            common.log_images(pd.DataFrame({"image_id": images, "label": "COVID"}), "images", "training")
        return seen[0]

    again = ids.copy()
    random.shuffle(again)

    assert digest_of(again) == digest_of(ids)
    assert digest_of([*ids, ids[0]]) != digest_of(ids) != digest_of([*ids[1:], "e"])
