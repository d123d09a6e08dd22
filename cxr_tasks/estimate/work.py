"""What a run has to do: its tasks in the order of the DAGs, each in units that can be measured one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cxr_tasks.arms import ARMS, is_control, needs_synthetic
from cxr_tasks.classifiers.registry import CLASSIFIERS
from cxr_tasks.config import Settings
from cxr_tasks.data.added import counts_to_add

# What a unit is of. Names of classifiers follow where a rate is that of one.
A_TASK, A_FILE, A_STEP, A_DRAW, A_JUDGED_IMAGE, ALL_DISTANCES = "task", "read", "gan", "draw", "judge", "distances"
OF_BACKBONE, OF_HEAD, OF_WHOLE, AN_AUGMENTATION = "features", "head", "whole", "augment"
# Distances are measured on so many images a side, the next above what a run has.
DRAWN_AT_MOST = (10, 20, 50, 100, 200, 400, 700, 1000)
# Test images are shown three times: as they are, without lungs, and lungs alone.
SHOWN_WITH_SHORTCUTS = 3
# A validation image in an epoch costs as much of a training image: it is not learned from.
OF_A_TRAINING_IMAGE = 0.35
# Seconds that a task takes beside what is measured, where starting a task takes ``USUAL_START``. They were read in the
# durations of runs; all of them together are a minute or two.
USUAL_START = 7.0
LIGHT = {
    "configure": 1.0,
    "scan": 1.0,
    "manifest": 1.0,
    "validate": 3.0,
    "split": 1.0,
    "publish": 1.0,
    "evaluate_arm": 3.0,
    "compare": 3.0,
    "explain": 2.0,
    "read_external": 5.0,
    "evaluate_external": 5.0,
    "challenge": 3.0,
    "write_report": 5.0,
}
# Seconds for each image: hashes, and the search for near-duplicates.
SCANNED, COMPARED = 0.0005, 0.0018


@dataclass(frozen=True)
class ImageCounts:
    """How many images of each class a run has.

    Attributes:
        train: By class.
        validation: Of all classes.
        test: Of all classes.
    """

    train: Mapping[str, int]
    validation: int
    test: int

    @property
    def total(self) -> int:
        """Of all splits."""
        return sum(self.train.values()) + self.validation + self.test

    @classmethod
    def of_splits(cls, counts: Mapping[str, Mapping[str, int]]) -> ImageCounts:
        """Of a dataset, which has images by split and class."""
        held_out = (sum(counts.get(split, {}).values()) for split in ("validation", "test"))
        return cls(dict(counts["train"]), *held_out)

    @classmethod
    def expected(cls, settings: Settings, by_class: Mapping[str, int]) -> ImageCounts:
        """Of a source whose images are not divided yet."""
        shares = settings.data.split
        total = sum(by_class.values())
        train = {label: round(count * (1 - shares.validation - shares.test)) for label, count in by_class.items()}
        return cls(train, round(total * shares.validation), round(total * shares.test))


@dataclass(frozen=True)
class PlannedTask:
    """A task of a run.

    Attributes:
        name: As people see it, such as ``train_arm vgg16 none seed 0``.
        after: The names of the tasks that must have ended.
        units: How many units of each rate it takes.
        seconds: What it takes beside them.
        heavy: Whether it loads TensorFlow, and takes a slot among those that do.
    """

    name: str
    after: tuple[str, ...] = ()
    units: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    heavy: bool = True

    @property
    def step(self) -> str:
        """The step that it runs."""
        return self.name.partition(" ")[0]


@dataclass(frozen=True)
class PlannedRun:
    """All that a run does.

    Attributes:
        settings: Of the run.
        images: What it works on.
    """

    settings: Settings
    images: ImageCounts

    @property
    def wants_synthetic(self) -> bool:
        """Whether anything trains with synthetic images."""
        return self.settings.evaluation.reproduce_leak or any(map(needs_synthetic, self.settings.arms.names))

    @property
    def added(self) -> int:
        """Synthetic images, and as many of a control."""
        return sum(counts_to_add(self.settings.synthetic, self.images.train).values())

    @property
    def training_images(self) -> int:
        """Real ones."""
        return sum(self.images.train.values())

    @property
    def gan_steps(self) -> int:
        """Of all epochs."""
        batch = min(self.settings.gan.batch_size, self.training_images)
        return self.settings.gan.epochs * (self.training_images // batch) if batch else 0

    @property
    def judged(self) -> int:
        """Images that a judge draws from one generator."""
        return self.settings.judge.images_per_class * len(self.settings.data.classes)

    @property
    def drawn(self) -> int:
        """Images a side that distances of all classes are computed on, one of few numbers; see ``gan.measuring``."""
        number = min(self.images.validation, self.judged)
        return next((most for most in DRAWN_AT_MOST if number <= most), DRAWN_AT_MOST[-1])

    def data_tasks(self) -> list[PlannedTask]:
        """The tasks of ``cxr_data``, one after the other."""
        images = self.images.total
        costs: list[tuple[str, dict[str, float], float]] = [
            ("configure", {}, 0.0),
            ("scan", {}, SCANNED * images),
            ("ingest", {A_FILE: images}, 0.0),
            ("manifest", {}, COMPARED * images),
            ("validate", {}, 0.0),
            ("split", {}, 0.0),
            ("publish", {}, 0.0),
        ]
        names = [f"{step} data" for step, _, _ in costs]
        return [
            PlannedTask(name, tuple(names[max(0, at - 1) : at]), units, LIGHT.get(step, 0.0) + more, heavy=False)
            for at, (name, (step, units, more)) in enumerate(zip(names, costs, strict=True))
        ]

    def training_tasks(self) -> list[PlannedTask]:
        """The tasks of ``cxr_training``, those first that a free slot takes first."""
        chosen = self.settings.classifiers.names
        backbones = [name for name in chosen if CLASSIFIERS[name].has_backbone]
        begun = ("configure training",)
        tasks = [PlannedTask(*begun, seconds=LIGHT["configure"], heavy=False)]
        made = list(self._gan_tasks(begun)) if self.wants_synthetic else []
        tasks += made
        shown = self.images.total
        if self.settings.evaluation.shortcuts:
            shown += (SHOWN_WITH_SHORTCUTS - 1) * self.images.test
        features = [self._features(name, begun, shown, "") for name in backbones]
        ready = tuple(task.name for task in features) or begun
        tasks += features
        if made:
            tasks += (drawn := [self._features(name, (made[-1].name,), self.added, " synthetic") for name in backbones])
            waiting = (*ready, *(task.name for task in drawn), made[-1].name)
        else:
            waiting = ready
        arms = [*self._arm_tasks(ready, waiting, bool(made)), *self._leak_tasks(waiting)]
        tasks += arms
        return [*tasks, *self._last_tasks(tuple(task.name for task in arms), begun)]

    def _gan_tasks(self, begun: tuple[str, ...]) -> Iterator[PlannedTask]:
        judged = self.judged
        shown = {A_JUDGED_IMAGE: 2 * judged + self.training_images + self.images.validation, ALL_DISTANCES: 1.0}
        if self.settings.synthetic.is_imported:
            yield PlannedTask("import_synthetic", begun, {A_FILE: self.added})
            yield PlannedTask("judge", ("import_synthetic",), {A_DRAW: judged, **shown})
        else:
            yield PlannedTask("train_gan", begun, {A_STEP: self.gan_steps})
            yield PlannedTask("judge", ("train_gan",), {A_DRAW: 2 * judged, **shown})
        yield PlannedTask("synthesize", ("judge",), {A_DRAW: self.added})

    def _features(self, backbone: str, after: tuple[str, ...], images: int, which: str) -> PlannedTask:
        return PlannedTask(f"extract_features {backbone}{which}", after, {f"{OF_BACKBONE} {backbone}": images})

    def _arm_tasks(self, ready: tuple[str, ...], waiting: tuple[str, ...], made: bool) -> Iterator[PlannedTask]:
        names = self.settings.arms.names
        late = [arm for arm in names if needs_synthetic(arm) or (made and is_control(arm))]
        for after, arms in ((ready, [arm for arm in names if arm not in late]), (waiting, late)):
            for seed in self.settings.seeds.classifiers:
                for arm in arms:
                    for classifier in self.settings.classifiers.names:
                        extra = self.added if ARMS[arm].extra else 0
                        units = self._units_of_training(classifier, ARMS[arm].classical, extra)
                        name = f"train_arm {classifier} {arm} seed {seed}"
                        yield PlannedTask(name, after, units, LIGHT["evaluate_arm"])

    def _leak_tasks(self, after: tuple[str, ...]) -> Iterator[PlannedTask]:
        if not self.settings.evaluation.reproduce_leak:
            return
        for seed in self.settings.seeds.classifiers:
            for classifier in self.settings.classifiers.names:
                units = self._units_of_training(classifier, False, self.added)
                yield PlannedTask(f"reproduce_leak {classifier} seed {seed}", after, units, LIGHT["evaluate_arm"])

    def _units_of_training(self, classifier: str, classical: bool, extra: int) -> dict[str, float]:
        """Of all epochs: no training is taken to stop early."""
        settings, real = self.settings, self._real_in_an_epoch
        images = real + extra
        epoch = real if settings.classifiers.budget == "steps" else images
        epochs, views = settings.classifiers.epochs, settings.augmentation.views
        units: dict[str, float] = {}
        if classical:
            # Without a number of views each epoch draws its own.
            units[AN_AUGMENTATION] = epochs * epoch if views is None else min(epochs, views) * images
        checked = OF_A_TRAINING_IMAGE * self.images.validation
        if CLASSIFIERS[classifier].has_backbone:
            units[f"{OF_HEAD} {classifier}"] = epochs * (epoch + checked)
            if classical:
                units[f"{OF_BACKBONE} {classifier}"] = units[AN_AUGMENTATION]
        else:
            shown = OF_A_TRAINING_IMAGE * (self.images.validation + SHOWN_WITH_SHORTCUTS * self.images.test)
            units[f"{OF_WHOLE} {classifier}"] = epochs * (epoch + checked) + shown
        return units

    @property
    def _real_in_an_epoch(self) -> int:
        counts = self.images.train.values()
        return len(counts) * min(counts) if self.settings.classifiers.undersample else sum(counts)

    def _last_tasks(self, after: tuple[str, ...], begun: tuple[str, ...]) -> Iterator[PlannedTask]:
        """Compare, explain, test on external sets, decide, and report."""
        read = [f"read_external {each.name}" for each in self.settings.data.external]
        for name in read:
            yield PlannedTask(name, begun, seconds=LIGHT["read_external"])
        compared = list(self._pairs())
        for label in compared:
            yield PlannedTask(f"compare {label}", after, seconds=LIGHT["compare"], heavy=False)
        told = tuple(f"compare {label}" for label in compared)
        for label in compared:
            yield PlannedTask(f"explain {label}", told, seconds=LIGHT["explain"], heavy=False)
        for name in read:
            yield PlannedTask(
                name.replace("read", "evaluate", 1), (*after, name), seconds=LIGHT["evaluate_external"] * len(after)
            )
        yield PlannedTask("challenge", told, seconds=LIGHT["challenge"], heavy=False)
        shown = tuple(f"explain {label}" for label in compared)
        yield PlannedTask("write_report", (*shown, "challenge"), seconds=LIGHT["write_report"], heavy=False)

    def _pairs(self) -> Iterator[str]:
        arms = self.settings.arms
        held: Sequence[tuple[str, str]] = [(arm, arms.baseline) for arm in arms.compared]
        held = [*held, *((arm, control) for arm, control in arms.controls.items() if control in arms.names)]
        for arm, against in held:
            for seed in self.settings.seeds.classifiers:
                for name in self.settings.classifiers.names:
                    yield f"{name} {arm} against {against} seed {seed}"

    def rates_needed(self) -> list[str]:
        """The names of all rates that the tasks ask for, :data:`A_TASK` first."""
        names = {name: None for task in (*self.data_tasks(), *self.training_tasks()) for name in task.units}
        return [A_TASK, *names]
