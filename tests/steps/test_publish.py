"""The step ``publish``: what is news is published with what has changed, and a training finds it."""

import shutil
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import mlflow
import pytest
from PIL import Image

from cxr_tasks import steps
from cxr_tasks.artifacts import Dataset, RunContext
from cxr_tasks.data.ingest import MANIFEST
from cxr_tasks.errors import DataError
from cxr_tasks.overview.published import DATASET_FILE, PublishedData
from cxr_tasks.pipeline import is_forced, load_settings
from cxr_tasks.steps.publish import is_owed, note_begun
from cxr_tasks.store import open_store
from tests.steps.handles import begin as begin_training
from tests.steps.handles import prepared
from tests.steps.reading import FORM, prepare, read, rows_of

# ``steps.publish`` is the step of this module.
publish = sys.modules["cxr_tasks.steps.publish"]
CHANGE = "1 added (Normal 1), 1 removed (COVID 1), 1 relabelled (Normal 1), 1 replaced (Normal 1)"


def change(source):
    """One file of each kind of change."""
    Image.radial_gradient("L").save(source / "Normal/images/new.png")
    (source / "COVID/images/COVID-3.png").unlink()
    (source / "COVID/images/COVID-4.png").rename(source / "Normal/images/moved.png")
    Image.linear_gradient("L").save(source / "Normal/images/Normal-5.png")


def test_unchanged_data_publish_once_and_take_every_artifact(begin, source):
    first, second = begin("one"), begin("two")
    published = steps.publish(first, *prepare(first, source))
    scanned, shards = read(second, source)
    again = prepare(second, source)

    assert published.notes == (f"dataset {published.version}: the first of these settings, 136 images",)
    assert len(shards) == 4 and all(handle.reused for handle in (scanned, *shards, again.divided))
    note_begun(first, published)
    assert steps.publish(second, *again) is None
    assert steps.find_dataset(second).ref == published.ref


def test_what_was_added_removed_relabelled_and_replaced_is_said(begin, source):
    first, second = begin("one"), begin("two")
    before = prepare(first, source).divided
    steps.publish(first, *prepare(first, source))
    change(source)

    after = prepare(second, source)
    published = steps.publish(second, *after)

    assert published.notes == (f"dataset {published.version}: {CHANGE}",)
    assert after.divided.version != before.version
    old, new = rows_of(before), rows_of(after.divided)
    stayed = new.index.intersection(old.index[old["image_id"].isin(new["image_id"])])
    assert len(stayed) == 133 and (new.loc[stayed, "split"] == old.loc[stayed, "split"]).all()


def test_another_mask_is_another_dataset_of_the_same_images(begin, source):
    first, second = begin("one"), begin("two")
    before = steps.publish(first, *prepare(first, source))
    shutil.copyfile(source / "COVID/masks/COVID-2.png", source / "COVID/masks/COVID-1.png")

    _, shards = read(second, source)
    after = steps.publish(second, *prepare(second, source))

    assert sorted(shard.reused for shard in shards) == [False, True, True, True]
    assert after.notes[0].endswith("other groups, splits or masks of the same images")
    assert after.version != before.version
    assert (rows_of(after)["split"] == rows_of(before)["split"]).all()


@pytest.mark.slow
def test_the_run_says_what_changed_on_a_server(store, new_run: Callable[..., RunContext], source):
    settings = steps.configure("cxr_data", "settings", FORM).settings
    first, second = new_run(settings=settings), new_run(settings=settings)
    steps.publish(first, *prepare(first, source))
    change(source)

    steps.publish(second, *prepare(second, source))

    runs = [mlflow.MlflowClient().get_run(run.mlflow_run_id) for run in (first, second)]
    said = [run.data.tags["cxr.changes"] for run in runs]
    assert said == ["the first of these settings, 136 images", CHANGE]
    assert runs[1].data.metrics["images_relabelled"] == 1
    kept = mlflow.artifacts.load_text(f"runs:/{second.mlflow_run_id}/{DATASET_FILE}")
    published = PublishedData.model_validate_json(kept)
    assert published.version == runs[1].data.tags["cxr.dataset"]
    assert published.splits == ["train", "validation", "test"]
    text = mlflow.artifacts.load_text(f"runs:/{second.mlflow_run_id}/changes.csv")
    # Without paths, which may name patients.
    assert "relabelled,Normal,COVID" in text


# From here on, of artifacts that are there already.


@pytest.fixture
def runs(untracked) -> list[RunContext]:
    return [begin_training().model_copy(update={"dag_run": name}) for name in ("first", "second", "third")]


def test_a_dataset_names_all_that_training_needs(runs):
    given = prepared(warnings=("too few",))

    dataset = steps.publish(runs[0], *given)

    assert dataset.model_copy(update={"notes": ()}) == given.dataset()
    assert (dataset.ref, dataset.made_by) == (given.divided.ref, given.divided.made_by)
    assert (dataset.version, dataset.counts) == (given.divided.version, given.divided.counts)
    assert (dataset.shards, dataset.source) == (given.joined.shards, "/data/phantoms")
    assert dataset.warnings == ("too few",) and not dataset.forced
    assert Dataset.model_validate(dataset.model_dump(mode="json")) == dataset


def test_a_run_names_a_version_or_takes_the_newest(runs):
    old = steps.publish(runs[0], *prepared(seed=0))
    new = steps.publish(runs[1], *prepared(seed=1))

    assert steps.find_dataset(runs[2]).ref == new.ref
    assert steps.find_dataset(runs[2], old.version).ref == old.ref
    for version in ("nothing", "../old", "dataset-versions/" + old.version):
        with pytest.raises(DataError, match=f"Dataset '{version}' does not exist"):
            steps.find_dataset(runs[2], version)


