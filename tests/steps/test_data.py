"""The data steps one after the other, on phantoms, with a real MLflow server: what is read, published, and said."""

import os
import shutil

import mlflow
import pandas as pd
import pytest
from PIL import Image

from cxr_tasks import steps
from cxr_tasks.config import resolve
from cxr_tasks.data.ingest import CHANGED, MANIFEST
from cxr_tasks.data.scan import VANISHED
from cxr_tasks.errors import DataError
from cxr_tasks.execution import is_forced

SETTINGS = {
    "data": {"min_images_per_class": 10, "shard_images": 50, "max_rejected_fraction": 0.1},
    "classifiers": {"image_size": 32},
    "gan": {"image_size": 32},
}


@pytest.fixture
def begin(store, new_run):
    """Begins a DAG run with the settings above."""
    settings = resolve("quick", SETTINGS)
    with store.publish("settings/one", {}) as folder:
        (folder / "settings.json").write_text(settings.model_dump_json())
    return lambda **options: new_run(settings="settings/one", **options)


@pytest.fixture
def source(phantoms, tmp_path):
    """A phantom data set of the test's own."""
    return shutil.copytree(phantoms, tmp_path / "source")


def read(run, source):
    scanned = steps.scan(run, str(source))
    return scanned, [steps.ingest(run, scanned, shard) for shard in steps.shards(run, scanned)]


def prepare(run, source):
    scanned, shards = read(run, source)
    joined = steps.manifest(run, scanned, shards)
    return steps.split(run, joined, steps.validate(run, joined))


def manifest(store, result):
    return pd.read_parquet(store.fetch(result["ref"]) / MANIFEST).set_index("path")


def changes(run):
    return mlflow.MlflowClient().get_run(run["mlflow_run_id"]).data.tags["cxr.changes"]


def test_unchanged_data_publish_once_and_take_every_artifact(begin, source):
    first, second = begin(), begin()
    published = steps.publish(first, prepare(first, source))
    scanned, shards = read(second, source)
    again = prepare(second, source)

    assert changes(first) == "the first of these settings, 136 images"
    assert len(shards) == 4 and all(result["reused"] for result in (scanned, *shards, again))
    assert steps.publish(second, again) is None
    assert steps.find_dataset(second)["ref"] == published["ref"]


def test_a_touched_file_is_hashed_again_and_changes_nothing(begin, source):
    first, second = begin(), begin()
    dataset = prepare(first, source)
    os.utime(source / "COVID/images/COVID-1.png", (1, 1))

    again = prepare(second, source)

    assert again["reused"] and again["ref"] == dataset["ref"]


def test_what_was_added_removed_relabelled_and_replaced_is_said(begin, source, store):
    first, second = begin(), begin()
    before = prepare(first, source)
    steps.publish(first, before)
    Image.radial_gradient("L").save(source / "Normal/images/new.png")
    (source / "COVID/images/COVID-3.png").unlink()
    (source / "COVID/images/COVID-4.png").rename(source / "Normal/images/moved.png")
    Image.linear_gradient("L").save(source / "Normal/images/Normal-5.png")

    after = prepare(second, source)
    published = steps.publish(second, after)

    said = "1 added (Normal 1), 1 removed (COVID 1), 1 relabelled (Normal 1), 1 replaced (Normal 1)"
    assert changes(second) == said and said in published["summary"]["notes"][0]
    assert after["summary"]["version"] != before["summary"]["version"]
    text = mlflow.artifacts.load_text(f"runs:/{second['mlflow_run_id']}/changes.csv")
    assert "relabelled,Normal/images/moved.png,Normal,COVID" in text
    old, new = manifest(store, before), manifest(store, after)
    stayed = new.index.intersection(old.index[old["image_id"].isin(new["image_id"])])
    assert len(stayed) == 133 and (new.loc[stayed, "split"] == old.loc[stayed, "split"]).all()


