"""A run without Airflow: what it calls in which order, and what a failure costs. The steps themselves are stand-ins."""

import pytest

from cxr_tasks import local
from cxr_tasks.artifacts import (
    Comparison,
    ExternalResults,
    ExternalSet,
    Features,
    Gallery,
    Gan,
    ImportedImages,
    Judgement,
    Manifest,
    Report,
    Scan,
    Shard,
    Split,
    SyntheticSet,
    TrainedArm,
    TrainedModel,
    Training,
    Validation,
)
from cxr_tasks.config import merge
from cxr_tasks.errors import DataError, UserError
from cxr_tasks.local import LocalRun, Watcher, absolute_source

OVER = {"classifiers": {"names": ["cnn", "vgg16"]}}
CNN = Training(classifier="cnn", arm="none", seed=0)
COUNTS = {"train": {"COVID": 8, "Normal": 8, "Viral Pneumonia": 8}}


def trained_arm(training):
    model = TrainedModel(
        ref=f"train_arm/{training.label}",
        training=training,
        epochs=1,
        steps=1,
        train_images=8,
        weights_digest="",
    )
    return TrainedArm(model=model, validation_macro_f1=0.5, test_macro_f1=0.5, test_accuracy=0.5)


class Steps:
    """Stand-ins for the steps that work. ``calls``: their names and what tells the calls apart."""

    def __init__(self, monkeypatch):
        self.calls, self.broken, self.passed, self.told = [], set(), True, {}
        for name in (
            "scan",
            "ingest",
            "manifest",
            "validate",
            "split",
            "train_gan",
            "import_synthetic",
            "judge",
            "synthesize",
            "extract_features",
            "train_arm",
            "compare",
            "explain",
            "read_external",
            "evaluate_external",
            "write_report",
        ):
            monkeypatch.setattr(local.steps, name, self._noting(name))

    def _noting(self, name):
        def call(run, *given):
            label, handle = getattr(self, name)(*given)
            self.calls.append(f"{name} {label}".strip())
            if self.calls[-1] in self.broken:
                raise DataError(f"{self.calls[-1]} is broken")
            return handle

        return call

    def scan(self, source):
        return "", Scan(source=source, shards=2, files={}, warnings=())

    def ingest(self, scanned, shard):
        return str(shard), Shard(ref=f"ingest/{shard}", images=1, rejected=0, masks=0, unusable_masks=0)

    def manifest(self, scanned, shards):
        refs = tuple(shard.ref for shard in shards)
        return "", Manifest(images={}, rejected=0, near_duplicates=0, masks=0, shards=refs)

    def validate(self, joined):
        return "", Validation(expectations=1, warnings=("odd",), data_docs="")

    def split(self, joined, validated):
        return "", Split(ref="split/1", version="1", counts=COUNTS, warnings=())

    def train_gan(self, dataset):
        return "", Gan(ref="train_gan/1", finished=True, steps=1, epochs=1, images=1, resumed_from=0, hours=0.0)

    def import_synthetic(self, dataset):
        return "", ImportedImages(source="/images", images={}, rejected=0)

    def judge(self, dataset, gan, imported):
        assert (gan is None) != (imported is None)
        return "", Judgement(passed=self.passed, kind="judged", sentence="The images are noise.")

    def synthesize(self, dataset, gan, imported, judgement):
        assert judgement and (gan is None) != (imported is None)
        return "", SyntheticSet(counts={}, dropped={})

    def extract_features(self, dataset, backbone, synthetic):
        handle = Features(ref=f"{backbone}{synthetic is not None}", backbone=backbone, computed=1, found=0)
        return f"{backbone} {'synthetic' if synthetic else 'real'}", handle

    def train_arm(self, dataset, training, synthetic, features):
        # A control hears how many images are in the set, where the run has one.
        assert training.arm == "oversample" or (synthetic is not None) == (training.arm == "synthetic")
        self.told[training.label] = synthetic
        assert [each.ref for group in features for each in group] == (
            [] if training.classifier == "cnn" else ["vgg16False", "vgg16True"][: 1 + (training.arm == "synthetic")]
        )
        return training.label, trained_arm(training)

    def compare(self, dataset, pair, groups):
        found = {arm.training: arm for group in groups for arm in group}
        baseline, augmented = (found.get(training) for training in pair.trainings)
        handle = Comparison(
            ref=f"compare/{pair.label}",
            pair=pair,
            name=pair.label,
            baseline=baseline,
            augmented=augmented,
            verdict="",
        )
        return pair.label, handle

    def explain(self, dataset, comparison):
        return comparison.name, Gallery(comparison=comparison.ref, shown=0)

    def read_external(self, dataset, name):
        tested = ExternalSet(name=name, source="/b", images={}, leaks={}, checked=True, shards=(), rejected=0)
        return name, tested

    def evaluate_external(self, dataset, external, trained):
        return external.name, ExternalResults(external=external, tests=())

    def write_report(self, *given):
        self.reported = given
        return "", Report(answer="", warnings=(), claims=(), pairs=(), champions=(), address="")