def test_a_version_with_other_classes_is_refused(runs):
    old = steps.publish(runs[0], *prepared())
    fewer = begin_training({"data": {"classes": ["COVID", "Normal"]}, "synthetic": {"counts": "balance"}})

    with pytest.raises(
        DataError, match="has the classes COVID, Normal, Viral Pneumonia, and the settings COVID, Normal"
    ):
        steps.find_dataset(fewer, old.version)


@pytest.mark.parametrize("other", [{"seeds": {"split": 1}}, {"data": {"split": {"test": 0.2}}}])
def test_the_newest_dataset_is_that_of_the_data_settings(runs, other):
    steps.publish(runs[0], *prepared())

    assert steps.find_dataset(begin_training({"seeds": {"gan": 1}, "data": {"shard_images": 7}}))
    with pytest.raises(DataError, match="run cxr_data with this profile first"):
        steps.find_dataset(begin_training(other))


def test_no_dataset_yet_says_what_to_run(runs):
    with pytest.raises(DataError, match="run cxr_data with this profile first"):
        steps.find_dataset(runs[0])


def test_a_retry_of_the_run_that_published_publishes_the_same_news(runs):
    steps.publish(runs[0], *prepared(seed=0))
    given = prepared(seed=1)

    news, again = (steps.publish(runs[1], *given) for _ in range(2))

    assert news == again
    each = "(COVID 20, Normal 20, Viral Pneumonia 20)"
    assert news.notes == (f"dataset {news.version}: 60 added {each}, 60 removed {each}",)


def test_a_training_is_owed_until_one_has_begun_and_the_same_data_announce_it_again(runs):
    steps.publish(runs[0], *prepared(seed=0))
    given = prepared(seed=1)
    news = steps.publish(runs[1], *given)

    # The announcement of the run before was lost, by a killed task, say, or because cxr_training was paused.
    again = steps.publish(runs[2], *given)

    assert again == news and is_owed(runs[2], news)
    note_begun(runs[2], news)
    assert steps.publish(runs[0], *given) is None


def test_a_training_on_an_older_dataset_is_not_the_one_that_is_owed(runs):
    old = steps.publish(runs[0], *prepared(seed=0))
    given = prepared(seed=1)
    new = steps.publish(runs[1], *given)

    note_begun(runs[2], old)

    assert is_owed(runs[0], new) and not is_owed(runs[0], old)
    assert steps.publish(runs[2], *given) is not None


def test_data_that_were_there_before_are_news_again_and_their_training_is_owed(runs):
    first, second = prepared(seed=0), prepared(seed=1)
    note_begun(runs[0], steps.publish(runs[0], *first))
    note_begun(runs[1], steps.publish(runs[1], *second))

    back = steps.publish(runs[2], *first)

    assert back is not None and is_owed(runs[2], back)
    assert steps.publish(runs[1], *first) is not None


def test_a_dataset_made_anew_does_not_force_later_runs(runs):
    given = prepared()
    forced = given._replace(divided=given.divided.model_copy(update={"forced": True}))

    steps.publish(runs[0], *forced)

    assert not is_forced(runs[1], "train_gan", {"dataset": steps.find_dataset(runs[1])})


def at_once(calls):
    """What each of ``calls`` returns, of which all have begun before any goes on."""
    together = threading.Barrier(len(calls))

    def begun(call):
        together.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(begun, calls))


def slowly(call):
    """``call`` as it is on a slow server: others may come between what was read and what is written."""

    def late(*given, **named):
        found = call(*given, **named)
        time.sleep(0.1)
        return found

    return late


def test_of_runs_that_ask_at_once_the_training_that_is_owed_begins_once(runs, monkeypatch):
    dataset = steps.publish(runs[0], *prepared())
    monkeypatch.setattr(publish, "is_owed", slowly(is_owed))

    begun = at_once([partial(note_begun, run, dataset, only_if_owed=True) for run in runs[1:]])

    assert sorted(begun) == [False, True]


def test_of_runs_that_publish_at_once_none_overlooks_the_other(runs, monkeypatch):
    given = [prepared(seed=seed) for seed in (0, 1)]
    monkeypatch.setattr(publish, "_log_changes", slowly(publish._log_changes))

    made = at_once([partial(steps.publish, run, *each) for run, each in zip(runs, given, strict=False)])

    newest = open_store().read_pointer(publish._newest(load_settings(runs[0])))
    assert {newest["dataset"]["ref"], newest["base"]} == {dataset.ref for dataset in made}
    assert sum("the first of these settings" in dataset.notes[0] for dataset in made) == 1


def test_the_tag_of_a_dataset_is_set_after_the_pointer_that_it_speaks_of(runs, monkeypatch):
    def note(tags, run_id):
        assert steps.find_dataset(runs[1], tags["cxr.dataset"]).version == tags["cxr.dataset"]
        seen.append(tags)

    seen = []
    monkeypatch.setattr(publish.tracking, "set_tags", note)

    steps.publish(runs[0], *prepared())

    assert len(seen) == 1


def test_a_damaged_dataset_before_it_hinders_no_publication(begin, source):
    first, second = begin("one"), begin("two")
    before = prepare(first, source)
    steps.publish(first, *before)
    (before.divided.folder() / MANIFEST).unlink()
    change(source)

    published = steps.publish(second, *prepare(second, source))

    assert "what has changed is not known" in published.notes[0]
    assert steps.find_dataset(second).version == published.version
