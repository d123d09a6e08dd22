"""Both DAGs from end to end through ``dag.test()``, on generated phantoms, against a real MLflow server."""

import json
from pathlib import Path

import pytest

from tests.privacy import contents_below, leaks, spellings
from tests.small_runs import ONE_PAIR, SETTINGS

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

# What nobody asked for: wrong figures, and sets of other hospitals.
UNASKED = {"arms.reproduce_leak", "read_external", "verdict.evaluate_external"}
UNASKED |= {"verdict.draft_report", "verdict.approve"}
# The gate lets one of them run.
AFTER_GATE = {"verdict.promote", "verdict.keep_champion"}

# What a worker may have in its environment. All of them hold the same mark, which is nowhere else.
MARK = "5ec2e7d00dfeed5ec2e7"
CREDENTIALS = {
    name: f"{number}{MARK}{number}"
    for number, name in enumerate(
        (
            *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "KAGGLE_KEY", "KAGGLE_API_TOKEN"),
            *(
                "MLFLOW_TRACKING_PASSWORD",
                "CXR_PSEUDONYM_KEY",
                "AIRFLOW__API__SECRET_KEY",
                "AIRFLOW__API_AUTH__JWT_SECRET",
            ),
        )
    )
}

RUN = """
import json, sys
from airflow.dag_processing.dagbag import BundleDagBag
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
form = json.loads(FORM)
bag = BundleDagBag(DAGS, bundle_path=DAGS, bundle_name="dags")
states, results, links = {}, {}, {}
for name in ("cxr_data", "cxr_training"):
    conf = form if name == "cxr_data" else {k: v for k, v in form.items() if k != "source"}
    run = bag.dags[name].test(run_conf=conf)
    states[name] = {f"{t.task_id}/{t.map_index}": t.state for t in run.get_task_instances()}
    with create_session() as session:
        for row in session.query(XComModel).filter_by(run_id=run.run_id, dag_id=name, key="return_value"):
            results[f"{row.task_id}/{row.map_index}"] = XComModel.deserialize_value(row)
        for row in session.query(XComModel).filter_by(run_id=run.run_id, dag_id=name, key="_link_MlflowRunLink"):
            links[f"{row.task_id}/{row.map_index}"] = XComModel.deserialize_value(row)
    if run.state != "success":
        break
print(json.dumps({"states": states, "results": results, "links": links}))
"""


@pytest.fixture(scope="module")
def pipeline(in_airflow, airflow_environment, phantoms, mlflow_server, tmp_path_factory):
    store = tmp_path_factory.mktemp("store")

    def run(**form):
        form = {"source": str(phantoms), "profile": "quick", "settings": SETTINGS, **form}
        dags = airflow_environment["AIRFLOW__CORE__DAGS_FOLDER"]
        text = in_airflow(
            f"FORM = {json.dumps(form)!r}\nDAGS = {dags!r}\n{RUN}",
            timeout=900,
            MLFLOW_TRACKING_URI=mlflow_server,
            CXR_STORE=str(store),
            MLFLOW_TRACKING_USERNAME="somebody",
            **CREDENTIALS,
        )
        return json.loads(text)

    run.store = store
    return run


@pytest.fixture(scope="module")
def first(pipeline):
    return pipeline()


@pytest.fixture(scope="module")
def mlflow_client(mlflow_server, first):
    from mlflow import MlflowClient

    return MlflowClient(mlflow_server)


def test_every_task_succeeds(first):
    states = {name: state for tasks in first["states"].values() for name, state in tasks.items()}

    assert set(first["states"]) == {"cxr_data", "cxr_training"}
    others = {name: state for name, state in states.items() if state != "success"}
    left = {*UNASKED, "gan.import_synthetic", "queue_training", "verdict.keep_champion"}
    assert others == dict.fromkeys((f"{name}/-1" for name in left), "skipped")
    assert all("finish/-1" in tasks for tasks in first["states"].values())


def test_every_task_links_to_its_run_in_mlflow(first):
    pages = {name: told["url"] for name, told in first["results"].items() if isinstance(told, dict) and "url" in told}

    assert len(pages) > 20 and {name: first["links"][name] for name in pages} == pages


