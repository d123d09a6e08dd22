"""What a failure costs, in a real Airflow. The steps are stand-ins that work at once, so that no network is trained.

All runs are made in one process, one after the other: most of a run's time is what Airflow takes to begin.
"""

import json

import pytest

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

# What breaks, by the name of the run: steps that raise, each by its name and its label.
RUNS = {
    "some": [
        ["train_arm", "cnn none seed 0"],
        ["explain", "vgg16 synthetic against none seed 0"],
        ["promote", ""],
    ],
    "no registry": [["challenge", ""]],
    "gan and features": [["train_gan", ""], ["extract_features", "vgg16"]],
    "configure": [["configure", ""]],
    "nothing": [],
    "refused": [],
    "imported": [],
    "no synthetic images": [],
    "external": [["read_external", "c"], ["evaluate_external", "d"]],
}

# Runs cxr_training with stand-ins, once for each of ``RUNS``.
RUN = """
import functools, json
from dataclasses import replace
from cxr_tasks import steps
from cxr_tasks.artifacts import *
from cxr_tasks.errors import DataError

def broken(step, label):
    if [step, label] in broken.now:
        raise DataError(f"{step} {label} is broken")

def stand_in(name, make):
    real = getattr(steps, name)
    @functools.wraps(real)
    def call(*args, **given):
        return make(*args, **given)
    setattr(steps, name, call)

def model(training):
    return TrainedModel(ref=f"train_arm/{training.label}", training=training, epochs=1, steps=1, train_images=8,
                        weights_digest="")

def train_arm(run, dataset, arm, synthetic=None, features=None):
    broken("train_arm", arm.label)
    return TrainedArm(ref=f"evaluate_arm/{arm.label}", model=model(arm), validation_macro_f1=0.5, test_macro_f1=0.5,
                      test_accuracy=0.5)

def compare(run, dataset, pair, trained):
    broken("compare", pair.label)
    found = {arm.training: arm for group in trained for arm in group or () if arm}
    return Comparison(ref=f"compare/{pair.label}", pair=pair, name=pair.label, verdict="",
                      baseline=found.get(pair.trainings[0]), augmented=found.get(pair.trainings[1]))

def explain(run, dataset, comparison):
    broken("explain", comparison.name)
    return Gallery(ref=f"explain/{comparison.name}", comparison=comparison.ref, shown=1)

def passing(name, **changes):
    return Decision(name=name, version="2", alias="challenger", arm="cnn", validation_macro_f1=0.5, decision="Better.",
                    passes=True, **changes)

def challenge(run, dataset, comparisons, trained=None, external=None):
    broken("challenge", "")
    return Challenge(ref="challenge/1", decisions=(passing("cxr-cnn"),) if broken.run != "refused" else ())

def promote(run, dataset, challenge, comparisons, trained=None, external=None, reply=None):
    broken("promote", "")
    return Promotion(ref="promote/1", decisions=(passing("cxr-cnn", is_new=True),))

def keep_champion(run, challenge, reply=None):
    broken("keep_champion", "")
    return KeptChampion(ref="keep_champion/1", decisions=challenge.decisions)

def extract(run, dataset, backbone, synthetic=None):
    broken("extract_features", backbone + " synthetic" * (synthetic is not None))
    return Features(ref=f"extract_features/{backbone}", backbone=backbone, computed=1, found=0)

def gan(run, dataset):
    broken("train_gan", "")
    return Gan(ref="train_gan/1", finished=True, steps=1, epochs=1, images=1, resumed_from=0, hours=0.0)

def read_foreign(run, dataset):
    broken("import_synthetic", "")
    return ImportedImages(ref="import_synthetic/1", source="/images", images={"COVID": 20}, rejected=0)

def judge(run, dataset, gan=None, imported=None):
    broken("judge", "")
    assert (gan is None) != (imported is None)
    return Judgement(ref="judge/1", passed=True, kind="good enough", sentence="Good enough.")

def synthesize(run, dataset, gan=None, imported=None, judgement=None):
    broken("synthesize", "")
    assert judgement and (gan is None) != (imported is None)
    return SyntheticSet(ref="synthesize/1", counts={}, dropped={})

def begin(dag_run, form, events, cause="by hand", only_if_owed=False):
    broken("configure", "")
    dataset = Dataset(ref="split/1", version="1", counts={}, shards=(), source="", warnings=(), data_docs="")
    return {"run": steps.configure("cxr_training", dag_run, form), "dataset": dataset}

def read_set(run, dataset, name):
    broken("read_external", name)
    return ExternalSet(ref=f"read_external/{name}", name=name, source="/b", images={}, leaks={}, checked=True,
                       shards=(), rejected=0)

def evaluate(run, dataset, external, trained=None):
    broken("evaluate_external", external.name)
    assert any(trained)
    return ExternalResults(ref=f"evaluate_external/{external.name}", external=external, tests=())

def report(run, dataset, gan, judgement, synthetic, comparisons, galleries, leaks, features, ruled, trained=None,
           failures=None, imported=None, external=None):
    from cxr_tasks.report.missing import missing_parts
    from cxr_tasks.report.results import Results
    from cxr_tasks.steps.common import flat
    from cxr_tasks.steps.write_report import _planned
    results = Results(dataset=dataset, gan=gan, judgement=judgement, synthetic=synthetic, imported=imported,
                      ruled=next(flat([ruled]), None), comparisons=list(flat([comparisons])),
                      galleries=list(flat([galleries])), features=list(flat(features)), trained=list(flat(trained)),
                      external=list(flat([external])))
    # No model can be registered here, for there is no MLflow; a run with MLflow plans that.
    missing = missing_parts(replace(_planned(run), promotion=True), results, failures)
    complete = [comparison.name for comparison in results.complete]
    return Report(ref="write_report/1", answer=json.dumps(complete), warnings=(), claims=(), pairs=(), champions=(),
                  address="", missing=tuple(missing))

for name, make in {"train_arm": train_arm, "compare": compare, "explain": explain, "challenge": challenge,
                   "promote": promote, "keep_champion": keep_champion,
                   "extract_features": extract, "train_gan": gan, "import_synthetic": read_foreign,
                   "judge": judge, "synthesize": synthesize,
                   "read_external": read_set, "evaluate_external": evaluate,
                   "begin_training": begin, "write_report": report}.items():
    stand_in(name, make)

from airflow.dag_processing.dagbag import BundleDagBag
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
bag = BundleDagBag(DAGS, bundle_path=DAGS, bundle_name="dags")
assert not bag.import_errors, bag.import_errors
dag = bag.dags["cxr_training"]
for task in dag.tasks:
    task.retries = 0
form = {"profile": "quick", "settings": {"classifiers": {"names": ["cnn", "vgg16"]}}}
others = {"imported": {"synthetic": {"source": "/images"}},
          "no synthetic images": {"arms": {"compared": ["classical"]}},
          "external": {"data": {"external": [{"name": name, "source": "/x"} for name in "bcd"]}}}
told = {}
for broken.run, broken.now in RUNS.items():
    name = broken.run
    run = dag.test(run_conf={**form, "settings": {**form["settings"], **others.get(name, {})}})
    states = {f"{t.task_id}/{t.map_index}" if t.map_index >= 0 else t.task_id: t.state
              for t in run.get_task_instances()}
    with create_session() as session:
        rows = session.query(XComModel).filter_by(run_id=run.run_id)
        reports = [XComModel.deserialize_value(row)
                   for row in rows.filter_by(task_id="verdict.write_report", key="return_value")]
        kept = {f"{row.task_id}/{row.map_index}": XComModel.deserialize_value(row)
                for row in rows.filter_by(key="record")}
        results = {f"{row.task_id}/{row.map_index}": XComModel.deserialize_value(row)
                   for row in rows.filter_by(key="result")}
    said = {task: record["sentence"] for task, record in kept.items() if record["sentence"]}
    labels = {f"{t.task_id}/{t.map_index}": t.rendered_map_index for t in run.get_task_instances() if t.map_index >= 0}
    told[name] = {"run": run.state, "states": states, "report": reports[0] if reports else None, "said": said,
                  "labels": labels, "results": results}
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def runs(in_airflow, airflow_environment, tmp_path_factory):
    """What became of each of the runs."""
    dags, store = airflow_environment["AIRFLOW__CORE__DAGS_FOLDER"], tmp_path_factory.mktemp("store")
    script = f"DAGS, RUNS = {dags!r}, {RUNS!r}\n{RUN}"
    return json.loads(in_airflow(script, timeout=900, CXR_MLFLOW="off", CXR_STORE=str(store)))


def ended(told, state):
    return {name for name, is_now in told["states"].items() if is_now == state}


def test_what_fails_costs_its_branch_and_the_report_names_it(runs):
    told = runs["some"]

    assert ended(told, "failed") == {"arms.train/0", "verdict.explain/1", "verdict.promote", "finish"}
    assert ended(told, "upstream_failed") == set()
    assert told["run"] == "failed"
    complete = json.loads(told["report"]["answer"])
    assert "vgg16 synthetic against none seed 0" in complete and "cnn synthetic against oversample seed 0" in complete
    assert "cnn synthetic against none seed 0" not in complete
    missing = {part["what"]: part["why"] for part in told["report"]["missing"]}
    assert missing["The training CNN none, seed 0"] == "train_arm cnn none seed 0 is broken."
    alone = "The comparison of CNN synthetic, seed 0 with none; The comparison of CNN oversample, seed 0 with none"
    assert missing[alone] == "One of its arms is missing."
    gallery = "The gallery of vgg16 synthetic against none seed 0"
    assert missing[gallery] == "explain vgg16 synthetic against none seed 0 is broken."
    assert missing["The choice of champions"] == "promote is broken."
    assert len(missing) == 4
    links = [part["link"] for part in told["report"]["missing"] if part["task"]]
    assert len(links) == 3 and all("/tasks/" in link for link in links)


def test_instances_are_called_by_what_they_work_on_and_in_the_end_by_what_came_out_too(runs):
    told = runs["some"]

    assert told["labels"]["arms.train/0"] == "CNN · none · seed 0"
    assert told["labels"]["arms.train/1"] == "VGG16 · none · seed 0 · test macro F1 0.50"
    assert told["labels"]["features.of_dataset/0"] == "VGG16 · 1 images run, 0 known"
    assert told["labels"]["verdict.compare/0"].startswith("CNN · synthetic against none · seed 0")
    assert told["labels"]["verdict.explain/1"] == "vgg16 synthetic against none seed 0"


def test_every_result_is_kept_in_a_line(runs):
    told = runs["nothing"]["results"]

    assert told["arms.train/1"] == "test macro F1 0.50" and told["gan.judge/-1"] == "good enough"
    assert told["verdict.promote/-1"] == "validation macro F1 0.50, 1 of 1 models have a new champion"
    assert told["verdict.write_report/-1"] == "nothing compared"


def test_imported_images_take_the_place_of_the_gan(runs):
    told = runs["imported"]

    assert told["run"] == "success" and told["report"]["missing"] == []
    assert {name for name in ended(told, "skipped") if name.startswith("gan.")} == {"gan.train_gan"}
    assert {"gan.import_synthetic", "gan.judge", "gan.synthesize"} <= ended(told, "success")


def test_without_synthetic_images_neither_is_made_nor_judged(runs):
    told = runs["no synthetic images"]

    assert told["run"] == "success" and told["report"]["missing"] == []
    assert {name for name in told["states"] if name.startswith("gan.")} <= ended(told, "skipped")


def test_a_gan_that_fails_and_features_that_fail_cost_the_arms_that_need_them(runs):
    told = runs["gan and features"]

    assert {"gan.judge", "gan.synthesize"} <= ended(told, "upstream_failed")
    waiting = {f"arms.train_with_synthetic/{n}" for n in (0, 1, 3)}
    assert {"arms.train/1", *waiting} <= ended(told, "skipped")
    # A control does without the set, and the network without a backbone without features.
    assert told["states"]["arms.train_with_synthetic/2"] == "success"
    assert told["states"]["arms.train/0"] == told["states"]["verdict.write_report"] == "success"
    assert told["states"]["verdict.promote"] == "success" and told["run"] == "failed"
    missing = {part["what"]: part["why"] for part in told["report"]["missing"]}
    assert missing["The GAN"] == "train_gan is broken."
    assert missing["Features of vgg16"] == "extract_features vgg16 is broken."
    without = "The training VGG16 none, seed 0; The training VGG16 oversample, seed 0"
    assert missing[without] == "It needs the features of VGG16, which are missing."


def test_without_challengers_nothing_is_promoted_and_nobody_is_asked(runs):
    told = runs["no registry"]

    assert ended(told, "failed") == {"verdict.challenge", "finish"} and told["run"] == "failed"
    assert {"verdict.promote", "verdict.keep_champion", "verdict.approve"} & ended(told, "success") == set()
    (missing,) = told["report"]["missing"]
    assert missing["what"] == "The registration of models, and the choice of champions"


@pytest.mark.parametrize(("name", "ran"), [("nothing", "promote"), ("refused", "keep_champion")])
def test_the_gate_is_a_branch(runs, name, ran):
    told = runs[name]
    branches = {"verdict.promote", "verdict.keep_champion", "verdict.draft_report", "verdict.approve"}

    assert branches & ended(told, "success") == {f"verdict.{ran}"}
    assert branches & ended(told, "skipped") == branches - {f"verdict.{ran}"} and told["run"] == "success"


def test_an_external_set_that_fails_costs_itself(runs):
    told = runs["external"]

    assert ended(told, "failed") == {"read_external/1", "verdict.evaluate_external/1", "finish"}
    assert {"read_external/0", "verdict.evaluate_external/0", "verdict.write_report"} <= ended(told, "success")
    missing = {part["what"]: part["why"] for part in told["report"]["missing"]}
    assert missing == {
        "The tests on the external set c": "read_external c is broken.",
        "The tests on the external set d": "evaluate_external d is broken.",
    }


def test_a_run_that_did_not_begin_fails_and_runs_nothing(runs):
    told = runs["configure"]

    assert ended(told, "success") == set() and told["run"] == "failed"
    assert {"configure", "finish"} <= ended(told, "failed") and told["report"] is None


def test_a_run_in_which_nothing_fails_is_a_success_and_nothing_is_missing(runs):
    told = runs["nothing"]

    assert ended(told, "failed") == set(), told["said"]
    assert told["run"] == "success"
    assert told["report"]["missing"] == [] and told["states"]["finish"] == "success"
