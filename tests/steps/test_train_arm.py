"""What each arm trains on, and that frozen backbones run each image once; nothing is trained."""

from typing import Any

import numpy as np
import pytest

from cxr_tasks import progress, steps
from cxr_tasks.arms import ARMS, needs_synthetic
from cxr_tasks.artifacts import TrainedModel, Training
from cxr_tasks.classifiers.features import FrozenTrunk
from cxr_tasks.errors import SettingsError
from cxr_tasks.serving.model_facts import ModelFacts
from tests.steps import handles

# Larger than the GAN's images, as the arm real_resized needs.
LARGER: dict[str, Any] = {
    "classifiers": {"image_size": 48},
    "synthetic": {"counts": {"COVID": 5, "Viral Pneumonia": 4}},
}
SIZES = (32, 48)
# So that some images of each class are in every split that is dealt at random.
SPLIT = {"data": {"split": {"validation": 0.3, "test": 0.3}}}

pytestmark = pytest.mark.usefixtures("untracked")


def training(arm: str = "none", classifier: str = "cnn", seed: int = 0) -> Training:
    return Training(classifier=classifier, arm=arm, seed=seed)


@pytest.fixture
def counted(monkeypatch):
    """How many images were run through frozen backbones."""
    seen, run = [], FrozenTrunk.__call__

    def counting(self, pixels):
        if self.name:
            seen.append(len(pixels))
        return run(self, pixels)

    monkeypatch.setattr(FrozenTrunk, "__call__", counting)
    return seen