def test_mlflow_holds_trainings_under_one_run_and_what_other_steps_say_there(first, mlflow_client):
    # Other tests may have trained on this server.
    run = first["results"]["configure/-1"]["run"]
    known = [mlflow_client.get_experiment_by_name(dag).experiment_id for dag in ("cxr_data", "cxr_training")]
    runs = mlflow_client.search_runs(known[1:], f"tags.`cxr.dag_run` = '{run['dag_run']}'")
    steps = sorted(run.data.tags["cxr.step"] for run in runs if "cxr.step" in run.data.tags)
    parents = {run.data.tags["mlflow.parentRunId"] for run in runs if "cxr.step" in run.data.tags}

    assert steps == 6 * ["train_arm"] + ["train_gan"]
    assert parents == {run["mlflow_run_id"]} and len(runs) == len(steps) + 1
    of_cxr_data = mlflow_client.search_runs(known[:1])
    assert {run.data.tags["cxr.work"] for run in of_cxr_data} == {"dag run"}
    # MLflow's pages show notes as Markdown, and everything else as text. Of the one note there is, names are escaped.
    assert {run.info.run_id for run in runs if "mlflow.note.content" in run.data.tags} == parents
    parent = next(run for run in runs if run.info.run_id in parents)
    assert parent.info.run_name.startswith("data · quick · ") and "VGG16_synthetic_difference" in parent.data.metrics
    assert {"judge/gan_passed", "promote/promoted", "synthesize/synthetic_images"} <= set(parent.data.metrics)
    folders = {file.path for file in mlflow_client.list_artifacts(parent.info.run_id)}
    assert {"settings.yaml", "report.html", "trainings.json", "judge", "synthesize", "compare", "explain"} <= folders
    # Those of trainings are with the trainings.
    assert not folders & {"validate", "train_arm", "evaluate_arm", "write_report"}
    assert len(mlflow_client.list_artifacts(parent.info.run_id, "compare")) == 3
    arm = next(run for run in runs if run.data.tags.get("cxr.step") == "train_arm")
    assert {"test_macro_f1", "validation_macro_f1", "val_loss"} <= set(arm.data.metrics)
    assert arm.data.params["classifier"] in ("vgg16", "resnet50", "cnn")
    shown = {entry.dataset.name.partition(":")[0] for entry in arm.inputs.dataset_inputs}
    assert shown == {"training images", "validation images", "test images"}
    assert len(mlflow_client.get_metric_history(arm.info.run_id, "val_loss")) == 2


@pytest.mark.parametrize("dag", ["cxr_data", "cxr_training"])
def test_a_run_that_has_ended_is_not_running_in_mlflow(first, mlflow_client, dag):
    experiment = mlflow_client.get_experiment_by_name(dag)
    runs = mlflow_client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    parent = next(run for run in runs if run.data.tags["cxr.work"] == "dag run")

    assert parent.info.status == "FINISHED" and "cxr.error" not in parent.data.tags
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert bool(children) == (dag == "cxr_training") and {run.info.status for run in children} <= {"FINISHED"}


def test_four_champions_are_registered_with_signature_and_example(first, mlflow_client, mlflow_uri):
    import mlflow

    names = {"cxr-vgg16", "cxr-resnet50", "cxr-cnn", "cxr-overall"}
    assert {model.name for model in mlflow_client.search_registered_models()} >= names
    for name in names:
        champion = mlflow_client.get_model_version_by_alias(name, "champion")
        info = mlflow.models.get_model_info(f"models:/{name}/{champion.version}")
        assert {"decision", "probabilities", "warnings", "version"} <= set(info.signature.outputs.input_names())
        assert info.saved_input_example_info is not None


def test_the_report_opens_with_the_answer_and_lies_in_mlflow(first, mlflow_client, tmp_path):
    report = first["results"]["verdict.write_report/-1"]
    parent = first["results"]["configure/-1"]["run"]["mlflow_run_id"]
    html = Path(mlflow_client.download_artifacts(parent, "report.html", str(tmp_path))).read_text("utf-8")
    test_counts = first["results"]["split/-1"]["counts"]["test"]

    assert report["answer"] and len(report["pairs"]) == 3 and len(report["champions"]) == 4
    assert "cannot be credited to the added images alone" in html
    assert "VGG16" in html and "data:image/png;base64" in html and html.count("<script") == 1
    pdf = Path(mlflow_client.download_artifacts(parent, "report.pdf", str(tmp_path))).read_bytes()
    assert pdf.startswith(b"%PDF-")
    data = {Path(file.path).name for file in mlflow_client.list_artifacts(parent, "report-data")}
    assert {"claims.csv", "comparisons.csv", "checklist-tripod-ai.csv"} <= data
    assert report["pairs"][0]["test_images"] == sum(test_counts.values())


