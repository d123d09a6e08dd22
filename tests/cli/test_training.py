"""Steps by hand on tiny phantoms: the first in a process of its own, as people call it, the others in this one."""

import json
import shutil
from io import StringIO

import pytest
from mlflow import MlflowClient
from rich.console import Console

from cxr_tasks.artifacts import ExternalRow, Report, Training
from cxr_tasks.cli.training import _naming, _show_report, _training
from cxr_tasks.config import resolve
from cxr_tasks.data.phantoms import write_phantoms
from cxr_tasks.local import DATA, TRAINING

SMALL = [
    "data.min_images_per_class=10",
    "classifiers.image_size=32",
    "classifiers.epochs=1",
    "gan.image_size=32",
    "evaluation.bootstrap_samples=50",
]
SETTINGS = [word for setting in SMALL for word in ("--set", setting)]
ONE_THREAD = {"TF_NUM_INTRAOP_THREADS": "1", "OMP_NUM_THREADS": "1"}


def test_a_training_that_the_profile_does_not_name_is_added_to_its_settings():
    settings = resolve("quick")
    named = Training(classifier="cnn", arm="synthetic", seed=0)
    other = Training(classifier="mobilenetv3", arm="both", seed=7)

    assert _naming(settings, named, ["gan.epochs=2"]) == {"gan": {"epochs": 2}}
    assert _naming(settings, other, None) == {
        "classifiers": {"names": [*settings.classifiers.names, "mobilenetv3"]},
        "arms": {"compared": ["synthetic", "oversample", "both"]},
        "seeds": {"classifiers": [0, 7]},
    }


def test_without_a_seed_it_is_the_first_of_the_profile():
    settings = resolve("quick", {"seeds": {"classifiers": [4, 5]}})

    assert _training(settings, "cnn", "none", None).seed == 4
    assert _training(settings, "cnn", "none", 9).seed == 9


def test_settings_that_do_not_fit_are_refused_before_anything_is_read(cxr, phantoms):
    done = cxr("train-arm", phantoms, "--classifier", "cnn", "--arm", "real_resized", "--set", "gan.image_size=64")

    assert done.exit_code == 2 and "real_resized needs a gan.image_size below" in done.stderr


def test_a_report_needs_a_folder_to_go_to(cxr, phantoms, tmp_path):
    done = cxr("report", phantoms, "--out", tmp_path / "nowhere" / "report.html")

    assert done.exit_code == 2 and "nowhere does not exist" in done.stderr


@pytest.fixture(scope="module")
def store_folder(tmp_path_factory):
    """One store for the trainings below, so that each goes on where the one before has ended."""
    return tmp_path_factory.mktemp("by-hand") / "store"


@pytest.fixture
def words(phantoms, store_folder):
    """A command on phantoms with a CNN and the settings above."""

    def of(command, arm):
        return [command, phantoms, "--classifier", "cnn", "--arm", arm, "--store", store_folder, *SETTINGS]

    return of


@pytest.fixture
def train(cxr, words):
    """Calls such a command."""
    return lambda command, arm, *options: cxr(*words(command, arm), *options)


@pytest.fixture
def first(script, words, store_folder):
    """The training that the tests below take as it is."""
    if not store_folder.exists():
        done = script(*words("train-arm", "none"), **ONE_THREAD)
        assert done.returncode == 0, done.stderr
        # Neither a bar nor what TensorFlow has to say.
        assert "\x1b" not in done.stderr and "oneDNN" not in done.stderr
        assert "✓ train_arm cnn none seed 0" in done.stderr and "taken as it was" not in done.stderr
        assert done.stdout.startswith("cnn none seed 0: macro F1") and f"{store_folder}/train_arm/" in done.stdout


@pytest.mark.slow
def test_an_arm_is_trained_once_and_then_taken_as_it_is(first, train):
    again = train("train-arm", "none", "--json")
    handle = json.loads(again.stdout)

    assert again.exit_code == 0
    assert all(line.endswith("taken as it was") or line.startswith("  ") for line in again.stderr.splitlines())
    assert handle["reused"] and handle["model"]["training"] == {"classifier": "cnn", "arm": "none", "seed": 0}


@pytest.mark.slow
def test_a_comparison_takes_what_is_there_and_trains_the_other_arm(first, train):
    compared = train("compare", "oversample")

    assert compared.exit_code == 0, compared.stderr
    assert f"{'✓ train_arm cnn none seed 0':<46} taken as it was" in compared.stderr
    assert "from none to oversample" in compared.stdout