class TestArms:
    @pytest.mark.parametrize("arm", ARMS)
    def test_an_arm_trains_on_the_real_images_and_what_it_adds(self, untrained, arm):
        run, dataset = handles.begin(LARGER), handles.dataset(sizes=SIZES)
        synthetic = handles.synthetic_set() if needs_synthetic(arm) else None

        trained = steps.train_arm(run, dataset, training(arm), synthetic)

        (call,) = untrained.calls
        added = 9 if ARMS[arm].extra else 0
        assert (len(call["train"]), call["added"], trained.model.train_images) == (18 + added, added, 18 + added)
        assert np.bincount(call["train"].labels[18:], minlength=3).tolist() == ([5, 0, 4] if added else [0, 0, 0])
        real = dataset.images("train", 48, handles.CLASSES)
        np.testing.assert_array_equal(call["train"].pixels[:18], real.pixels)
        # Classical augmentation moves what the network sees of the training images, and of no others.
        same = (call["training"][..., 0] == call["train"].pixels).all(axis=(1, 2))
        assert same.all() != ARMS[arm].classical and same.any() != ARMS[arm].classical
        for split in ("validation", "test"):
            np.testing.assert_array_equal(call[split][..., 0], dataset.images(split, 48, handles.CLASSES).pixels)

    def test_what_is_added_is_what_the_arm_says(self, untrained):
        run, dataset, made = handles.begin(LARGER), handles.dataset(sizes=SIZES), handles.synthetic_set()
        for arm in ("synthetic", "oversample", "real_resized"):
            steps.train_arm(run, dataset, training(arm), made)

        synthetic, again, resized = (call["train"].pixels[18:] for call in untrained.calls)

        real = dataset.images("train", 48, handles.CLASSES)
        np.testing.assert_array_equal(synthetic, made.images(handles.CLASSES).resized(48, "bilinear").pixels)
        assert all((image == real.pixels).all(axis=(1, 2)).any() for image in again)
        assert untrained.calls[1]["train"].ids[18:].tolist() == untrained.calls[2]["train"].ids[18:].tolist()
        assert not (resized == again).all(axis=(1, 2)).any()
        provenance = [call["train"].rows["provenance"].iloc[18:].unique().tolist() for call in untrained.calls]
        assert provenance == [["synthetic"], ["real"], ["real"]]

    @pytest.mark.parametrize("control", ["oversample", "oversample_classical", "real_resized"])
    def test_a_control_adds_as_many_images_of_each_class_as_the_set_has(self, untrained, control):
        """Not as many as were asked for: images that the filter dropped are missing from both."""
        asked = {"synthetic": {"counts": {"COVID": 8, "Viral Pneumonia": 7}}}
        run, dataset = handles.begin(LARGER | asked), handles.dataset(sizes=SIZES)
        made = handles.synthetic_set({"COVID": 5, "Normal": 1, "Viral Pneumonia": 0})

        steps.train_arm(run, dataset, training("synthetic"), made)
        with_set = steps.train_arm(run, dataset, training(control), made)
        without = steps.train_arm(run, dataset, training(control))

        added = [call["train"].rows["label"].iloc[18:].value_counts().to_dict() for call in untrained.calls]
        assert added == [{"COVID": 5, "Normal": 1}] * 2 + [{"COVID": 8, "Viral Pneumonia": 7}]
        assert with_set.model.ref != without.model.ref
        provenance = [set(call["train"].rows["provenance"].iloc[18:]) for call in untrained.calls]
        assert provenance == [{"synthetic"}, {"real"}, {"real"}]

    def test_a_control_is_of_a_count_and_not_of_the_images(self, untrained):
        run, dataset, made = handles.begin(), handles.dataset(), handles.synthetic_set()
        again = made.model_copy(update={"ref": "synthesize/other", "made_by": "another run"})

        one, other = (steps.train_arm(run, dataset, training("oversample"), each) for each in (made, again))

        assert one.model.ref == other.model.ref and len(untrained.calls) == 1

    def test_all_seeds_are_shown_the_same_real_images_again(self, untrained):
        run, dataset = handles.begin(LARGER), handles.dataset(sizes=SIZES)
        for seed in (0, 1):
            steps.train_arm(run, dataset, training("oversample", seed=seed))

        one, other = (call["train"].ids[18:].tolist() for call in untrained.calls)
        assert one == other and [call["seed"] for call in untrained.calls] == [0, 1]

    def test_a_synthetic_arm_without_a_synthetic_set_is_refused(self):
        with pytest.raises(SettingsError, match="trains on synthetic images"):
            steps.train_arm(handles.begin(), handles.dataset(), training("both"))

    def test_an_arm_without_synthetic_images_does_not_depend_on_those_of_the_run(self, untrained):
        run, dataset = handles.begin(), handles.dataset()

        with_set, without = (
            steps.train_arm(run, dataset, training(), synthetic) for synthetic in (handles.synthetic_set(), None)
        )

        assert with_set.model.ref == without.model.ref and len(untrained.calls) == 1

    def test_a_budget_of_steps_is_that_of_the_real_images(self, untrained):
        run = handles.begin({"classifiers": {"budget": "steps", "batch_size": 4}})

        steps.train_arm(run, handles.dataset(), training("synthetic"), handles.synthetic_set())
        steps.train_arm(handles.begin(), handles.dataset(), training())

        assert [call["steps"] for call in untrained.calls] == [5, None]