def test_no_credential_shows_in_xcoms_logs_mlflow_or_the_store(first, pipeline, airflow_environment, tmp_path_factory):
    folders = [
        pipeline.store,
        Path(airflow_environment["AIRFLOW_HOME"]),
        *tmp_path_factory.getbasetemp().glob("mlflow*"),
    ]
    searched, wanted = [], {"credential": spellings(MARK)}

    def texts():
        for folder in folders:
            for place, content in contents_below(folder):
                searched.append(place)
                yield place, content

    assert leaks(texts(), wanted) == []
    told = " ".join(searched)
    assert all(each in told for each in ("airflow.db: xcom ", "mlflow.db: params ", "mlflow.db: tags ", "report.html"))
    # The same search finds what is there.
    assert leaks(iter([("log", f"password={CREDENTIALS['KAGGLE_KEY']}".encode())]), wanted)


def test_no_synthetic_or_lung_opacity_image_was_read_or_tested_on(first, pipeline):
    import pandas as pd

    from cxr_tasks.store import FolderStore

    arms = [result for name, result in first["results"].items() if name.startswith("arms.train_with_synthetic/")]
    assert len(arms) == 3
    for arm in arms:
        predictions = pd.read_parquet(FolderStore(pipeline.store).fetch(arm["model"]["ref"]) / "predictions.parquet")
        assert set(predictions["label"]) == {"COVID", "Normal", "Viral Pneumonia"}
        assert not predictions["image_id"].str.startswith("synthetic").any()


def test_a_second_run_takes_every_artifact_as_it_is(first, pipeline, mlflow_client):
    experiment = mlflow_client.get_experiment_by_name("cxr_training").experiment_id
    before = {run.info.run_id for run in mlflow_client.search_runs([experiment])}

    again = pipeline()

    assert again["states"]["cxr_data"]["publish/-1"] == "skipped"
    steps = {name: r for name, r in again["results"].items() if isinstance(r, dict) and "reused" in r}
    anew = {name.split("/")[0] for name, result in steps.items() if not result["reused"]}
    assert anew == {"verdict.challenge", "verdict.keep_champion", "verdict.write_report"}
    champions = again["results"]["verdict.keep_champion/-1"]["decisions"]
    assert {row["version"] for row in champions} == {"1"}
    # MLflow has no copies of the trainings, and the run leads to those that there are.
    (added,) = (run for run in mlflow_client.search_runs([experiment]) if run.info.run_id not in before)
    assert added.info.run_name.startswith("data · quick · ") and "VGG16_synthetic_difference" in added.data.metrics
    taken = {result["model"]["mlflow_run_id"] for name, result in steps.items() if name.startswith("arms.train")}
    assert taken <= before and all(run_id in added.data.tags["mlflow.note.content"] for run_id in taken)


def test_a_gan_that_is_not_good_enough_skips_the_augmented_arms_and_no_more(first, pipeline, mlflow_client, tmp_path):
    arms = {"arms": {"baseline": "classical", "compared": ["synthetic", "oversample"]}}
    settings = {**ONE_PAIR, **arms, "judge": {**SETTINGS["judge"], "max_kid_ratio": 1e-9}}

    bad = pipeline(settings=settings, force=["judge"])

    states, results = bad["states"]["cxr_training"], bad["results"]
    skipped = {name.split("/")[0] for name, state in states.items() if state == "skipped"}
    extracting = {"features.of_dataset", "features.of_synthetic"}
    of_gan = {"gan.import_synthetic", "gan.synthesize"}
    assert len(skipped & AFTER_GATE) == 1
    assert skipped - AFTER_GATE == of_gan | UNASKED | {*extracting, "arms.train_with_synthetic"}
    assert {state for name, state in states.items() if name.split("/")[0] not in skipped} == {"success"}
    # The control is not skipped: it needs no synthetic image.
    waiting = {name: state for name, state in states.items() if name.startswith("arms.train_with_synthetic/")}
    assert sorted(waiting.values()) == ["skipped", "success"]
    report = results["verdict.write_report/-1"]
    assert "not good enough to train with" in report["answer"] and report["claims"] == []
    assert [pair["arm"] for pair in report["pairs"]] == ["oversample"]
    assert not any("synthetic" in row["arm"] for row in report["champions"])
    parent = results["configure/-1"]["run"]["mlflow_run_id"]
    html = Path(mlflow_client.download_artifacts(parent, "report.html", str(tmp_path))).read_text("utf-8")
    assert "Each comparison by itself" in html and "What it cost" in html and "Quality of the generated images" in html


