"""External sets: read like the dataset, without what leaks from it, and what models are tested on."""

import shutil
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from PIL import Image

from cxr_tasks import steps, tracking
from cxr_tasks.artifacts import ExternalSet, Failure
from cxr_tasks.config import merge, resolve
from cxr_tasks.data.copies import ALTERED, SAME_FILE
from cxr_tasks.data.external import SAME_PATIENT
from cxr_tasks.data.phantoms import write_phantoms
from cxr_tasks.errors import DataError, SettingsError, UserError
from cxr_tasks.evaluation.metrics import classification_metrics
from cxr_tasks.registry.champions import OVERALL_MODEL, Candidate
from cxr_tasks.registry.gate import Evidence, Gate
from cxr_tasks.steps.publish import _newest
from tests.steps import handles, reading
from tests.steps.test_promote import logged_bare, settled
from tests.steps.test_write_report import NOTHING

TABLE = {"file": "labels.csv", "path": "path", "label": "label", "patient": "patient", "sex": "sex"}
COUNTS = {"COVID": 20, "Normal": 24, "Viral Pneumonia": 18}


def champion_before(version: object) -> None:
    pytest.fail("there was a champion before")


def label(folder: Path, patients: dict[str, str] | None = None) -> Path:
    """Write the table of the images in ``folder``, each of a patient of its own but for ``patients``."""
    paths = sorted(path.relative_to(folder) for path in folder.glob("*/images/*.png"))
    rows = [(str(p), p.parts[0], (patients or {}).get(p.name, f"{folder.name} {p.stem}")) for p in paths]
    table = pd.DataFrame(rows, columns=["path", "label", "patient"])
    # Every third image is of a woman.
    table["sex"] = ["FMM"[place % 3] for place in range(len(table))]
    table.to_csv(folder / "labels.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two hospitals. The second has three images of the first: a copy, a mirrored one, another of one patient."""
    place = tmp_path_factory.mktemp("hospitals")
    write_phantoms(place / "a", COUNTS, image_size=64)
    write_phantoms(place / "b", dict.fromkeys(COUNTS, 12), image_size=64, seed=7)
    return {"a": label(place / "a"), "b": label(place / "b")}


def settings(**external):
    """Settings of a run on hospital a, with hospital b as its external set."""
    data = {"table": TABLE, "external": [{"name": "b", **external}]}
    return merge(merge(reading.SETTINGS, handles.SMALL), {"data": data})


@pytest.fixture
def begin(untracked, sources):
    def call(**external):
        given = settings(**{"source": str(sources["b"]), **external})
        return steps.configure("cxr_training", "one", {"profile": "quick", "settings": given})

    return call


def with_leaks(sources, dataset, place: Path) -> Path:
    """Hospital b with three images that leak from training images of hospital a."""
    folder = Path(shutil.copytree(sources["b"], place / "b"))
    train = dataset.manifest().query("split == 'train'").reset_index(drop=True)
    copy, mirrored, other = (train.iloc[n] for n in (0, 1, 2))
    to = folder / copy["label"] / "images"
    shutil.copyfile(sources["a"] / copy["path"], to / "copied.png")
    pixels = np.asarray(Image.open(sources["a"] / mirrored["path"]))
    Image.fromarray(pixels[:, ::-1]).save(folder / mirrored["label"] / "images" / "mirrored.png")
    patient = f"a {Path(other['path']).stem}"
    new = next(iter(sorted((folder / "Normal" / "images").glob("*.png")))).name
    return label(folder, {new: patient})


def test_a_set_is_read_as_the_dataset_is_and_what_leaks_is_counted_and_left_out(begin, sources, tmp_path):
    run = begin()
    dataset = reading.prepare(run, sources["a"]).dataset()

    clean = steps.read_external(run, dataset, "b")
    mixed = steps.read_external(begin(source=str(with_leaks(sources, dataset, tmp_path))), dataset, "b")

    assert steps.external_sets(run) == ["b"]
    assert clean.images == dict.fromkeys(COUNTS, 12) and clean.leaks == {} and clean.checked
    assert mixed.leaks == {SAME_FILE: 1, ALTERED: 1, SAME_PATIENT: 1} and mixed.images["Normal"] == 11
    assert any("3 of 38 images of the external set b are left out" in warning for warning in mixed.warnings)
    assert not set(mixed.table()["image_id"]) & set(mixed.leaking()["image_id"])
    assert clean.pixels(0, handles.SIZE).shape[1:] == (handles.SIZE, handles.SIZE)
    again = steps.read_external(run, dataset, "b")
    assert again.ref == clean.ref and again.reused


def _two_arms(run, sources):
    """The dataset of one hospital, the set of the other, two arms, what they do on the set, and the report."""
    dataset = reading.prepare(run, sources["a"]).dataset()
    external = steps.read_external(run, dataset, "b")
    arms = [handles.trained_arm(run, dataset, "cnn", arm, with_model=True) for arm in ("none", "synthetic")]
    results = steps.evaluate_external(run, dataset, external, [arms, None])
    report = steps.write_report(run, dataset, **NOTHING, trained=[arms], external=[results])
    return dataset, external, arms, results, report


def test_every_arm_is_tested_and_the_report_tells(begin, sources):
    run = begin()
    dataset, external, arms, results, report = _two_arms(run, sources)

    found = [test.findings() for test in results.tests]
    assert [test.who for test in results.tests] == ["CNN, none, seed 0", "CNN, synthetic, seed 0"]
    assert all(each.images == 36 and each.macro_f1_drop.low <= each.macro_f1_drop.value for each in found)
    images = external.table()
    asked = arms[0].model.load().predict(np.stack([*_pixels(external, images)])[..., None], verbose=0)
    right = np.mean(asked.argmax(axis=1) == [handles.CLASSES.index(each) for each in images["label"]])
    assert found[0].accuracy.value == pytest.approx(right)
    page = (report.folder() / report.PAGE).read_text()
    assert "External test: b" in page and "CNN, synthetic, seed 0" in page
    assert not [part for part in report.missing if "external" in part.what]
    assert [(row.external, row.model, row.macro_f1, row.drop) for row in report.external] == [
        ("b", test.who, each.macro_f1.value, each.macro_f1_drop.value)
        for test, each in zip(results.tests, found, strict=True)
    ]
    again = steps.evaluate_external(run, dataset, external, [arms])
    assert again.ref == results.ref and again.reused


def test_the_gate_holds_the_drop_from_validation_images_against_its_limit(begin, sources, monkeypatch):
    _, _, arms, results, _ = _two_arms(begin(), sources)
    asked = {"gate": {"max_external_drop": 0.1}, "data": {"external": [{"name": n, "source": "/x"} for n in "bc"]}}
    settings = resolve("quick", asked)
    predictions = arms[1].model.predictions()
    validation = predictions[predictions["split"] == "validation"]

    evidence = sys.modules["cxr_tasks.steps.contest"]._evidence(settings, arms[1], 2, [results])

    own = classification_metrics(validation, handles.CLASSES)["macro_f1"]
    assert evidence.external_drops["b"] == pytest.approx(own - results.tests[1].findings().macro_f1.value)
    assert evidence.external_drops["c"] is None
    # Whatever the test images say.
    other = predictions.assign(**{name: np.eye(3)[0][place] for place, name in enumerate(handles.CLASSES)})
    changed = predictions.where(predictions["split"] == "validation", other)
    monkeypatch.setattr("cxr_tasks.artifacts.TrainedModel.predictions", lambda model: changed)
    again = sys.modules["cxr_tasks.steps.contest"]._evidence(settings, arms[1], 2, [results])
    assert again.external_drops == evidence.external_drops


def test_every_arm_is_told_by_subgroups_of_the_set(begin, sources):
    _, external, _, results, report = _two_arms(begin(), sources)

    women = set(external.table().query("sex == 'F'")["image_id"])
    for test in results.tests:
        told, predicted = test.subgroups(), test.predictions()
        (by_sex,) = [each for each in told.attributes if each.attribute == "sex"]
        assert [(row.subgroup, row.images) for row in by_sex.rows] == [("F", 12), ("M", 24)]
        theirs = predicted[predicted["image_id"].isin(women)]
        right = theirs[handles.CLASSES].idxmax(axis=1) == theirs["label"]
        recall = right.groupby(theirs["label"]).mean().mean()
        assert by_sex.rows[0].balanced_accuracy.value == pytest.approx(recall)
    page = (report.folder() / report.PAGE).read_text()
    assert "External test b: by sex" in page and "External test b: largest gap between subgroups" in page


def _pixels(external: ExternalSet, rows: pd.DataFrame):
    return (external.pixels(row.shard, handles.SIZE)[row.row] for row in rows.itertuples())


def test_a_set_that_was_not_tested_is_missing_from_the_report_with_its_reason(begin, sources):
    run = begin()
    dataset = handles.dataset()
    failed = Failure(step="read_external", label="b", sentence="The table is gone.")

    report = steps.write_report(run, dataset, **NOTHING, failures=[failed])

    assert ("The tests on the external set b", "The table is gone.") in [
        (each.what, each.why) for each in report.missing
    ]


def test_features_of_a_frozen_backbone_are_kept_for_all_arms(begin, sources, small_vgg16, untrained):
    from cxr_tasks.artifacts import Training
    from cxr_tasks.classifiers.feature_store import STEP
    from cxr_tasks.store import open_store

    run = begin()
    dataset = reading.prepare(run, sources["a"]).dataset()
    external = steps.read_external(run, dataset, "b")
    arms = [
        steps.train_arm(run, dataset, Training(classifier="vgg16", arm=arm, seed=0)) for arm in ("none", "classical")
    ]
    before = len(list((open_store().root / STEP).iterdir()))

    results = steps.evaluate_external(run, dataset, external, [arms])

    assert len(list((open_store().root / STEP).iterdir())) == before + 1
    images = external.table()
    asked = arms[1].model.load().predict(np.stack([*_pixels(external, images)])[..., None], verbose=0)
    kept = pd.read_parquet(results.tests[1].folder() / results.tests[1].PREDICTIONS)
    assert np.abs(kept[handles.CLASSES].to_numpy() - asked).max() < 2e-3


@pytest.mark.parametrize(
    ("external", "words"),
    [
        ({"source": "/no/such/place"}, "external set 'b' cannot be used. .*no/such/place"),
        (
            {"folders": {"Sick": "COVID"}, "source": "SICK"},
            r"set 'b' cannot be used. Class 'Normal' has no image",
        ),
        ({"table": TABLE | {"label": "finding"}}, r"external set 'b' cannot be used. .*'finding'"),
    ],
)
def test_a_set_that_cannot_be_read_is_named(begin, sources, tmp_path, external, words):
    shutil.copytree(sources["b"] / "COVID", tmp_path / "sick" / "Sick")
    external = {**external, **({"source": str(tmp_path / "sick")} if external.get("source") == "SICK" else {})}

    with pytest.raises(DataError, match=words):
        steps.read_external(begin(**external), handles.dataset(), "b")


def test_a_set_of_which_nothing_is_left_is_named(begin, sources):
    run = begin(source=str(sources["a"]))
    dataset = reading.prepare(run, sources["a"]).dataset()
    rows = dataset.manifest().assign(split="train")
    dataset = handles.keep(dataset, lambda folder: rows.to_parquet(folder / "manifest.parquet", index=False))

    with pytest.raises(DataError, match=r"Of its 62 images 62 leak, and what is left is of 0 class"):
        steps.read_external(run, dataset, "b")


@pytest.mark.parametrize(
    ("external", "words"),
    [
        ([{"name": "test", "source": "/x"}], "'test' is no name of an external set"),
        ([{"name": "a b", "source": "/x"}], "'a b' is no name of an external set"),
        ([{"name": "b", "source": "s3://me:secret@host/x"}], "the address holds credentials"),
        ([{"name": "b", "source": "/x"}, {"name": "b", "source": "/y"}], "two external sets of the name 'b'"),
        ([{"name": "b", "source": "/x", "classes": ["COVID", "Flu"]}], r"'b' names \['Flu'\]"),
        ([{"name": "b", "source": "/x", "classes": ["COVID"]}], "'b' has one class"),
        ([{"name": "b", "source": "/x", "layout": "niih"}], "no layout 'niih'"),
        ([{"name": "b", "source": "/x", "layout": "nih", "folders": {}}], "one of layout, table and folders"),
    ],
)
def test_settings_of_a_set_that_cannot_be_are_refused_in_a_sentence(external, words):
    with pytest.raises(SettingsError, match=words) as refused:
        resolve("quick", {"data": {"external": external}})

    assert "secret" not in str(refused.value)


def test_a_set_changes_nothing_of_where_a_dataset_is_found():
    with_set = resolve("quick", {"data": {"external": [{"name": "b", "source": "/x"}]}})

    assert _newest(with_set) == _newest(resolve("quick"))


def test_a_set_has_the_table_of_its_layout_or_folders_of_its_own():
    data = resolve("quick", {"data": {"table": TABLE}}).data
    external = [
        {"name": "like", "source": "/x"},
        {"name": "nih", "source": "/x", "layout": "nih"},
        {"name": "folders", "source": "/x", "folders": {"sick": "COVID"}},
    ]
    like, nih, folders = resolve("quick", {"data": {"table": TABLE, "external": external}}).data.external

    assert data.of_source(like).table == data.table
    assert data.of_source(nih).table is not None and data.of_source(nih).table != data.table
    assert data.of_source(folders).table is None and data.of_source(folders).folders == {"sick": "COVID"}


@pytest.mark.slow
def test_a_registered_model_of_another_run_is_tested_as_champion_and_by_hand(sources, store, mlflow_uri, monkeypatch):
    given = settings(source=str(sources["b"]))
    run = steps.configure("cxr_training", "external", {"profile": "quick", "settings": given})
    dataset = reading.prepare(run, sources["a"]).dataset()
    other = handles.tiny_classifier(seed=4)
    with tracking.step_run(run, "a training", "train_arm/other", {}):
        uri = logged_bare(other)
    candidate = Candidate(
        classifier="cnn",
        role="baseline",
        arm="none",
        seed=0,
        validation_macro_f1=1.0,
        artifact="train_arm/other",
        weights_digest="other",
        dataset=dataset.ref,
        classes="|".join(handles.CLASSES),
        model_uri=uri,
        resize=dataset.resize,
    )
    # Tests of other files may have promoted models on the same server.
    with suppress(MlflowException):
        tracking.client().delete_registered_model(OVERALL_MODEL)
    external = steps.read_external(run, dataset, "b")
    with monkeypatch.context() as patch:
        patch.setenv("CXR_MLFLOW", "off")
        arm = handles.trained_arm(run, dataset, "cnn", "none", with_model=True)
    with tracking.step_run(run, "train_arm", "train_arm/own", {}) as run_id:
        model = arm.model.model_copy(update={"mlflow_run_id": run_id})
        arm = arm.model_copy(update={"model": model})
    predictions = arm.model.predictions()
    evidence = Evidence(predictions[predictions["split"] == "validation"])
    gate = Gate.of(resolve("quick", {"gate": {"min_macro_f1": None, "min_recall": None}}))
    settled(OVERALL_MODEL, candidate, lambda: evidence, gate, champion_before)

    results = steps.evaluate_external(run, dataset, external, [[arm]])
    chosen = resolve("quick", given)
    champion = steps.find_model(f"{OVERALL_MODEL}@champion")
    tested, by_hand = steps.tested_on(run, chosen, champion, chosen.data.external[0])

    assert [test.who for test in results.tests] == ["CNN, none, seed 0", f"{OVERALL_MODEL} version 1"]
    metrics, found = tracking.client().get_run(run_id).data.metrics, results.tests[0].findings()
    assert metrics["b_macro_f1"] == pytest.approx(found.macro_f1.value) and metrics["b_images"] == 36
    assert metrics["b_macro_f1_drop_low"] == pytest.approx(found.macro_f1_drop.low)
    told = results.tests[0].subgroups().attributes[0].rows[0]
    assert metrics["b_subgroup_sex_F_balanced_accuracy_low"] == pytest.approx(told.balanced_accuracy.low)
    assert "b-subgroups.json" in {file.path for file in tracking.client().list_artifacts(run_id)}
    assert results.champion == f"{OVERALL_MODEL} version 1"
    assert "drop is not known" in by_hand.remark and "trained on are not known" not in by_hand.remark
    assert tested.ref == external.ref and by_hand.ref == results.tests[1].ref
    assert by_hand.findings().images == 36 and by_hand.findings().macro_f1_drop is None
    for name in (f"models:/{OVERALL_MODEL}/1", f"models:/{OVERALL_MODEL}@champion"):
        assert steps.find_model(name).who == f"{OVERALL_MODEL} version 1"
    for name in (f"models:/{OVERALL_MODEL}/9", "nothing@champion", "models:/m-0123"):
        with pytest.raises(UserError, match="MLflow has no model"):
            steps.find_model(name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("train_arm/0123", "The store has no training 'train_arm/0123'"),
        ("cxr-overall@champion", "name its server with --mlflow"),
    ],
)
def test_a_model_that_is_not_there_is_named(untracked, name, words):
    with pytest.raises(UserError, match=words):
        steps.find_model(name)