class TestTrainedModel:
    def test_it_keeps_its_network_its_tables_and_its_figures(self, untrained):
        heard = []

        with progress.listening(lambda *told: heard.append(told)):
            trained = steps.train_arm(handles.begin(), handles.dataset(), training())

        model = trained.model
        assert (model.training, model.epochs, model.steps, trained.model_uri) == (training(), 2, 4, "")
        assert heard == [("training cnn none", 1, 2)]
        assert model.predictions()["split"].value_counts().to_dict() == {"test": 24, "validation": 18}
        assert model.load().output_shape == (None, 3)
        assert trained.findings().test["macro_f1"] == trained.test_macro_f1

    @pytest.mark.parametrize("asked", [True, False])
    def test_blanked_test_images_are_predicted_where_shortcuts_are_looked_for(self, untrained, asked):
        run = handles.begin({"evaluation": {"shortcuts": asked}})

        trained = steps.train_arm(run, handles.dataset(), training())

        assert sorted(trained.model.blanked()) == (["background", "lungs"] if asked else [])
        assert (trained.findings().shortcuts is not None) == asked

    def test_it_is_taken_by_the_next_run_and_made_anew_after_features_that_were(self, untrained):
        dataset = handles.dataset()

        def train(**options):
            return steps.train_arm(handles.begin(), dataset, training(classifier="cnn"), **options)

        assert not train().reused and train().reused
        other, own = handles.features("vgg16", forced=True), handles.features("cnn", forced=True)
        assert train(features=[[other], None]).reused and len(untrained.calls) == 1
        anew = train(features=[[own]])
        assert anew.model.forced and not anew.model.reused and anew.forced and len(untrained.calls) == 2

    def test_what_is_taken_speaks_of_this_run(self, untrained):
        dataset = handles.dataset()

        first, second = (steps.train_arm(handles.begin(), dataset, training()) for _ in range(2))

        assert second.model.reused and second.model.mlflow_run_id == second.mlflow_run_id != first.mlflow_run_id

    def test_it_keeps_what_predictions_of_files_need(self, untrained):
        overrides = {"data": {"inverted": "correct", "resize": "area"}, "evaluation": {"min_sensitivity": 0.8}}
        dataset = handles.dataset()

        trained = steps.train_arm(handles.begin(overrides), dataset, training())

        facts = ModelFacts.model_validate_json((trained.folder() / ModelFacts.FILE).read_text())
        assert (facts.classes, facts.image_size) == (tuple(handles.CLASSES), handles.SIZE)
        assert (facts.reading.inverted, facts.reading.resize) == ("correct", "area")
        table = trained.model.predictions()
        of_class = table[(table["split"] == "validation") & (table["label"] == "COVID")]["COVID"]
        assert (of_class >= facts.thresholds["COVID"]).mean() >= 0.8 > (of_class > facts.thresholds["COVID"]).mean()
        assert facts.usual is not None and facts.usual.images == 18
        assert (trained.folder() / ModelFacts.TYPICAL).is_file()

    @pytest.mark.parametrize("changed", [{"serving": {"false_alarms": 0.2}}, {"evaluation": {"min_sensitivity": 0.5}}])
    def test_another_limit_of_warnings_or_operating_point_trains_nothing_anew(self, untrained, changed):
        dataset = handles.dataset()

        first, second = (steps.train_arm(handles.begin(over), dataset, training()) for over in ({}, changed))

        assert second.model.reused and not second.reused and len(untrained.calls) == 1
        before, after = (
            ModelFacts.model_validate_json((arm.folder() / ModelFacts.FILE).read_text()) for arm in (first, second)
        )
        assert before != after and before.reading == after.reading

    def test_it_is_found_by_file_name_in_the_store(self, untrained):
        folder = steps.train_arm(handles.begin(), handles.dataset(), training()).model.folder()

        names = {TrainedModel.MODEL, TrainedModel.PREDICTIONS, TrainedModel.HISTORY, TrainedModel.BLANKED}
        assert {path.name for path in folder.iterdir()} - {"artifact.json"} == names


