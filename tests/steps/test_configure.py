"""The beginning of a run: settings are resolved once, and the dataset is announced, named, or the newest."""

import logging
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_tasks import steps
from cxr_tasks.artifacts import Dataset
from cxr_tasks.config import resolve
from cxr_tasks.errors import DataError, SettingsError
from cxr_tasks.estimate.rates import Rate, keep_rates
from cxr_tasks.estimate.work import ImageCounts, PlannedRun
from cxr_tasks.filled_form import read_form
from cxr_tasks.pipeline import load_settings
from tests.steps import handles

FORM: dict[str, Any] = {"profile": "quick", "settings": handles.SMALL}

pytestmark = pytest.mark.usefixtures("untracked")


@dataclass(frozen=True)
class Event:
    """What Airflow tells of an asset."""

    timestamp: int
    extra: Any = field(default_factory=dict)


def announced(timestamp: int, dataset: Any, **form: Any) -> Event:
    return Event(timestamp, {"dataset": dataset.model_dump(mode="json"), "form": FORM | form})


def test_settings_are_resolved_once_and_kept_under_their_content() -> None:
    first, again = (steps.configure("cxr_data", name, FORM) for name in ("one", "two"))
    other = steps.configure("cxr_data", "one", {**FORM, "gan_epochs": 7})

    assert first.settings == again.settings != other.settings
    assert load_settings(first).gan.image_size == 32 and load_settings(other).gan.epochs == 7
    assert (first.dag_run, again.dag_run) == ("one", "two")


def test_steps_to_make_anew_are_those_of_the_form() -> None:
    assert steps.configure("cxr_data", "one", {**FORM, "force": ["scan", "split"]}).force == ("scan", "split")
    assert steps.configure("cxr_data", "one", {**FORM, "force": None}).force == ()


def test_a_run_that_is_not_tracked_has_no_experiment_and_no_address() -> None:
    run = steps.configure("cxr_data", "one", FORM)

    assert (run.experiment_id, run.mlflow_run_id, run.url) == ("", "", "")


def test_what_is_wrong_with_the_form_is_said_by_name() -> None:
    with pytest.raises(SettingsError, match=r"gan\.epochs: "):
        steps.configure("cxr_data", "one", {**FORM, "gan_epochs": 0})


def test_a_training_that_was_announced_takes_the_newest_dataset_and_its_form() -> None:
    old, new = handles.dataset(seed=0), handles.dataset(seed=1)
    events = [announced(2, new, gan_epochs=7), Event(3), announced(1, old, gan_epochs=5)]

    begun = steps.begin_training("one", {**FORM, "gan_epochs": 3, "force": ["train_gan"]}, events)

    assert begun["dataset"] == new and load_settings(begun["run"]).gan.epochs == 7
    assert begun["run"].force == ("train_gan",)


@pytest.mark.parametrize("known", [True, False])
def test_the_log_of_a_training_says_how_long_it_takes_where_that_was_measured(
    known, monkeypatch, tmp_path, caplog
) -> None:
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))
    dataset = handles.dataset()
    work = PlannedRun(resolve("quick", handles.SMALL), ImageCounts.of_splits(dataset.counts))
    if known:
        keep_rates({name: Rate(0.5, 1.0, 2**30) for name in work.rates_needed()}, work.settings, work.drawn)

    with caplog.at_level(logging.INFO, "cxr_tasks.steps.begin_training"):
        steps.begin_training("one", FORM, [announced(1, dataset)])

    told = [record.message for record in caplog.records if record.name.endswith("begin_training")]
    assert len(told) == 1
    assert told[0].startswith("About " if known else "How long this takes is not known here: cxr estimate measures it.")


UNTOLD = [None, [], [Event(1)], [Event(1, None)], [Event(1, {"from_rest_api": True})]]


@pytest.mark.parametrize("events", UNTOLD)
def test_a_training_that_nothing_announced_takes_the_newest_dataset(events: list[Event] | None) -> None:
    published = steps.publish(handles.begin(), *handles.prepared())

    begun = steps.begin_training("one", FORM, events)

    assert begun["dataset"] == published.model_copy(update={"notes": ()})
    assert load_settings(begun["run"]).gan.epochs == 8


def test_a_training_may_name_the_version_of_its_dataset() -> None:
    run = handles.begin()
    old, new = (steps.publish(run.model_copy(update={"dag_run": n}), *handles.prepared(seed=int(n))) for n in "01")

    assert steps.begin_training("one", {**FORM, "dataset": old.version}, None)["dataset"].ref == old.ref
    assert steps.begin_training("one", {**FORM, "dataset": ""}, None)["dataset"].ref == new.ref
    with pytest.raises(DataError, match="does not exist"):
        steps.begin_training("one", {**FORM, "dataset": "unknown"}, None)