def test_only_the_shard_of_a_new_file_is_read_again(begin, source):
    first, second = begin(), begin()
    read(first, source)
    Image.radial_gradient("L").save(source / "Normal/images/new.png")

    _, shards = read(second, source)

    assert sorted(result["reused"] for result in shards) == [False, True, True, True]


def test_a_run_names_a_version_or_takes_the_newest(begin, source, store):
    first, second = begin(), begin()
    old = steps.publish(first, prepare(first, source))
    (source / "COVID/images/COVID-3.png").unlink()
    new = steps.publish(second, prepare(second, source))

    assert steps.find_dataset(second)["ref"] == new["ref"]
    assert steps.find_dataset(second, old["summary"]["version"])["ref"] == old["ref"]
    with pytest.raises(DataError, match="Dataset 'nothing' does not exist"):
        steps.find_dataset(second, "nothing")
    fewer = resolve(
        "quick",
        SETTINGS | {"data": SETTINGS["data"] | {"classes": ["COVID", "Normal"]}, "synthetic": {"counts": "balance"}},
    )
    with store.publish("settings/fewer", {}) as folder:
        (folder / "settings.json").write_text(fewer.model_dump_json())
    with pytest.raises(
        DataError, match="has the classes COVID, Normal, Viral Pneumonia, and the settings COVID, Normal"
    ):
        steps.find_dataset({**second, "settings": "settings/fewer"}, old["summary"]["version"])


def test_no_dataset_yet_says_what_to_run(begin):
    with pytest.raises(DataError, match="run cxr_data with this profile first"):
        steps.find_dataset(begin())


def test_a_retry_of_the_run_that_published_publishes_the_same_news(begin, source):
    run, second = begin(), begin()
    steps.publish(run, prepare(run, source))
    (source / "COVID/images/COVID-3.png").unlink()
    dataset = prepare(second, source)

    assert steps.publish(second, dataset) == steps.publish(second, dataset)
    assert changes(second) == "1 removed (COVID 1)"


def test_a_dataset_made_anew_does_not_force_later_runs(begin, source):
    first, second = begin(force=["scan"]), begin()
    dataset = prepare(first, source)
    steps.publish(first, dataset)

    assert dataset["forced"]
    assert not is_forced(second, "train_gan", {"dataset": steps.find_dataset(second)})


def test_files_that_vanish_or_change_after_the_scan_are_set_aside_and_come_back(begin, source, store):
    first, second = begin(), begin()
    whole = (source / "COVID/images/COVID-2.png").read_bytes()
    scanned = steps.scan(first, str(source))
    (source / "COVID/images/COVID-2.png").unlink()
    (source / "Normal/images/Normal-2.png").write_bytes(whole)

    shards = [steps.ingest(first, scanned, shard) for shard in steps.shards(first, scanned)]
    rows = manifest(store, steps.manifest(first, scanned, shards))
    assert rows.at["COVID/images/COVID-2.png", "reason"] == VANISHED
    assert rows.at["Normal/images/Normal-2.png", "reason"] == CHANGED

    (source / "COVID/images/COVID-2.png").write_bytes(whole)
    (source / "Normal/images/Normal-2.png").unlink()
    rows = manifest(store, prepare(second, source))
    assert rows.at["COVID/images/COVID-2.png", "status"] == "used"
    assert "Normal/images/Normal-2.png" not in rows.index


def test_a_scan_with_unreadable_files_is_made_anew(begin, source):
    first, second = begin(), begin()
    (source / "COVID/images/link.png").symlink_to("nowhere.png")

    assert not steps.scan(first, str(source))["reused"]
    assert not steps.scan(second, str(source))["reused"]