@pytest.fixture
def steps(monkeypatch, store):
    monkeypatch.setenv("CXR_MLFLOW", "off")
    return Steps(monkeypatch)


@pytest.fixture
def begin(steps, tmp_path):
    return lambda **form: LocalRun(str(tmp_path), {"profile": "quick", "settings": OVER, **form})


def test_a_dataset_is_what_the_dag_makes_but_is_not_published(steps, begin, store):
    dataset = begin().dataset

    assert steps.calls == ["scan", "ingest 0", "ingest 1", "manifest", "validate", "split"]
    assert (dataset.ref, dataset.shards, dataset.warnings) == ("split/1", ("ingest/0", "ingest/1"), ("odd",))
    assert not (store.root / "pointers").exists()


def test_an_arm_makes_only_what_it_needs_and_each_part_once(steps, begin):
    run = begin()
    run.arm(CNN)
    assert steps.calls[6:] == ["train_arm cnn none seed 0"]

    run.arm(CNN)
    run.arm(Training(classifier="vgg16", arm="synthetic", seed=0))
    assert steps.calls[7:] == [
        "train_gan",
        "judge",
        "synthesize",
        "extract_features vgg16 real",
        "extract_features vgg16 synthetic",
        "train_arm vgg16 synthetic seed 0",
    ]


def test_imported_images_take_the_place_of_the_gan(steps, begin, tmp_path):
    run = begin(settings=merge(OVER, {"synthetic": {"source": str(tmp_path)}}))

    run.report()

    assert "train_gan" not in steps.calls and run.imported is steps.reported[-1]
    made = steps.calls.index("import_synthetic")
    assert steps.calls[made : made + 3] == ["import_synthetic", "judge", "synthesize"]


def test_external_sets_are_read_first_and_one_that_cannot_be_read_costs_itself(steps, begin):
    sets = [{"name": "b", "source": "/b"}, {"name": "c", "source": "/c"}]
    steps.broken = {"read_external c"}

    begin(settings=merge(OVER, {"data": {"external": sets}})).report()

    assert steps.calls[6:8] == ["read_external b", "read_external c"]
    assert [call for call in steps.calls if call.startswith("evaluate_external")] == ["evaluate_external b"]
    assert steps.calls[-2:] == ["evaluate_external b", "write_report"]
    assert [each.external.name for each in steps.reported[9]] == ["b"]


def test_an_arm_whose_gan_is_not_good_enough_says_so(steps, begin):
    steps.passed = False

    with pytest.raises(UserError, match=r"'synthetic' trains with synthetic images.*The images are noise.*override"):
        begin().arm(Training(classifier="cnn", arm="synthetic", seed=0))


def test_a_comparison_trains_both_arms(steps, begin):
    comparison = begin().comparison(Training(classifier="cnn", arm="oversample", seed=3))

    assert comparison.is_complete
    assert steps.calls[6:] == [
        "train_arm cnn none seed 3",
        "train_arm cnn oversample seed 3",
        "compare cnn oversample against none seed 3",
    ]
    # By hand no GAN is trained only to be counted.
    assert steps.told["cnn oversample seed 3"] is None


def test_a_baseline_is_compared_with_nothing(steps, begin):
    with pytest.raises(UserError, match="'none' is the baseline that others are compared with"):
        begin().comparison(CNN)
    assert steps.calls == []


