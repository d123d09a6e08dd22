"""What a run has to do, counted by hand, and how long that takes where costs are known."""

from typing import Any

import pytest

from cxr_tasks.arms import ARMS
from cxr_tasks.config import profile_names, resolve
from cxr_tasks.estimate.forecast import LONG_HOURS, Forecast, forecast, makespan, seconds_of
from cxr_tasks.estimate.rates import Rate
from cxr_tasks.estimate.work import A_STEP, A_TASK, DRAWN_AT_MOST, ImageCounts, PlannedRun, PlannedTask

IMAGES = ImageCounts({"COVID": 128, "Normal": 256, "Viral Pneumonia": 96}, 60, 60)


def planned(changes: Any = None, images: ImageCounts = IMAGES, profile: str = "quick") -> dict[str, PlannedTask]:
    run = PlannedRun(resolve(profile, changes or {}), images)
    return {task.name: task for task in (*run.data_tasks(), *run.training_tasks())}


def rates_of(run: PlannedRun, each: float = 0.01) -> dict[str, Rate]:
    return {name: Rate(each, 0.0, 2**30, 4096) for name in run.rates_needed()}


def test_the_work_of_the_profile_quick_is_what_a_run_was_seen_to_do() -> None:
    tasks = planned()

    # As MLflow and the store say of a run on these phantoms.
    assert tasks["train_gan"].units == {A_STEP: 240}
    assert tasks["extract_features vgg16"].units == {"features vgg16": 720}
    assert tasks["extract_features vgg16 synthetic"].units == {"features vgg16": 300}
    assert tasks["train_arm cnn synthetic seed 0"].units["whole cnn"] == pytest.approx(12 * 780, rel=0.05)
    assert len([name for name in tasks if name.startswith("train_arm")]) == 9
    assert len([name for name in tasks if name.startswith("compare")]) == 9


def test_images_that_are_not_divided_yet_are_divided_as_the_profile_says() -> None:
    settings = resolve("quick")

    assert ImageCounts.expected(settings, {"COVID": 160, "Normal": 320, "Viral Pneumonia": 120}) == IMAGES
    assert ImageCounts.of_splits({"train": {"a": 3, "b": 4}, "validation": {"a": 1}, "test": {"b": 2}}).total == 10


def test_classical_arms_run_the_backbone_over_every_augmented_version() -> None:
    arms = {"arms": {"baseline": "none", "compared": ["classical"]}}
    two, each_epoch = planned(arms), planned({**arms, "augmentation": {"views": None}})

    name = "train_arm vgg16 classical seed 0"
    assert two[name].units["features vgg16"] == 2 * 480 and each_epoch[name].units["features vgg16"] == 12 * 480
    assert "features vgg16" not in two["train_arm vgg16 none seed 0"].units
    assert not {"train_gan", "judge", "synthesize"} & set(two)


@pytest.mark.parametrize("profile", profile_names())
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"evaluation": {"reproduce_leak": True}},
        {"synthetic": {"source": "/images"}},
        {"arms": {"baseline": "none", "compared": ["oversample"]}},
        {"arms": {"baseline": "none", "compared": [arm for arm in ARMS if arm != "none" and "resized" not in arm]}},
        {"classifiers": {"names": ["cnn"], "undersample": True, "budget": "steps"}, "seeds": {"classifiers": [0, 1]}},
        {"data": {"external": [{"name": "other", "source": "/other"}]}},
    ],
)
def test_every_task_waits_for_tasks_that_are_there_and_all_costs_are_asked_for(profile: str, changes: Any) -> None:
    run = PlannedRun(resolve(profile, changes), IMAGES)
    tasks = [*run.data_tasks(), *run.training_tasks()]
    names = [task.name for task in tasks]

    assert len(set(names)) == len(names)
    assert {name for task in tasks for name in task.after} <= set(names)
    told = forecast(run.settings, IMAGES, rates_of(run), 2)
    assert told.seconds > 0 and set(told.by_step) == {task.step for task in tasks} == set(told.tasks)


def test_no_task_begins_before_what_it_waits_for_and_slots_are_kept() -> None:
    tasks = [PlannedTask("a"), PlannedTask("b"), PlannedTask("c", ("a",)), PlannedTask("d", ("b", "c"))]

    costs = {"a": 3.0, "b": 5.0, "c": 1.0, "d": 2.0}
    assert makespan(tasks, costs, 2) == 7.0
    assert makespan(tasks, costs, 1) == 11.0
    assert makespan([], {}, 2) == 0.0


def test_a_gan_that_may_train_for_so_many_hours_takes_no_more() -> None:
    run = PlannedRun(resolve("quick", {"gan": {"epochs": 100_000, "max_hours": 0.5}}), IMAGES)
    rates = rates_of(run, 1.0)
    gan = next(task for task in run.training_tasks() if task.step == "train_gan")

    assert seconds_of(gan, run.settings, rates) - rates[A_TASK].each == pytest.approx(1800, abs=2)


def test_twice_the_epochs_take_twice_as_long_and_a_long_run_says_what_to_do() -> None:
    short, long = (
        forecast(run.settings, IMAGES, rates_of(run), 2)
        for run in (PlannedRun(resolve("quick", {"gan": {"epochs": epochs}}), IMAGES) for epochs in (8, 2_000_000))
    )

    assert not short.is_long and "GPU" not in short.sentence
    assert long.is_long and long.largest == "train_gan"
    advice = (
        f"more than {LONG_HOURS:.0f} hours: use a GPU, the profile quick, or less of gan.epochs, since train_gan takes"
    )
    assert advice in long.sentence


def test_too_little_memory_or_disk_is_said_with_what_to_do() -> None:
    told = Forecast(60.0, {"scan": 1.0}, {"scan": 1}, 4 * 2**30, 2 * 2**30, IMAGES)

    assert told.lacking(5 * 2**30, 3 * 2**30) == []
    memory, disk = told.lacking(2**30, 2**30)
    assert memory.startswith("1.0 GiB of memory are free and about 4.0 are needed: end other programs")
    assert disk.startswith("1.0 GiB of disk are free and about 2.0 are needed: make room")


def test_a_dataset_of_nearly_the_same_size_asks_for_the_same_measurements() -> None:
    settings = resolve("quick")
    near = ImageCounts(IMAGES.train, IMAGES.validation + 3, IMAGES.test)

    assert PlannedRun(settings, near).drawn == PlannedRun(settings, IMAGES).drawn == 100
    assert PlannedRun(settings, ImageCounts(IMAGES.train, 9_999, 0)).drawn <= DRAWN_AT_MOST[-1]