def test_too_many_rejects_stop_the_run_with_the_numbers_and_the_folder(begin, source, store):
    run = begin()
    for number in range(1, 16):
        (source / f"COVID/images/COVID-{number}.png").write_bytes(b"no image")
    scanned, shards = read(run, source)
    joined = steps.manifest(run, scanned, shards)

    with pytest.raises(DataError) as caught:
        steps.validate(run, joined)

    folder = store.root / joined["ref"] / "rejects"
    assert "rejected fraction: expected at most 0.1, found 0.110294" in str(caught.value)
    assert str(folder) in str(caught.value)
    assert len(list(folder.rglob("*.png"))) == 15


def test_a_few_rejects_and_late_patient_numbers_cost_those_images_alone(begin, source, store):
    first, second = begin(), begin()
    (source / "COVID/images/COVID-1.png").write_bytes(b"no image")
    before = manifest(store, prepare(first, source))
    assert before.at["COVID/images/COVID-1.png", "reason"] == "the file is not an image"
    assert (before["split"] == "").sum() == 1

    trained, tested = (
        before.index[(before["split"] == s) & (before["label"] == "Normal")][0] for s in ("train", "test")
    )
    table = pd.read_csv(source / "Normal.metadata.csv")
    names = [path.split("/")[-1].removesuffix(".png") for path in (trained, tested)]
    table.loc[table["FILE NAME"].isin(names), "PATIENT"] = "the same"
    table.to_csv(source / "Normal.metadata.csv", index=False)
    result = prepare(second, source)

    after = manifest(store, result)
    assert after.at[trained, "split"] == "train" and after.at[tested, "split"] == ""
    assert result["summary"]["notes"] == [f"left out {tested}: {after.at[tested, 'reason']}"]


def test_files_of_no_class_are_not_read_and_masks_are_no_images(begin, source, store):
    rows = manifest(store, prepare(begin(), source))

    assert not rows.index.str.contains("masks|Lung_Opacity").any() and len(rows) == 136
    assert rows["mask"].all()


def test_another_mask_is_another_dataset_of_the_same_images(begin, source, store):
    first, second = begin(), begin()
    before = steps.publish(first, prepare(first, source))
    shutil.copyfile(source / "COVID/masks/COVID-2.png", source / "COVID/masks/COVID-1.png")

    _, shards = read(second, source)
    after = steps.publish(second, prepare(second, source))

    assert sorted(result["reused"] for result in shards) == [False, True, True, True]
    assert changes(second) == "other groups, splits or masks of the same images"
    assert after["summary"]["version"] != before["summary"]["version"]
    assert (manifest(store, after)["split"] == manifest(store, before)["split"]).all()


def test_a_mask_that_changes_after_the_scan_is_left_out_and_comes_back(begin, source, store):
    first, second = begin(), begin()
    scanned = steps.scan(first, str(source))
    (source / "COVID/masks/COVID-1.png").unlink()
    shutil.copyfile(source / "COVID/masks/COVID-3.png", source / "COVID/masks/COVID-2.png")

    shards = [steps.ingest(first, scanned, shard) for shard in steps.shards(first, scanned)]
    rows = manifest(store, steps.manifest(first, scanned, shards))
    changed = ["COVID/images/COVID-1.png", "COVID/images/COVID-2.png"]
    assert rows.index[~rows["mask"]].tolist() == changed and (rows.loc[changed, "status"] == "used").all()
    assert sum(result["summary"]["unusable_masks"] for result in shards) == 2

    assert manifest(store, prepare(second, source))["mask"].sum() == 135


def test_a_mask_that_cannot_be_read_is_looked_for_again(begin, source, caplog):
    first, second = begin(), begin()
    (source / "COVID/masks/COVID-1.png").unlink()
    (source / "COVID/masks/COVID-1.png").symlink_to("nowhere.png")

    _, shards = read(first, source)

    assert "the mask of COVID/images/COVID-1.png is not used: the file cannot be read" in caplog.text
    assert sum(result["summary"]["masks"] for result in shards) == 135
    assert not steps.scan(second, str(source))["reused"]