def test_an_event_may_tell_a_version_alone_or_a_form_alone() -> None:
    run = handles.begin()
    old, new = (steps.publish(run.model_copy(update={"dag_run": n}), *handles.prepared(seed=int(n))) for n in "01")
    assert old is not None and new is not None

    of_version = steps.begin_training("one", FORM, [Event(1, {"dataset": old.version})])
    of_form = steps.begin_training("two", FORM, [Event(1, {"form": FORM | {"gan_epochs": 7}})])
    without_form = steps.begin_training("three", FORM, [Event(1, {"dataset": old.model_dump(mode="json")})])

    assert of_version is not None and of_form is not None and without_form is not None
    assert (of_version["dataset"].ref, of_form["dataset"].ref, without_form["dataset"]) == (old.ref, new.ref, old)
    assert load_settings(of_form["run"]).gan.epochs == 7 and load_settings(without_form["run"]).gan.epochs == 8


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"datset": "1"}, "tells 'datset'.*did you mean 'dataset'"),
        ({"dataset": 7}, "to tell a dataset's version, or nothing, and not int 7"),
        ({"form": "quick"}, "tells the form 'quick': give an object"),
        ({"form": {"clasifiers": ["cnn"]}}, "no field 'clasifiers': did you mean 'classifiers'"),
        ({"form": {"force": ["trian_arm"]}}, "names 'trian_arm', which is no step: did you mean 'train_arm'"),
    ],
)
def test_an_event_that_is_wrong_gets_one_sentence(extra: Any, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        steps.begin_training("one", FORM, [Event(1, extra)])


def test_what_the_form_leaves_out_is_what_it_holds_at_first() -> None:
    run = steps.configure("cxr_training", "one", {})

    assert load_settings(run) == resolve("quick") and run.force == ()
    assert steps.configure("cxr_training", "one", {"profile": None, "settings": None, "dataset": None}) == run


def test_settings_may_be_json_text() -> None:
    run = steps.configure("cxr_data", "one", {"profile": "quick", "settings": '{"gan": {"epochs": 7}}'})

    assert load_settings(run).gan.epochs == 7
    assert load_settings(steps.configure("cxr_data", "one", {"settings": ""})) == resolve("quick")


WRONG = [
    ({"gan_epoch": 3}, "The form has no field 'gan_epoch': did you mean 'gan_epochs'?"),
    ({"Force": ["scan"]}, "The form has no field 'Force': did you mean 'force'?"),
    ({"zzz": 1}, "The form has no field 'zzz': choose one of "),
    ({"dataset": "1"}, "The form has no field 'dataset'"),
    ({"force": "train_arm"}, "The field 'force' of the form is to be a list of steps"),
    ({"force": ["train_arms"]}, "'train_arms', which is no step: did you mean 'train_arm'?"),
    ({"force": [["train_arm"]]}, "which is no step"),
    ({"settings": "{gan"}, "The field 'settings' of the form is to be an object"),
    ({"settings": "[1]"}, "The field 'settings' of the form is to be an object"),
    ({"settings": ["gan"]}, "The field 'settings' of the form is to be an object"),
    ({"profile": 3}, "The field 'profile' of the form is to be a text, and not 3."),
    ({"profile": "quik"}, "Profile 'quik' does not exist: "),
    ({"source": ["a"]}, "The field 'source' of the form is to be a text"),
    ({"gan_epochs": "many"}, "gan.epochs: "),
    ({"classifiers": "cnn"}, "classifiers.names: "),
    ({"seeds": ["x"]}, "seeds.classifiers.0: "),
    ({"reproduce_leak": "perhaps"}, "evaluation.reproduce_leak: "),
    ({"settings": {"gann": {"epochs": 3}}}, "gann: there is no such setting, did you mean 'gan'?"),
    ({"settings": {"gan": {"epohcs": 3}}}, "gan.epohcs: there is no such setting, did you mean 'epochs'?"),
    ({"settings": {"epochs": 3}}, "epochs: there is no such setting, did you mean classifiers.epochs or gan.epochs?"),
    ({"settings": {"gan": 3}}, "gan: "),
    ({"settings": {"gpu": {"steps": []}}}, "The section gpu is not for one run"),
]


@pytest.mark.parametrize(("form", "words"), WRONG)
def test_a_form_that_is_wrong_gets_one_sentence_that_names_what_was_meant(form: Any, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        steps.configure("cxr_data", "one", {"profile": "quick"} | form)

    assert words in str(caught.value) and "\n" not in str(caught.value)


@given(st.dictionaries(st.text(max_size=12), st.integers() | st.text(max_size=9) | st.lists(st.integers()), max_size=3))
def test_whatever_a_form_holds_it_is_taken_or_refused_in_words(form: dict[str, Any]) -> None:
    try:
        read_form("cxr_training", form)
    except SettingsError as error:
        assert str(error)


def test_what_is_owed_begins_once_and_where_it_is_the_newest() -> None:
    run = handles.begin()
    old, new = (steps.publish(run.model_copy(update={"dag_run": n}), *handles.prepared(seed=int(n))) for n in "01")
    assert old is not None and new is not None

    def begin_owed(name: str, dataset: Dataset) -> Any:
        return steps.begin_training(name, {**FORM, "dataset": dataset.version}, None, only_if_owed=True)

    assert begin_owed("owed one", old) is None
    assert begin_owed("owed two", new)["dataset"].ref == new.ref
    # Its own retry goes on; nobody else begins again.
    assert begin_owed("owed two", new) is not None and begin_owed("owed three", new) is None