@pytest.mark.slow
def test_a_training_is_tested_on_another_source_without_the_images_that_it_has_seen(
    first, train, cxr, phantoms, store_folder, tmp_path
):
    other = tmp_path / "other"
    write_phantoms(other, {"COVID": 8, "Normal": 8, "Viral Pneumonia": 8}, image_size=64, seed=7)
    shutil.copytree(phantoms / "COVID" / "images", other / "COVID" / "images" / "again")
    # Their names are now those of two images each, and phantoms have patients of the same names: tables name none.
    for table in other.glob("*.metadata.csv"):
        images = sorted((other / table.name.removesuffix(".metadata.csv") / "images").glob("*.png"))
        told = (f"images/{path.name},machine {place % 2}\n" for place, path in enumerate(images))
        table.write_text("FILE NAME,SOURCE\n" + "".join(told))
    ref = json.loads(train("train-arm", "none", "--json").stdout)["model"]["ref"]

    def evaluate(*words):
        return cxr("evaluate", ref, *words, "--store", store_folder, *SETTINGS)

    done, told = evaluate(other), evaluate(other, "--json", "--name", "hospital-b")
    handle = json.loads(told.stdout)

    assert done.exit_code == told.exit_code == 0, done.stderr + told.stderr
    assert "External test: external" in done.stdout and "are left out" in done.stdout
    assert "External test external: by source" in done.stdout and "machine 1" in done.stdout
    assert [row["subgroup"] for row in handle["subgroups"]["attributes"][0]["rows"]] == ["machine 0", "machine 1"]
    assert handle["external"] == "hospital-b" and handle["findings"]["images"] >= 20
    assert handle["set"]["leaks"] and handle["findings"]["macro_f1_drop"]["low"] is not None
    gone = evaluate(tmp_path / "nowhere")
    assert gone.exit_code == 2 and "nowhere" in gone.stderr and gone.stderr.count("\n") < 6


@pytest.mark.slow
def test_a_step_is_made_anew_on_request(first, train):
    forced = json.loads(train("train-arm", "none", "--force", "evaluate_arm", "--json").stdout)

    assert forced["forced"] and not forced["reused"] and forced["model"]["reused"]


@pytest.mark.slow
def test_with_mlflow_both_runs_are_kept_and_ended(first, train, mlflow_server):
    done = train("train-arm", "none", "--mlflow", mlflow_server, "--json")
    handle = json.loads(done.stdout)

    assert handle["url"].startswith(mlflow_server)
    client = MlflowClient(mlflow_server)
    for dag in (DATA, TRAINING):
        experiment = client.get_experiment_by_name(dag).experiment_id
        runs = client.search_runs([experiment], "tags.`cxr.work` = 'dag run' and run_name LIKE 'local__%'")
        assert runs and all(run.info.status == "FINISHED" for run in runs)


@pytest.mark.slow
def test_a_gan_is_trained_and_goes_on_where_its_hours_ended(cxr, phantoms):
    settings = [*SETTINGS, "--set", "gan.epochs=2", "--set", "gan.width=0.1", "--set", "gan.batch_size=32"]
    cut = cxr("train-gan", phantoms, *settings, "--set", "gan.max_hours=1e-9")
    done = cxr("train-gan", phantoms, *settings)

    assert cut.exit_code == done.exit_code == 0, cut.stderr + done.stderr
    assert "the next run goes on from there" in cut.stdout
    assert done.stdout.startswith("Trained for 2 epochs") and "generator.keras" in done.stdout


def test_synthetic_images_that_are_not_there_are_said_in_a_sentence(cxr, phantoms, tmp_path):
    done = cxr("judge", phantoms, tmp_path / "nowhere")

    assert done.exit_code == 2 and "nowhere does not exist" in done.stderr


@pytest.mark.slow
def test_images_of_others_are_judged_by_hand_and_go_through_to_the_report(cxr, phantoms, tmp_path):
    synthetic = tmp_path / "of-others"
    write_phantoms(synthetic, {"COVID": 16, "Normal": 12, "Viral Pneumonia": 12}, image_size=96, seed=7)
    counts = "synthetic.counts={COVID: 20, Viral Pneumonia: 5}"
    settings = [*SETTINGS, "--set", counts, "--set", "classifiers.names=[cnn]", "--set", "evaluation.gallery=0"]

    judged = cxr("judge", phantoms, synthetic, *settings)
    source = f"synthetic.source={synthetic}"
    reported = cxr("report", phantoms, *settings, "--set", source, "--out", "report.html")

    assert judged.exit_code == reported.exit_code == 0, judged.stderr + reported.stderr
    assert "KID" in judged.stdout and "copies.parquet" in judged.stdout
    done = {line.split()[1]: line for line in reported.stderr.splitlines() if line.startswith("✓")}
    assert "train_gan" not in done
    assert all(done[step].endswith("taken as it was") for step in ("import_synthetic", "judge"))
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert f"images from {synthetic} (COVID 16, Normal 12, Viral Pneumonia 12; 0 files set aside)" in page
    assert "COVID: 20 synthetic images are asked for, and 16 of 16 are added" in page


def test_a_report_shows_the_external_sets_in_the_terminal():
    figures = {"macro_f1": 0.5, "macro_f1_low": 0.4, "macro_f1_high": 0.6}
    rows = [
        ExternalRow(external="far", model="CNN, none, seed 0", is_champion=False, images=36, **figures),
        ExternalRow(
            external="far", model="old", is_champion=True, images=36, **figures, drop=0.2, drop_low=0.1, drop_high=0.3
        ),
    ]
    nothing = {"warnings": (), "claims": (), "pairs": (), "champions": (), "address": ""}
    shown = StringIO()

    _show_report(Console(file=shown, width=200), Report(answer="Nothing.", external=tuple(rows), **nothing), {})

    lines = shown.getvalue().splitlines()
    assert any(
        "CNN, none, seed 0" in line and "0.500 (0.400 to 0.600)" in line and "not known" in line for line in lines
    )
    assert any("old (champion)" in line and "+20.0 (+10.0 to +30.0) points" in line for line in lines)