def test_a_run_without_synthetic_images_trains_no_gan(first, pipeline, mlflow_client, tmp_path):
    arms = {"baseline": "none", "compared": ["oversample"]}
    classifiers = {**SETTINGS["classifiers"], "names": ["resnet50"], "budget": "steps"}

    run = pipeline(settings={**SETTINGS, "classifiers": classifiers, "arms": arms})

    states, results = run["states"]["cxr_training"], run["results"]
    skipped = {name.split("/")[0] for name, state in states.items() if state == "skipped"}
    gan = {"gan.train_gan", "gan.import_synthetic", "gan.judge", "gan.synthesize"}
    assert skipped - AFTER_GATE == gan | UNASKED | {"features.of_synthetic", "arms.train_with_synthetic"}
    trained = [result["model"] for name, result in results.items() if name.startswith("arms.train/")]
    images = {model["training"]["arm"]: model["train_images"] for model in trained}
    assert set(images) == {"none", "oversample"} and images["oversample"] == images["none"] + 16
    assert len({model["steps"] for model in trained}) == 1
    report = results["verdict.write_report/-1"]
    assert len(report["pairs"]) == 1 and "showing real images over again" in report["answer"]


@pytest.fixture(scope="module")
def overridden(first, pipeline):
    """A run whose GAN misses a threshold that does not count, with a control, and with the source report's protocol."""
    arms = {"baseline": "classical", "compared": ["synthetic", "oversample"]}
    judge = {**SETTINGS["judge"], "max_kid_ratio": 1e-9, "override": True}
    settings = {**ONE_PAIR, "arms": arms, "judge": judge}
    return pipeline(settings=settings, reproduce_leak=True)["results"]


def test_the_source_reports_protocol_is_repeated_on_request_and_marked(overridden, mlflow_client, tmp_path):
    leak = overridden["arms.reproduce_leak/0"]
    assert leak["synthetic_test_images"] > 0
    parent = overridden["configure/-1"]["run"]["mlflow_run_id"]
    told = [name for name in mlflow_client.get_run(parent).data.metrics if name.startswith("reproduce_leak/")]
    assert leak["mlflow_run_id"] == parent and any(name.endswith("/leaked_test_macro_f1") for name in told)
    assert not any(name.endswith("/test_macro_f1") for name in told)
    html = Path(mlflow_client.download_artifacts(parent, "report.html", str(tmp_path))).read_text("utf-8")
    assert "these figures are wrong" in html and 'class="leak"' in html
    assert not any("leak" in row["arm"] for row in overridden["verdict.write_report/-1"]["champions"])


def test_an_override_trains_with_them_all_the_same_and_says_so(overridden, mlflow_client):
    judged, report = overridden["gan.judge/-1"], overridden["verdict.write_report/-1"]
    assert not judged["passed"] and any("judge.override is set" in warning for warning in report["warnings"])
    assert mlflow_client.get_run(judged["mlflow_run_id"]).data.tags["cxr.verdict_overridden"] == "not good enough"


def test_an_arm_is_held_against_its_baseline_and_its_control(overridden):
    report = overridden["verdict.write_report/-1"]
    against = {(pair["arm"], pair["baseline_arm"]) for pair in report["pairs"]}
    assert against == {("synthetic", "classical"), ("oversample", "classical"), ("synthetic", "oversample")}


def test_bad_data_fail_at_once_with_one_sentence(pipeline, mlflow_client, tmp_path):
    run = pipeline(source=str(tmp_path / "nowhere"))
    states = run["states"]
    # A failed task has returned nothing, and links to its run all the same.
    assert run["links"]["scan/-1"].startswith("http://127.0.0.1")

    assert states["cxr_data"]["scan/-1"] == states["cxr_data"]["finish/-1"] == "failed"
    assert states["cxr_data"]["split/-1"] == "upstream_failed"
    experiment = mlflow_client.get_experiment_by_name("cxr_data")
    newest = mlflow_client.search_runs([experiment.experiment_id], "tags.`cxr.work` = 'dag run'", max_results=1)[0]
    assert newest.info.status == "FAILED" and "nowhere" in newest.data.tags["cxr.error"]
