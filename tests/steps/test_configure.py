"""The beginning of a run: settings are resolved once, and the dataset is announced, named, or the newest."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from cxr_tasks import steps
from cxr_tasks.errors import DataError, SettingsError
from cxr_tasks.pipeline import load_settings
from tests.steps import handles

FORM: dict[str, Any] = {"profile": "quick", "settings": handles.SMALL}

pytestmark = pytest.mark.usefixtures("untracked")


@dataclass(frozen=True)
class Event:
    """What Airflow tells of an asset."""

    timestamp: int
    extra: dict[str, Any] = field(default_factory=dict)


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


@pytest.mark.parametrize("events", [None, [], [Event(1)]])
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