def test_a_report_trains_and_compares_all_that_the_settings_name(steps, begin):
    run = begin()
    run.report()

    trained = [call for call in steps.calls if call.startswith("train_arm")]
    assert trained == [
        "train_arm cnn none seed 0",
        "train_arm vgg16 none seed 0",
        "train_arm cnn synthetic seed 0",
        "train_arm vgg16 synthetic seed 0",
        "train_arm cnn oversample seed 0",
        "train_arm vgg16 oversample seed 0",
    ]
    pairs = [
        f"{name} {arm} against {against} seed 0"
        for arm, against in (("synthetic", "none"), ("oversample", "none"), ("synthetic", "oversample"))
        for name in ("cnn", "vgg16")
    ]
    assert steps.calls[-13:] == [f"{step} {pair}" for step in ("compare", "explain") for pair in pairs] + [
        "write_report"
    ]
    _, gan, judgement, synthetic, comparisons, galleries, leaks, features, ruled, *_ = steps.reported
    assert gan and judgement and synthetic and len(comparisons) == len(galleries) == 6
    assert steps.told["cnn oversample seed 0"] == synthetic
    assert (leaks, ruled, run.failures) == ([], [None, None], {}) and len(features[0]) == 2


def test_one_failure_costs_one_branch(steps, begin):
    steps.broken = {"train_arm cnn synthetic seed 0", "explain vgg16 synthetic against none seed 0"}
    run = begin()
    run.report()

    assert list(run.failures) == ["train_arm cnn synthetic seed 0", "explain vgg16 synthetic against none seed 0"]
    comparisons, galleries = steps.reported[4:6]
    complete = [comparison.is_complete for comparison in comparisons]
    assert complete == [False, True, True, True, False, True] and len(galleries) == 5
    told = [(failure.step, failure.label, failure.sentence) for failure in steps.reported[-2]]
    assert told == [
        ("train_arm", "cnn synthetic seed 0", "train_arm cnn synthetic seed 0 is broken."),
        ("explain", "vgg16 synthetic against none seed 0", "explain vgg16 synthetic against none seed 0 is broken."),
    ]


def test_features_that_fail_cost_the_arms_of_their_backbone_and_are_tried_once(steps, begin):
    steps.broken = {"extract_features vgg16 real"}
    run = begin()
    run.report()

    assert steps.calls.count("extract_features vgg16 real") == 1
    trained = [arm.training.label for arm in steps.reported[-3][0]]
    assert trained == ["cnn none seed 0", "cnn synthetic seed 0", "cnn oversample seed 0"]
    assert [failure.label for failure in steps.reported[-2]] == ["vgg16"]


def test_a_gan_that_fails_costs_its_arms_and_is_tried_once(steps, begin):
    steps.broken = {"train_gan"}
    run = begin()
    run.report()

    assert steps.calls.count("train_gan") == 1 and list(run.failures) == ["train_gan"]
    assert not [call for call in steps.calls if call.startswith("train_arm") and "synthetic" in call]
    _, gan, judgement, synthetic, comparisons, *_ = steps.reported
    assert (gan, judgement, synthetic) == (None, None, None) and len(comparisons) == 6
    assert steps.told["cnn oversample seed 0"] is None


def test_a_gan_that_is_not_good_enough_is_no_failure(steps, begin):
    steps.passed = False
    run = begin()
    run.report()

    _, gan, judgement, synthetic, comparisons, *_ = steps.reported
    assert gan and judgement and synthetic is None and run.failures == {}
    # The control needs no synthetic image: what more real images do is told all the same.
    assert [comparison.pair.arm for comparison in comparisons if comparison.is_complete] == ["oversample"] * 2


def test_data_that_fail_end_the_run(steps, begin):
    steps.broken = {"validate"}

    with pytest.raises(DataError, match="validate is broken"):
        begin().report()


def test_the_watcher_hears_of_every_step(steps, tmp_path):
    heard = []

    class Noting(Watcher):
        def began(self, work):
            heard.append(f"{work} …")

        def ended(self, work, handle):
            heard.append(f"{work} {type(handle).__name__}")

        def failed(self, work, error):
            heard.append(f"{work} failed: {error}")

    steps.broken = {"manifest"}
    run = LocalRun(str(tmp_path), {"profile": "quick"}, Noting())
    with pytest.raises(DataError):
        run.arm(CNN)

    assert heard[:4] == ["scan …", "scan Scan", "ingest shard 1 of 2 …", "ingest shard 1 of 2 Shard"]
    assert heard[-1] == "manifest failed: manifest is broken"


def test_a_source_has_one_address_from_every_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert absolute_source(".") == str(tmp_path)
    assert absolute_source("s3://bucket/prefix") == "s3://bucket/prefix"
    with pytest.raises(DataError, match="does not exist"):
        absolute_source("nowhere")
