"""The steps that work from saved predictions: ``evaluate_arm``, ``compare`` and ``explain``."""

import pytest

from cxr_tasks import steps
from cxr_tasks.artifacts import Comparison, Gallery, Pair, Training
from cxr_tasks.config import resolve
from cxr_tasks.evaluation.metrics import classification_metrics
from cxr_tasks.steps.compare import pair_name
from cxr_tasks.steps.train_arm import evaluate_arm
from tests.steps import handles

PAIR = Training(classifier="cnn", arm="synthetic", seed=0)
PNG = b"\x89PNG"

pytestmark = pytest.mark.usefixtures("untracked")


@pytest.fixture
def run():
    return handles.begin()


@pytest.fixture
def dataset():
    return handles.dataset()


@pytest.fixture
def arms(run, dataset):
    """Both arms of a pair, without their networks."""
    return [handles.trained_arm(run, dataset, "cnn", arm) for arm in ("none", "synthetic")]


class TestEvaluateArm:
    def test_figures_are_those_of_the_saved_predictions(self, run, dataset):
        model = handles.trained_model(dataset)

        arm = evaluate_arm(run, dataset, model)

        table = model.predictions()
        by_split = {
            split: classification_metrics(table[table["split"] == split], handles.CLASSES)
            for split in ("validation", "test")
        }
        assert arm.validation_macro_f1 == by_split["validation"]["macro_f1"]
        assert (arm.test_macro_f1, arm.test_accuracy) == (by_split["test"]["macro_f1"], by_split["test"]["accuracy"])
        found = arm.findings()
        assert (found.arm, found.validation, found.test) == ("none", by_split["validation"], by_split["test"])
        assert [point.class_name for point in found.thresholds] == handles.CLASSES
        assert found.subgroups is not None and found.subgroups.whole.accuracy.value == pytest.approx(arm.test_accuracy)
        (of_source,) = found.subgroups.attributes
        assert [row.subgroup for row in of_source.rows] == ["hospital 0", "hospital 1"]

    def test_it_belongs_to_the_run_of_the_training(self, run, dataset):
        model = handles.trained_model(dataset)

        arm = evaluate_arm(run, dataset, model)

        assert arm.mlflow_run_id == model.mlflow_run_id and arm.model == model and arm.training == model.training
        assert evaluate_arm(run, dataset, handles.trained_model(dataset)).reused

    @pytest.mark.parametrize("blanked", [True, False])
    def test_shortcuts_are_told_where_the_probes_were_asked_for(self, run, dataset, blanked):
        arm = evaluate_arm(run, dataset, handles.trained_model(dataset, blanked=blanked))

        assert (arm.findings().shortcuts is not None) == blanked

    @pytest.mark.parametrize(
        ("change", "reused"),
        [
            ({"evaluation": {"min_sensitivity": 0.8}}, False),
            ({"evaluation": {"bootstrap_samples": 300}}, False),
            ({"seeds": {"bootstrap": 1}}, False),
            ({"evaluation": {"subgroups": {"min_groups": 5}}}, False),
            ({"evaluation": {"gallery": 5, "reproduce_leak": True}}, True),
            ({"seeds": {"gan": 1}, "classifiers": {"epochs": 3}}, True),
        ],
    )
    def test_it_is_made_anew_where_something_is_measured_otherwise(self, run, dataset, change, reused):
        evaluate_arm(run, dataset, handles.trained_model(dataset))

        assert evaluate_arm(handles.begin(change), dataset, handles.trained_model(dataset)).reused == reused

    def test_a_model_that_was_trained_anew_is_evaluated_anew(self, run, dataset):
        model = handles.trained_model(dataset)
        evaluate_arm(run, dataset, model)

        anew = evaluate_arm(run, dataset, model.model_copy(update={"forced": True}))

        assert anew.forced and not anew.reused


