"""A training that is queued while ``cxr_training`` is paused: whatever comes between, the newest data train once."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest

from cxr_tasks import steps
from cxr_tasks.artifacts import Dataset, RunContext
from cxr_tasks.pipeline import load_settings
from tests.steps import handles

FORM: dict[str, Any] = {"profile": "quick", "settings": handles.SMALL}
SEEDS = {"A": 0, "B": 1}

pytestmark = pytest.mark.usefixtures("untracked")


@dataclass(frozen=True)
class Event:
    """What Airflow tells of an asset."""

    extra: Any
    timestamp: int = 1


class Airflow:
    """Both DAGs as far as they publish and begin, with a cxr_training that may be paused.

    Attributes:
        queued: The runs that wait: their ids and their forms.
        trained: What trained, in order: the data, and the epochs of the GAN.
    """

    def __init__(self) -> None:
        self.numbers = count()
        self.queued: list[tuple[str, dict[str, Any]]] = []
        self.trained: list[tuple[str, int]] = []

    def publish(self, data: str) -> tuple[RunContext, Dataset | None]:
        """Run cxr_data up to its announcement."""
        run = handles.begin().model_copy(update={"dag_run": f"data {next(self.numbers)}"})
        return run, steps.publish(run, *handles.prepared(seed=SEEDS[data]))

    def queue(self, run: RunContext, dataset: Dataset, epochs: int = 8) -> None:
        """What the task queue_training does where no event is heard."""
        dag_run, form = f"owed {next(self.numbers)}", {**FORM, "gan_epochs": epochs}
        steps.note_queued(run, dataset, {"dag_run": dag_run, "form": form})
        self.queued.append((dag_run, {**form, "dataset": dataset.version}))

    def paused(self, data: str, epochs: int = 8) -> None:
        """Run cxr_data while cxr_training is paused."""
        run, dataset = self.publish(data)
        if dataset is not None:
            self.queue(run, dataset, epochs)

    def unpaused(self, data: str, epochs: int = 8) -> None:
        """Run cxr_data while cxr_training is not paused."""
        dataset = self.publish(data)[1]
        if dataset is not None:
            self.hear(dataset, epochs)

    def hear(self, dataset: Dataset, epochs: int = 8) -> None:
        """Let the event start its run."""
        extra = {"dataset": dataset.model_dump(mode="json"), "form": {**FORM, "gan_epochs": epochs}}
        self.begin(f"asset {next(self.numbers)}", {}, [Event(extra)])

    def let_go_on(self, *, backwards: bool = False) -> None:
        """Un-pause: the runs that wait begin, in any order."""
        for dag_run, form in self.queued[::-1] if backwards else self.queued:
            self.begin(dag_run, form, None)
        self.queued.clear()

    def begin(self, dag_run: str, form: dict[str, Any], events: list[Event] | None) -> bool:
        """Run the first task of cxr_training."""
        begun = steps.begin_training(dag_run, form, events, only_if_owed=dag_run.startswith("owed"))
        if begun is not None:
            version = begun["dataset"].version
            data = next(name for name, seed in SEEDS.items() if version.startswith(f"{seed:02d}"))
            self.trained.append((data, load_settings(begun["run"]).gan.epochs))
        return begun is not None


@pytest.fixture
def airflow() -> Airflow:
    return Airflow()


@pytest.mark.parametrize("backwards", [False, True], ids=["oldest first", "newest first"])
@pytest.mark.parametrize("order", ["A", "AA", "AB", "ABA", "ABAB", "AABBA"])
def test_of_all_that_waits_the_newest_data_train_once(airflow: Airflow, order: str, backwards: bool) -> None:
    for epochs, data in enumerate(order, start=1):
        airflow.paused(data, epochs)

    airflow.let_go_on(backwards=backwards)

    assert airflow.trained == [(order[-1], len(order))]


@pytest.mark.parametrize("first", ["AB", "ABA"])
def test_data_that_trained_long_ago_train_again_when_they_are_the_newest_again(airflow: Airflow, first: str) -> None:
    for data in first:
        airflow.paused(data)
    airflow.let_go_on()
    airflow.unpaused("B" if first[-1] == "A" else "A")
    airflow.trained.clear()

    airflow.paused(first[-1])
    airflow.let_go_on()

    assert airflow.trained == [(first[-1], 8)]


def test_the_same_data_are_not_owed_again_when_their_training_has_begun(airflow: Airflow) -> None:
    airflow.paused("A")
    airflow.let_go_on()

    airflow.paused("A")

    assert airflow.queued == [] and airflow.trained == [("A", 8)]


def test_newer_data_that_are_heard_leave_nothing_to_what_still_waits(airflow: Airflow) -> None:
    airflow.paused("A")
    airflow.unpaused("B")

    airflow.let_go_on()

    assert airflow.trained == [("B", 8)]


def test_what_is_queued_and_heard_trains_once(airflow: Airflow) -> None:
    for queued_first in (True, False):
        run, dataset = airflow.publish("A" if queued_first else "B")
        assert dataset is not None
        airflow.queue(run, dataset)
        if queued_first:
            airflow.let_go_on()
        airflow.hear(dataset)
        airflow.let_go_on()

    assert airflow.trained == [("A", 8), ("B", 8)]


def test_what_is_announced_again_before_it_began_trains_once(airflow: Airflow) -> None:
    _, first = airflow.publish("A")
    _, again = airflow.publish("A")
    assert first is not None and again is not None

    airflow.hear(first)
    airflow.hear(again)

    assert airflow.trained == [("A", 8)]


def test_what_is_announced_with_another_form_trains_beside_what_waited(airflow: Airflow) -> None:
    run, dataset = airflow.publish("A")
    assert dataset is not None
    airflow.queue(run, dataset, epochs=5)
    airflow.let_go_on()

    airflow.hear(dataset, epochs=7)

    assert airflow.trained == [("A", 5), ("A", 7)]


def test_a_run_that_has_begun_goes_on_when_it_is_cleared_also_after_newer_data(airflow: Airflow) -> None:
    airflow.paused("A")
    (cleared,) = airflow.queued
    airflow.let_go_on()
    airflow.paused("B")

    assert airflow.begin(*cleared, None)
    airflow.let_go_on()

    assert [data for data, _ in airflow.trained] == ["A", "A", "B"]


def test_a_publication_whose_run_was_not_queued_leaves_the_one_before_owed(airflow: Airflow) -> None:
    airflow.paused("A", 5)
    airflow.publish("A")

    airflow.let_go_on()

    assert airflow.trained == [("A", 5)]


def test_what_waits_is_told_until_newer_data_are_published(airflow: Airflow) -> None:
    airflow.paused("A", 5)
    (dag_run, _), (run, same) = airflow.queued[0], airflow.publish("A")
    assert same is not None
    waits = steps.queued_training(run, same)
    newer = airflow.publish("B")[1]
    steps.note_queued(run, same, {"dag_run": "late", "form": {}})

    assert waits == {"dag_run": dag_run, "form": {**FORM, "gan_epochs": 5}}
    assert newer is not None and steps.queued_training(run, same) is None and steps.queued_training(run, newer) is None
