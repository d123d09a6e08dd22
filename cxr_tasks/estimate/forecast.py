"""From the work of a run and what its units cost: how long it takes, what it needs, and what takes most of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cxr_tasks.classifiers.registry import CLASSIFIERS
from cxr_tasks.config import Settings
from cxr_tasks.durations import time_taken
from cxr_tasks.estimate.rates import Rates
from cxr_tasks.estimate.work import (
    A_STEP,
    A_TASK,
    OF_BACKBONE,
    OF_WHOLE,
    USUAL_START,
    ImageCounts,
    PlannedRun,
    PlannedTask,
)

# Above a working day a run is long: then what would make it shorter is named.
LONG_HOURS = 8.0
# Airflow's four servers and MLflow hold so much while a run goes on, and their databases and logs take so much.
SERVERS_MEMORY, SERVERS_DISK = 1_300 * 2**20, 60 * 2**20
# Airflow hands out a task, starts its process and notes its end.
HANDING_OUT = 1.3
# What shortens each step, for people.
SHORTER = {
    "train_gan": "gan.epochs",
    "judge": "judge.images_per_class",
    "extract_features": "classifiers.image_size",
    "train_arm": "classifiers.epochs, classifiers.names or seeds.classifiers",
    "reproduce_leak": "evaluation.reproduce_leak",
}


@dataclass(frozen=True)
class Forecast:
    """What is expected of a run.

    Attributes:
        seconds: From its begin to its report, where no training stops early.
        by_step: Seconds of all tasks of each step, the most first. Tasks at once overlap.
        tasks: How many tasks of each step there are.
        memory: Bytes at most, with the servers.
        disk: Bytes that it adds to the disk.
        images: What it works on.
    """

    seconds: float
    by_step: Mapping[str, float]
    tasks: Mapping[str, int]
    memory: int
    disk: int
    images: ImageCounts

    @property
    def is_long(self) -> bool:
        """Whether a person should think of a GPU or a smaller profile."""
        return self.seconds > 3600 * LONG_HOURS

    @property
    def largest(self) -> str:
        """The step that takes most."""
        return next(iter(self.by_step))

    @property
    def sentence(self) -> str:
        """What is expected, in a sentence or two."""
        total = sum(self.by_step.values()) or 1.0
        shares = [f"{step} {seconds / total:.0%}" for step, seconds in list(self.by_step.items())[:3]]
        told = (
            f"About {time_taken(_in_two_digits(self.seconds))} on this machine for {self.images.total:,} images, if no "
            f"training stops early: {', '.join(shares)} of the work. "
            f"About {self.memory / 2**30:.1f} GiB of memory and {self.disk / 2**30:.1f} GiB of disk."
        )
        return f"{told} {self.advice}" if self.is_long else told

    def lacking(self, memory: int, disk: int) -> list[str]:
        """Sentences on what this machine has too little of.

        Args:
            memory: Bytes that are free.
            disk: Bytes that are free where the run is kept.
        """
        gib, told = 2**30, []
        if self.memory > memory:
            told.append(
                f"{memory / gib:.1f} GiB of memory are free and about {self.memory / gib:.1f} are needed: end other "
                "programs, or take a smaller image size."
            )
        if self.disk > disk:
            told.append(
                f"{disk / gib:.1f} GiB of disk are free and about {self.disk / gib:.1f} are needed: make room, or "
                "choose another folder."
            )
        return told

    @property
    def advice(self) -> str:
        """What makes a long run shorter."""
        setting = SHORTER.get(self.largest, "the profile")
        return (
            f"That is more than {LONG_HOURS:.0f} hours: use a GPU, the profile quick, or less of {setting}, since "
            f"{self.largest} takes most."
        )


def forecast(settings: Settings, images: ImageCounts, rates: Rates, slots: int, *, with_data: bool = True) -> Forecast:
    """Put work and costs together.

    Args:
        settings: Of the run.
        images: What it works on.
        rates: Of every name that :meth:`PlannedRun.rates_needed` gives.
        slots: Heavy tasks that run at once.
        with_data: Whether the images are still to be read.
    """
    run = PlannedRun(settings, images)
    tasks = run.training_tasks()
    if with_data:
        tasks = [*run.data_tasks(), *_behind(tasks, "publish data")]
    costs = {task.name: seconds_of(task, settings, rates) for task in tasks}
    by_step: dict[str, float] = {}
    for task in tasks:
        by_step[task.step] = by_step.get(task.step, 0.0) + costs[task.name]
    ordered = dict(sorted(by_step.items(), key=lambda item: -item[1]))
    heaviest = sorted((max((rates[name].memory for name in task.units), default=0) for task in tasks), reverse=True)
    memory = SERVERS_MEMORY + sum(heaviest[:slots])
    numbers = dict(Counter(task.step for task in tasks))
    return Forecast(makespan(tasks, costs, slots), ordered, numbers, memory, _disk(run, rates), images)


def seconds_of(task: PlannedTask, settings: Settings, rates: Rates) -> float:
    """What a task takes, from being handed out to its end."""
    start = rates[A_TASK].each
    work = sum(rates[name].start + rates[name].each * units for name, units in task.units.items() if units)
    if task.step == "train_gan" and settings.gan.max_hours:
        # What is left over is for a later run.
        work = min(work, settings.gan.max_hours * 3600)
    # What is not measured takes longer on a slow machine, as starting a task does.
    return HANDING_OUT + start * task.heavy + task.seconds * start / USUAL_START + work


def makespan(tasks: Sequence[PlannedTask], costs: Mapping[str, float], slots: int) -> float:
    """When the last task ends, where so many run at once and a free slot takes the first that can begin."""
    ended: dict[str, float] = {}
    free = [0.0] * slots
    left = list(tasks)
    while left:
        # The task that can begin soonest; of several, the one that is listed first.
        soonest = min(free)
        ready = [task for task in left if all(name in ended for name in task.after)]
        at, task = min(
            ((max(soonest, *(ended[name] for name in task.after), 0.0), task) for task in ready),
            key=lambda both: both[0],
        )
        slot = free.index(soonest)
        free[slot] = ended[task.name] = at + costs[task.name]
        left.remove(task)
    return max(ended.values(), default=0.0)


def _behind(tasks: Sequence[PlannedTask], last: str) -> list[PlannedTask]:
    """The tasks of a DAG that begins when another has ended."""
    return [
        task if task.after else PlannedTask(task.name, (last,), task.units, task.seconds, task.heavy) for task in tasks
    ]


def _disk(run: PlannedRun, rates: Rates) -> int:
    """Pixels, features, models and checkpoints; each model lies in the store and in MLflow."""
    settings, images = run.settings, run.images.total
    added = run.added if run.wants_synthetic else 0
    pixels = sum(size * (size + -(-size // 8)) for size in settings.image_sizes) * images
    shown = images + 2 * run.images.test + added
    trainings = len(settings.arms.names) * len(settings.seeds.classifiers)
    total = float(SERVERS_DISK + pixels + added * settings.gan.image_size**2)
    for name in settings.classifiers.names:
        if CLASSIFIERS[name].has_backbone:
            features, head = rates[f"{OF_BACKBONE} {name}"], rates[f"head {name}"]
            total += features.size * shown + 2 * trainings * head.size
        else:
            total += 2 * trainings * rates[f"{OF_WHOLE} {name}"].size
    if A_STEP in rates:
        # The checkpoints, the state that a longer training goes on from, and the networks.
        total += (settings.gan.keep_checkpoints + 2) * rates[A_STEP].size
    return int(total)


def _in_two_digits(seconds: float) -> float:
    """Two digits are all that an estimate is worth."""
    for step, above in ((3600, 10 * 3600), (600, 3600), (60, 300), (10, 60)):
        if seconds >= above:
            return round(seconds / step) * step
    return max(1.0, round(seconds))