class TestCompare:
    def test_a_complete_pair_is_compared_on_the_same_test_images(self, run, dataset, arms):
        compared = steps.compare(run, dataset, PAIR, [arms, None])

        result = compared.result()
        assert (compared.name, compared.verdict) == ("CNN synthetic", result.verdict)
        assert compared.pair == Pair(**PAIR.model_dump(), against="none")
        assert compared.notes == (result.sentence,)
        assert (result.baseline_arm, result.augmented_arm, result.images) == ("none", "synthetic", 24)
        assert result.macro_f1_difference == pytest.approx(arms[1].test_macro_f1 - arms[0].test_macro_f1)
        for name in (Comparison.CURVES, Comparison.CONFUSION, Comparison.RELIABILITY):
            assert (compared.file(name) or b"").startswith(PNG)

    def test_arms_come_in_any_order_and_others_are_left_alone(self, run, dataset, arms):
        others = [
            handles.trained_arm(run, dataset, "cnn", "both"),
            handles.trained_arm(run, dataset, "vgg16", "synthetic"),
            handles.trained_arm(run, dataset, "cnn", "synthetic", 1),
        ]

        one, other = (steps.compare(run, dataset, PAIR, given) for given in ([arms], [others, [*arms[::-1], None]]))

        assert one.ref == other.ref and one.arms == other.arms

    @pytest.mark.parametrize(("left", "verdict"), [([0], "not compared"), ([1], "not compared"), ([], "not trained")])
    def test_what_was_not_trained_leaves_the_other_arm_alone(self, run, dataset, arms, left, verdict):
        compared = steps.compare(run, dataset, PAIR, [[arms[i] for i in left], None])

        assert (compared.verdict, compared.is_complete, len(compared.arms)) == (verdict, False, len(left))
        assert (compared.file(Comparison.CURVES) is not None) == bool(left)
        assert compared.file(Comparison.RESULT) is None

    def test_a_pair_that_was_half_trained_is_compared_when_both_arms_are_there(self, run, dataset, arms):
        half = steps.compare(run, dataset, PAIR, [arms[:1]])

        whole = steps.compare(run, dataset, PAIR, [arms])

        assert whole.ref != half.ref and whole.is_complete

    def test_an_arm_is_compared_with_its_control_on_the_same_images(self, run, dataset, arms):
        control = handles.trained_arm(run, dataset, "cnn", "oversample")

        compared = steps.compare(run, dataset, Pair(**PAIR.model_dump(), against="oversample"), [[*arms, control]])

        result = compared.result()
        assert (compared.baseline, compared.augmented) == (control, arms[1])
        assert compared.name == "CNN synthetic beside oversample"
        assert (result.baseline_arm, result.augmented_arm) == ("oversample", "synthetic")
        assert result.macro_f1_difference == pytest.approx(arms[1].test_macro_f1 - control.test_macro_f1)
        assert result.macro_f1_low < result.macro_f1_difference < result.macro_f1_high

    def test_a_baseline_of_other_settings_is_another_pair(self, dataset):
        run = handles.begin({"arms": {"baseline": "classical", "compared": ["both"]}})
        arms = [handles.trained_arm(run, dataset, "cnn", arm) for arm in ("none", "classical", "both")]

        compared = steps.compare(run, dataset, Training(classifier="cnn", arm="both", seed=0), [arms])

        assert compared.baseline == arms[1] and compared.augmented == arms[2]

    @pytest.mark.parametrize(
        ("change", "name"),
        [
            ({"arms": {"compared": ["both"]}}, "VGG16"),
            ({"arms": {"compared": ["synthetic", "both"]}}, "VGG16 both"),
            ({"arms": {"compared": ["both"]}, "seeds": {"classifiers": [0, 1]}}, "VGG16, seed 1"),
            ({"arms": {"compared": ["synthetic", "both"]}, "seeds": {"classifiers": [0, 1]}}, "VGG16 both, seed 1"),
        ],
    )
    def test_a_pair_is_named_no_longer_than_it_must_be(self, change, name):

        assert pair_name(resolve("quick", change), Training(classifier="vgg16", arm="both", seed=1)) == name


class TestExplain:
    @pytest.fixture
    def pair(self, run, dataset):
        """A compared pair whose arms disagree on many images, with networks that were never trained."""
        options = {"with_model": True, "skill": 0.5}
        arms = [handles.trained_arm(run, dataset, "cnn", arm, **options) for arm in ("none", "synthetic")]
        return steps.compare(run, dataset, PAIR, [arms])

    def test_it_shows_as_many_images_as_are_asked_for(self, run, dataset, pair):
        gallery = steps.explain(run, dataset, pair)

        assert (gallery.comparison, gallery.shown) == (pair.ref, 3)
        assert (gallery.file(Gallery.PICTURE) or b"").startswith(PNG)

    def test_it_shows_an_arm_once_beside_its_baseline(self, run, dataset, pair):
        control = handles.trained_arm(run, dataset, "cnn", "oversample", with_model=True, skill=0.5)
        beside = Pair(**PAIR.model_dump(), against="oversample")
        of_control = Training(classifier="cnn", arm="oversample", seed=0)
        others = [steps.compare(run, dataset, held, [[*pair.arms.values(), control]]) for held in (beside, of_control)]

        galleries = [steps.explain(run, dataset, other) for other in others]

        assert all(other.is_complete for other in others) and [gallery.shown for gallery in galleries] == [0, 0]

    def test_it_shows_nothing_where_nothing_is_asked_for(self, dataset, pair):
        gallery = steps.explain(handles.begin({"evaluation": {"gallery": 0}}), dataset, pair)

        assert gallery.shown == 0 and gallery.file(Gallery.PICTURE) is None

    def test_it_shows_nothing_of_an_arm_that_stands_alone(self, run, dataset, arms):
        gallery = steps.explain(run, dataset, steps.compare(run, dataset, PAIR, [arms[:1]]))

        assert gallery.shown == 0 and gallery.file(Gallery.PICTURE) is None

    def test_it_shows_nothing_where_the_arms_agree(self, run, dataset):
        arms = [handles.trained_arm(run, dataset, "cnn", arm, skill=30) for arm in ("none", "synthetic")]
        pair = steps.compare(run, dataset, PAIR, [arms])

        gallery = steps.explain(run, dataset, pair)

        assert gallery.shown == 0 and pair.verdict == "no detectable difference"