@pytest.mark.usefixtures("small_vgg16")
class TestFeatures:
    def test_a_backbone_is_run_once_for_all_arms_and_seeds(self, untrained, counted):
        run, dataset, made = handles.begin(), handles.dataset(), handles.synthetic_set()

        real = steps.extract_features(run, dataset, "vgg16")
        synthetic = steps.extract_features(run, dataset, "vgg16", made)

        # All images of the shards, the test images twice with a part blanked, and the synthetic set.
        assert (real.computed, real.found, synthetic.computed, synthetic.found) == (60 + 48, 0, 9, 0)
        assert real.notes == ("VGG16: 108 images run, 0 known from before",)
        counted.clear()
        for arm in ("none", "synthetic", "oversample"):
            for seed in (0, 1):
                steps.train_arm(run, dataset, training(arm, "vgg16", seed), made, [[real, synthetic]])
        assert len(untrained.calls) == 6 and counted == []

    def test_views_of_a_pool_are_run_by_seed(self, untrained, counted):
        run, dataset = handles.begin(), handles.dataset()
        steps.extract_features(run, dataset, "vgg16")
        counted.clear()

        for seed in (0, 1):
            steps.train_arm(run, dataset, training("classical", "vgg16", seed))

        assert counted == [18, 18]

    def test_what_the_store_has_is_found_by_a_run_with_other_arms(self, counted):
        dataset = handles.dataset(sizes=SIZES)
        first = steps.extract_features(handles.begin(LARGER), dataset, "vgg16")

        resized = handles.begin(LARGER | {"arms": {"compared": ["real_resized"]}})
        second = steps.extract_features(resized, dataset, "vgg16")

        assert (first.computed, second.computed, second.found) == (108, 9, 108)
        assert steps.extract_features(resized, dataset, "vgg16").reused

    def test_a_control_at_the_gans_resolution_is_run_when_the_size_of_the_set_is_known(self, untrained, counted):
        arms = {"arms": {"compared": ["synthetic", "real_resized"]}}
        run, dataset, made = handles.begin(LARGER | arms), handles.dataset(sizes=SIZES), handles.synthetic_set()

        real, synthetic = (steps.extract_features(run, dataset, "vgg16", each) for each in (None, made))
        counted.clear()
        steps.train_arm(run, dataset, training("real_resized", "vgg16"), made, [[real, synthetic]])

        assert (real.computed, synthetic.computed) == (108, 9 + 9) and counted == []

    def test_forced_features_are_made_anew(self, counted):
        dataset = handles.dataset()
        steps.extract_features(handles.begin(), dataset, "vgg16")

        anew = steps.extract_features(handles.begin(force=["extract_features"]), dataset, "vgg16")

        assert (anew.forced, anew.computed, anew.found) == (True, 108, 0)

    def test_features_are_those_that_the_network_would_see(self, untrained):
        run, dataset = handles.begin(), handles.dataset()

        steps.train_arm(run, dataset, training(classifier="vgg16"))

        (call,) = untrained.calls
        trunk = call["network"].trunk
        expected = trunk.predict(dataset.images("test", 32, handles.CLASSES).pixels[..., None], verbose=0)
        np.testing.assert_allclose(call["test"], expected, rtol=2e-3, atol=1e-3)


class TestLeak:
    @pytest.mark.parametrize("classifier", ["cnn", "vgg16"])
    def test_synthetic_images_are_dealt_to_every_split_and_counted_in_the_test(
        self, untrained, small_vgg16, classifier
    ):
        run, made = handles.begin(SPLIT), handles.synthetic_set({"COVID": 20, "Normal": 0, "Viral Pneumonia": 20})

        leaked = steps.reproduce_leak(run, handles.dataset(), training("leaking", classifier), made)

        (call,) = untrained.calls
        assert leaked.test_images == round(0.3 * 100) == len(call["test"])
        assert 0 < leaked.synthetic_test_images < leaked.test_images
        assert len(call["train"]) == len(call["training"]) == 40
        assert set(call["train"].rows["provenance"]) == {"real", "synthetic"}
        assert 0 < leaked.leaked_test_accuracy <= 1 and leaked.training.arm == "leaking"

    def test_the_network_sees_the_images_that_it_is_told_of(self, untrained):
        made = handles.synthetic_set()

        steps.reproduce_leak(handles.begin(SPLIT), handles.dataset(), training("leaking"), made)

        (call,) = untrained.calls
        np.testing.assert_array_equal(call["training"][..., 0], call["train"].pixels)

    def test_another_seed_deals_otherwise(self, untrained):
        run, dataset, made = handles.begin(SPLIT), handles.dataset(), handles.synthetic_set()

        for seed in (0, 1):
            steps.reproduce_leak(run, dataset, training("leaking", seed=seed), made)

        one, other = (set(call["train"].ids) for call in untrained.calls)
        assert one != other
