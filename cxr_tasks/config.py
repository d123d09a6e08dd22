"""Strict, frozen settings. The numbers live in ``profiles/*.yaml``; this file only gives them names and limits.

A run resolves one profile plus its overrides once; every step then works from the resolved settings.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import AfterValidator, ConfigDict, Field, ValidationError, model_validator

from cxr_tasks.addresses import whole_addresses
from cxr_tasks.arms import ARMS, control_of, is_control
from cxr_tasks.classifiers.registry import CLASSIFIERS
from cxr_tasks.data_settings import (
    ExternalSettings,
    NamedSource,
    SourceSettings,
    TableSettings,
    check_named,
    without_credentials,
)
from cxr_tasks.errors import SettingsError, nearest
from cxr_tasks.gate_settings import GateSettings
from cxr_tasks.image_settings import DicomSettings, ResizeName, WindowSettings
from cxr_tasks.layouts import read_layout
from cxr_tasks.names import composed, param_part, slug
from cxr_tasks.strict import Fraction, Strict

PROFILES = Path(__file__).parent / "profiles"
LUNG_OPACITY = "Lung_Opacity"
# The key of classifiers.weights that speaks for every backbone without one of its own.
DEFAULT_WEIGHTS = "default"

# The widest limits of images that a profile may set. A colour image of 50 million pixels takes 200 MB to decode.
SMALLEST_SIDE, MOST_PIXELS = 32, 50_000_000
# Columns that a prediction table has beside one for each class.
PREDICTION_COLUMNS = {"image_id", "split", "group", "label", "source", "blanked"}
LONGEST_CLASS_NAME = 100
# What ``synthetic.source`` says where the images are those of the run's own GAN.
GAN_OF_THE_RUN = "gan"
# Settings that say a number of each class.
COUNTS_BY_CLASS = (("data", "expected_counts"), ("synthetic", "counts"), ("gate", "min_recall"))

Share = Annotated[float, Field(gt=0.0, lt=1.0)]
Positive = Annotated[int, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


def _known(kind: str, names: Iterable[str]) -> AfterValidator:
    """Refuses a text that is not one of ``names``."""
    known = tuple(names)

    def check(name: str) -> str:
        if name not in known:
            raise ValueError(f"{name!r} is no {kind}: choose one of {', '.join(known)}")
        return name

    return AfterValidator(check)


def _choices(names: Iterable[str]) -> Any:
    return Field(json_schema_extra={"enum": list(names)})


ClassifierName = Annotated[str, _known("classifier", CLASSIFIERS), _choices(CLASSIFIERS)]
ArmName = Annotated[str, _known("arm", ARMS), _choices(ARMS)]
# The tables of counts and of changes are CSV.
FORMULA_SIGNS = "=+-@"
# The steps that run networks: those that may ask for a GPU.
GpuStep = Literal[
    "train_gan",
    "judge",
    "synthesize",
    "extract_features",
    "train_arm",
    "reproduce_leak",
    "explain",
    "evaluate_external",
]


def _class_name(name: str) -> str:
    """The name in its composed form.

    Raises:
        ValueError: No folder, table or page can carry the name.
    """
    name = composed(name)
    if not name or name != name.strip() or len(name) > LONGEST_CLASS_NAME:
        raise ValueError(
            f"{name!r} is no name of a class: give 1 to {LONGEST_CLASS_NAME} characters, no blank at either end"
        )
    # Controls, halves of characters, and breaks of lines. Marks that join letters and emoji are part of words.
    bad = {sign for sign in name if sign in "/\\|" or unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp")}
    if bad or name in (".", ".."):
        raise ValueError(
            f"{name!r} is no name of a class, since it holds a sign that stands between names: choose another in "
            "data.classes and map the folder to that class in data.folders"
        )
    if name[0] in FORMULA_SIGNS:
        raise ValueError(
            f"{name!r} is no name of a class, since spreadsheets take {name[0]!r} for the start of a formula: choose "
            "another in data.classes and map the folder to that class in data.folders"
        )
    if name in PREDICTION_COLUMNS:
        raise ValueError(
            f"{name!r} is no name of a class, since prediction tables have a column of that name: choose another in "
            "data.classes and map the folder to that class in data.folders"
        )
    return name


ClassName = Annotated[str, AfterValidator(_class_name)]
# Folders and classes are compared in one spelling, whatever system wrote their names.
Composed = Annotated[str, AfterValidator(composed)]


class SeedSettings(Strict):
    """Where chance comes from, one seed for each purpose, so that any of them varies while the others stand still.

    ``split``: which images test. ``gan``: the GAN's weights and draws. ``judge``: the judge's features and samples.
    ``synthetic``: the images that are drawn from the GAN, and those that the control arms show again. ``backbones``:
    random weights of frozen backbones. ``bootstrap``: the resamples of the statistics. ``classifiers``: each arm is
    trained once with each of these.
    """

    split: Seed
    gan: Seed
    judge: Seed
    synthetic: Seed
    backbones: Seed
    bootstrap: Seed
    classifiers: tuple[Seed, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _each_once(self) -> SeedSettings:
        if len(set(self.classifiers)) < len(self.classifiers):
            raise ValueError("classifiers must list each seed once")
        return self


class SplitSettings(Strict):
    """How images are divided.

    ``method``: ``stable`` is grouped, stratified, and for ever; ``leave-source-out`` tests on all images of
    ``test_sources``, names of ``data.sources``, and divides the others as ``stable`` does; ``paper`` is plain random.
    ``validation`` and ``test``: shares of each class. With ``leave-source-out`` the first is one of the images that do
    not test, and the second says only how many must.

    ``given``: what becomes of folders ``train``, ``validation`` and ``test`` in the source. ``ignore`` merges them
    and divides anew; ``test`` keeps the test set and divides the rest; ``all`` keeps all of them.
    """

    method: Literal["stable", "leave-source-out", "paper"]
    validation: Share
    test: Share
    given: Literal["ignore", "test", "all"] = "ignore"
    test_sources: tuple[str, ...] = ()

    @property
    def by_source(self) -> bool:
        """Whether whole sources test."""
        return self.method == "leave-source-out"

    @model_validator(mode="after")
    def _leaves_training(self) -> SplitSettings:
        if self.given != "ignore" and self.method != "stable":
            drawn = "draws all splits at random" if self.method == "paper" else "takes the test set from test_sources"
            raise ValueError(f"given must be ignore where the method is {self.method}, which {drawn}")
        if self.validation + self.test >= 1:
            raise ValueError("validation and test together must leave a share to train on")
        if self.by_source and not self.test_sources:
            raise ValueError("the method is leave-source-out: name the sources that test in test_sources")
        if self.test_sources and not self.by_source:
            raise ValueError(
                f"test_sources names {', '.join(self.test_sources)}, and the method is {self.method}: set method to "
                "leave-source-out, or leave test_sources empty"
            )
        return self


class NearDuplicateSettings(Strict):
    """Which images are one picture, also where one was altered. Details of thumbnails decide.

    A difference hash proposes pairs that show a picture in the same place. ``hash_bits``: bits of 64 that may differ;
    ``correlation``: that the pair must exceed. A hash alone is no evidence: many unrelated chest X-rays share it.

    A spectrum proposes pairs of which one may be cropped, turned, mirrored, inverted, framed or marked.
    ``neighbours``: images with which each is compared, 0 for none; ``shifted``: correlation that makes it worth
    while to lay one over the other exactly; ``overlaid``: correlation that the pair must then exceed.
    """

    hash_bits: Annotated[int, Field(ge=0, le=8)]
    correlation: Share
    neighbours: Annotated[int, Field(ge=0, le=20)]
    shifted: Share
    overlaid: Share


class DataSettings(Strict):
    """What is read and what is acceptable.

    A class is read from the folder of its name and from those that ``folders`` maps to it, or from ``table``.
    ``layout``: the ready-made settings of a public data set, which take the place of these.
    ``lung_opacity`` adds that class of the Radiography Database. ``shard_images``: files that one task
    reads. ``smallest_side`` and ``most_pixels``: an image with a shorter side, or with more pixels in all, is set
    aside. ``expected_counts``: files of each class, or ``null`` where any number will do. ``inverted``: what becomes
    of images whose grays are turned round: ``report`` tells of them, ``correct`` turns their pixels back too.
    ``resize``: how images are brought to the sides that are trained at. ``nearest`` takes one pixel of many, as Keras'
    generators do; the others take a mean of those below, by a triangle, a box or Lanczos' filter.
    ``max_group_fraction``: the share of a class that one patient or one picture may have. ``min_split_fraction``:
    how much of the share that ``split`` asks for each class must get. ``min_table_match``: the share of a class
    table's rows, or of the class's images, that must find each other. ``sources``: several sources that make the
    dataset together; where the list is empty, the source is the one that the form or the command names. ``external``:
    sources that every model is tested on, and none is trained on or chosen by.
    """

    classes: tuple[ClassName, ...] = Field(min_length=2)
    lung_opacity: bool
    folders: dict[Composed, Composed]
    shard_images: Positive
    smallest_side: Annotated[int, Field(ge=SMALLEST_SIDE)]
    most_pixels: Annotated[int, Field(gt=0, le=MOST_PIXELS)]
    near_duplicates: NearDuplicateSettings
    inverted: Literal["report", "correct"]
    resize: ResizeName
    window: WindowSettings
    dicom: DicomSettings
    max_rejected_fraction: Fraction
    min_images_per_class: Positive
    expected_counts: dict[Composed, Positive] | None = None
    max_group_fraction: Fraction
    min_split_fraction: Fraction
    min_table_match: Fraction
    split: SplitSettings
    layout: str | None = None
    table: TableSettings | None = None
    sources: tuple[SourceSettings, ...] = ()
    external: tuple[ExternalSettings, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _with_lung_opacity(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("lung_opacity") is True:
            classes = tuple(values.get("classes", ()))
            if LUNG_OPACITY not in classes:
                return {**values, "classes": (*classes, LUNG_OPACITY)}
        return values

    @model_validator(mode="after")
    def _known_classes(self) -> DataSettings:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("classes must each be listed once")
        keys: dict[str, str] = {}
        for name in self.classes:
            if (other := keys.setdefault(slug(name), name)) != name:
                raise ValueError(
                    f"the classes {other!r} and {name!r} would share the name {slug(name)!r} in MLflow: "
                    "call one of them otherwise, and map its folder to it in folders"
                )
        if unknown := set(self.expected_counts or ()) - set(self.classes):
            raise ValueError(f"expected_counts names {sorted(unknown)}, which are not among classes")
        check_named(self.external, self.classes)
        if lacking := next((each for each in self.external if len(each.classes) == 1), None):
            raise ValueError(f"the external set {lacking.name!r} has one class: a test needs two")
        self._check_sources()
        return self

    def _check_sources(self) -> None:
        check_named(self.sources, self.classes)
        names = [each.name for each in self.sources]
        if names and (nowhere := self._lacking(names)):
            raise ValueError(f"no source has the class {nowhere[0]!r}: name it in the classes of a source")
        tests = self.split.test_sources
        if tests and not names:
            raise ValueError("split.test_sources names sources, and there is no list of them: name them in sources")
        if unknown := [name for name in tests if name not in names]:
            raise ValueError(f"split.test_sources: there is no source {unknown[0]!r}, {nearest(unknown[0], names)}")
        others = [name for name in names if name not in tests]
        if tests and not others:
            raise ValueError("split.test_sources names every source, so that none trains: take one out")
        if tests and (untested := self._lacking(tests)):
            raise ValueError(
                f"no source of split.test_sources has the class {untested[0]!r}, so that nothing tests it: name "
                "another source"
            )
        if tests and (untrained := self._lacking(others)):
            raise ValueError(
                f"only sources of split.test_sources have the class {untrained[0]!r}, so that nothing trains it: name "
                "other sources"
            )

    def _lacking(self, sources: Collection[str]) -> list[str]:
        """The classes that none of these sources, given by their names, has by its settings."""
        chosen = [each for each in self.sources if each.name in sources]
        return [
            label for label in self.classes if not any(not each.classes or label in each.classes for each in chosen)
        ]

    def one_source(self, address: str) -> str:
        """The address of the one source that there is; '' where ``sources`` lists several.

        Args:
            address: What the form or the command names.

        Raises:
            SettingsError: There is no source, or both name some.
        """
        if self.sources and address:
            raise SettingsError(
                f"The source is {address}, and data.sources lists {', '.join(each.name for each in self.sources)}: "
                "name no source beside the list, or empty the list."
            )
        if not self.sources and not address:
            raise SettingsError(
                "No data source is given: name one in the field source, set CXR_SOURCE, or list several in "
                "data.sources."
            )
        return address

    def of_source(self, source: NamedSource) -> DataSettings:
        """How a source of a list is read: as these settings say, but for what says the classes."""
        own: dict[str, Any] = {}
        if source.layout is not None:
            piece = read_layout(source.layout)["data"]
            table = piece.get("table")
            own = {"table": None if table is None else TableSettings.model_validate(table)}
            own["folders"] = {composed(name): composed(label) for name, label in (piece.get("folders") or {}).items()}
        elif source.table is not None:
            own = {"table": source.table}
        elif source.folders is not None:
            own = {"table": None, "folders": source.folders}
        # The class that lung_opacity adds is among the classes already.
        said: dict[str, Any] = {
            "classes": source.classes or self.classes,
            "lung_opacity": False,
            "expected_counts": None,
        }
        said["split"] = self.split.model_copy(update={"method": "stable", "test_sources": ()})
        # Unchecked: a source of several may have one class.
        return self.model_copy(update={**said, **own, "layout": None, "sources": (), "external": ()})


class AugmentationSettings(Strict):
    """Classical augmentation, applied to training images only; each range is symmetric around no change.

    ``rotation`` is in degrees, ``shear`` the tangent of the shear angle, ``zoom`` and the shifts are
    fractions of the image. ``views``: how many augmented versions of an image are drawn before they
    repeat; ``null`` draws a new one every epoch, as the recipe does.
    """

    rotation: float = Field(ge=0, le=180)
    shear: Fraction
    zoom: Annotated[float, Field(ge=0.0, lt=1.0)]
    horizontal_flip: bool
    width_shift: Fraction
    height_shift: Fraction
    views: Positive | None


class ClassifierSettings(Strict):
    """The classifiers and their training.

    ``weights``: ``imagenet``, ``random`` or a file, by backbone; ``default`` speaks for those that have no entry.
    ``scaling``: ``paper`` divides gray values by 255; ``imagenet`` does what the backbone was pretrained with.
    ``budget``: what the arms of a pair have in common. With ``epochs`` each sees all of its images once an epoch, so
    that one with more images takes more optimiser steps; with ``steps`` an epoch has as many steps as the real
    training images alone make. ``precision``: of the frozen backbones. ``bfloat16`` is faster on processors and GPUs
    with instructions for it, and ``float16`` on GPUs. ``auto`` takes what the worker's hardware computes fast; then
    the workers that train classifiers should be alike, since each makes features in its own.
    ``checkpoint_seconds``: how often a training is kept, so that it goes on from there after it was killed;
    ``keep_checkpoints``: how many checkpoints stay; ``setbacks``: as for the GAN.
    """

    names: tuple[ClassifierName, ...] = Field(min_length=1)
    image_size: Annotated[int, Field(ge=32)]
    weights: dict[str, str]
    scaling: Literal["paper", "imagenet"]
    learning_rate: float = Field(gt=0)
    batch_size: Positive
    epochs: Positive
    patience: Positive
    budget: Literal["epochs", "steps"]
    precision: Literal["float32", "bfloat16", "float16", "auto"]
    class_weights: bool
    undersample: bool
    checkpoint_seconds: float = Field(gt=0)
    keep_checkpoints: Positive
    setbacks: Annotated[int, Field(ge=0, le=100)]

    @model_validator(mode="after")
    def _complete(self) -> ClassifierSettings:
        if len(set(self.names)) < len(self.names):
            raise ValueError("classifier names must each be listed once")
        frozen = {name for name, classifier in CLASSIFIERS.items() if classifier.has_backbone}
        if unknown := set(self.weights) - frozen - {DEFAULT_WEIGHTS}:
            raise ValueError(f"weights names {sorted(unknown)}, which have no pretrained backbone")
        missing = [name for name in self.names if name in frozen and self.weights_of(name) is None]
        if missing:
            raise ValueError(f"weights must name imagenet, random or a file for {', '.join(missing)}, or for default")
        return self

    def weights_of(self, name: str) -> str | None:
        """Where the weights of the backbone ``name`` come from; ``None`` where nothing says so."""
        return self.weights.get(name, self.weights.get(DEFAULT_WEIGHTS))


class ArmsSettings(Strict):
    """Which augmentation the arms train with: the ``baseline``, and each that is ``compared`` with it."""

    baseline: ArmName
    compared: tuple[ArmName, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _different(self) -> ArmsSettings:
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"each arm must be listed once, and {self.baseline!r} is the baseline")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """All arms, the baseline first."""
        return (self.baseline, *self.compared)

    @property
    def claimed(self) -> tuple[str, ...]:
        """The arms that the run claims something of: controls only where nothing else is compared."""
        treatments = tuple(arm for arm in self.compared if not is_control(arm))
        return treatments or self.compared

    @property
    def controls(self) -> dict[str, str]:
        """The control of each compared arm that has one, whether or not it is trained; the baseline is none."""
        found = {arm: control_of(arm) for arm in self.compared}
        return {arm: control for arm, control in found.items() if control not in (None, self.baseline)}

    def changes_classical(self, arm: str) -> bool:
        """Whether ``arm`` differs from the baseline in classical augmentation and in what is added."""
        baseline, other = ARMS[self.baseline], ARMS[arm]
        return baseline.classical != other.classical and baseline.extra != other.extra


class GanSettings(Strict):
    """CovidGAN. ``width`` scales every channel count; 1.0 is the recipe's network.

    ``preset`` names the file under ``profiles/gan`` that the switches come from where the profile does not set
    them: ``label_smoothing`` is taken from the target of real images only; ``ema`` is the decay of an average of
    the generator's weights, which then makes the images; ``batch_norm_momentum`` that of the
    statistics they are made with; ``r1`` the weight of the penalty; ``projection`` replaces the class head;
    ``fake_class_loss``: whether D also learns the classes of generated images; ``d_learning_rate``: D's own (two
    time scales). ``null`` switches ``ema`` and ``d_learning_rate`` off.
    ``mixed_precision``: whether the networks compute in bfloat16; ``auto``: on GPUs with instructions for it.
    ``max_hours`` ends the training at a checkpoint, and a later run goes on from it. ``setbacks``: how often the
    training goes back to its last checkpoint and draws otherwise where its numbers are no longer finite; after that the
    training ends with an error. ``grid_steps``: when a grid of images is drawn for people to look at.
    """

    preset: str
    image_size: Annotated[int, Field(ge=32, multiple_of=16)]
    width: float = Field(gt=0)
    latent_dim: Positive
    latent_sd: float = Field(gt=0)
    embedding_dim: Positive
    discriminator: Literal["five_conv", "alternating"]
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)]
    learning_rate: float = Field(gt=0)
    d_learning_rate: Annotated[float, Field(gt=0)] | None
    beta_1: Annotated[float, Field(ge=0.0, lt=1.0)]
    label_smoothing: Annotated[float, Field(ge=0.0, lt=0.5)]
    ema: Share | None
    batch_norm_momentum: Annotated[float, Field(ge=0.0, lt=1.0)]
    diff_augment: bool
    spectral_norm: bool
    r1: float = Field(ge=0)
    projection: bool
    fake_class_loss: bool
    batch_size: Positive
    epochs: Positive
    max_hours: Annotated[float, Field(gt=0)] | None
    xla: bool
    mixed_precision: bool | Literal["auto"]
    distribute: bool
    steps_per_call: Positive
    checkpoint_seconds: float = Field(gt=0)
    keep_checkpoints: Positive
    setbacks: Annotated[int, Field(ge=0, le=100)]
    grid_steps: tuple[Positive, ...]


class SyntheticSettings(Strict):
    """How many images to add: ``balance`` lifts every class to the largest; else a number for all, or one by class.

    ``source``: ``gan`` draws them from the GAN of the run. An address of a folder, an archive or a bucket takes images
    by class that others have made: then no GAN is trained, and at most as many are added as there are.
    ``min_class_probability``: an image is dropped where the discriminator gives its class less (0: none is);
    ``drop_near_copies``: an image is dropped that shows the same picture as a training image; ``png``: the set is
    written as PNG files too.
    """

    counts: Literal["balance"] | Annotated[int, Field(ge=0)] | dict[Composed, Annotated[int, Field(ge=0)]]
    source: Annotated[str, AfterValidator(without_credentials)] = GAN_OF_THE_RUN
    min_class_probability: Fraction
    drop_near_copies: bool
    png: bool

    @property
    def is_imported(self) -> bool:
        """Whether others have made the images, and no GAN is trained."""
        return self.source != GAN_OF_THE_RUN

    @model_validator(mode="after")
    def _has_a_discriminator(self) -> SyntheticSettings:
        if self.is_imported and self.min_class_probability > 0:
            raise ValueError(
                "min_class_probability asks the discriminator of the run's GAN, and there is none where source is an "
                "address: set it to 0"
            )
        return self


class JudgeSettings(Strict):
    """When generated images are good enough to train with. Each threshold is ``null`` where it is not asked.

    ``weights``: of the ResNet50 that features come from: ``imagenet``, ``random`` or a file. ``max_kid_ratio``:
    KID against the training images over that of an untrained generator. ``override``: train with
    them whatever the verdict, which is logged.
    """

    weights: str
    image_size: Annotated[int, Field(ge=32)]
    images_per_class: Positive
    max_kid_ratio: Annotated[float, Field(gt=0)] | None
    min_coverage: Fraction | None
    max_memorised: Fraction | None
    max_repeated: Fraction | None
    min_accuracy_score: Fraction | None
    override: bool


class SubgroupSettings(Strict):
    """By what images are divided into subgroups, and when a subgroup gives a class away.

    Attributes:
        attributes: Columns of the manifest. Those that nothing is known of are left out; none turns subgroups off.
        age_bands: Where an age band ends and the next begins, in years: 18 gives ``under 18`` and ``18 and over``.
        min_groups: Patients or pictures that a subgroup must have to be named and measured. Smaller ones are counted
            together.
        coincide: The share of a class that lies in one subgroup, or of a subgroup that is of one class, from which
            both coincide.
        others: The share of the images of other classes that such a subgroup of a class may have.
    """

    attributes: tuple[Literal["age", "sex", "view", "site", "source"], ...]
    age_bands: tuple[Positive, ...] = Field(min_length=1)
    min_groups: Annotated[int, Field(ge=2)]
    coincide: Share
    others: Share

    @model_validator(mode="after")
    def _ordered(self) -> SubgroupSettings:
        if len(set(self.attributes)) < len(self.attributes):
            raise ValueError("attributes must each be listed once")
        if list(self.age_bands) != sorted(set(self.age_bands)):
            raise ValueError("age_bands must rise, and each be listed once")
        return self


class EvaluationSettings(Strict):
    """What is measured of trained arms.

    ``bootstrap_samples`` and ``confidence``: of the paired bootstrap. ``min_sensitivity``: that the operating
    thresholds are to reach on validation images. ``shortcuts``: test each arm with the lungs and with everything
    else blanked. ``subgroups``: of patients and machines that each arm is measured on apart. ``gallery``: of how many
    images that the arms disagree on the report shows where each arm looks. ``reproduce_leak``: repeat the source
    report's protocol too, with synthetic images in the test set.
    """

    bootstrap_samples: Positive
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)]
    min_sensitivity: Share
    shortcuts: bool
    subgroups: SubgroupSettings
    gallery: Annotated[int, Field(ge=0)]
    reproduce_leak: bool


class ServingSettings(Strict):
    """What is kept with a model for those who ask it. No network is trained anew where this changes.

    ``false_alarms``: the share of X-rays like those of training that may be warned of for their distance from these; as
    many for their mean gray, and as many for their contrast.
    """

    false_alarms: Annotated[float, Field(gt=0.0, lt=0.5)]


class MonitoringSettings(Strict):
    """How a champion is watched.

    ``false_alarms``: the probability of an alarm, ever, while new images are like the champion's own test images.
    """

    false_alarms: Annotated[float, Field(gt=0.0, lt=0.5)]


class GpuSettings(Strict):
    """Which work goes to a GPU, where Airflow has a queue for one (``CXR_GPU_QUEUE``). Elsewhere nothing does.

    Attributes:
        steps: The steps whose tasks ask for the GPU. Airflow decides that when it reads the DAGs, so the profile of
            the stack counts (``CXR_PROFILE``), and no setting of one run.
    """

    steps: tuple[GpuStep, ...] = get_args(GpuStep)

    @model_validator(mode="after")
    def _each_once(self) -> GpuSettings:
        if len(set(self.steps)) < len(self.steps):
            raise ValueError("steps must each be listed once")
        return self


class Settings(Strict):
    """Everything one run needs to know, resolved."""

    # What was given may hold a secret by mistake, and errors are shown.
    model_config = ConfigDict(hide_input_in_errors=True)

    profile: str
    description: str
    warnings: tuple[str, ...] = ()
    seeds: SeedSettings
    data: DataSettings
    augmentation: AugmentationSettings
    classifiers: ClassifierSettings
    arms: ArmsSettings
    gan: GanSettings
    judge: JudgeSettings
    synthetic: SyntheticSettings
    evaluation: EvaluationSettings
    gate: GateSettings
    serving: ServingSettings
    monitoring: MonitoringSettings
    gpu: GpuSettings = GpuSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        known = set(self.data.classes)
        floors = self.gate.min_recall
        if isinstance(floors, dict) and (unknown := set(floors) - known):
            raise ValueError(
                f"gate.min_recall names {sorted(unknown)}, which are not among data.classes: give floors of these "
                "classes, or one for all"
            )
        if isinstance(self.synthetic.counts, dict) and (unknown := set(self.synthetic.counts) - known):
            raise ValueError(
                f"synthetic.counts names {sorted(unknown)}, which are not among data.classes: "
                "give counts of these classes, or balance"
            )
        resized = [name for name in self.arms.names if ARMS[name].extra == "real_resized"]
        if resized and self.gan.image_size >= self.classifiers.image_size:
            raise ValueError(
                f"the arm {resized[0]} needs a gan.image_size below classifiers.image_size, or is oversample"
            )
        if self.gan.projection and self.synthetic.min_class_probability > 0:
            raise ValueError("synthetic.min_class_probability needs the class head that gan.projection takes away")
        return self

    @property
    def image_sizes(self) -> list[int]:
        """The sides in pixels that images are packed at, ascending, each once."""
        return sorted({self.classifiers.image_size, self.gan.image_size})

    def flat(self) -> dict[str, Any]:
        """Dotted names to plain values, as MLflow wants its params."""
        return flatten(self.model_dump(mode="json"))

    def to_yaml(self) -> str:
        """The whole of it as text, for people."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested mappings into one level with dotted names that MLflow takes; lists become comma-separated text."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        key = prefix + param_part(str(name))
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{key}.")
        else:
            flat[key] = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
    return flat


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Lay nested ``changes`` over ``base``; neither is modified."""
    merged = dict(base)
    for name, value in changes.items():
        below = merged.get(name)
        merged[name] = merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def profile_names() -> list[str]:
    """The profiles that ship with the project."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def resolve(profile: str, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read a profile, by name or by path to a YAML file, and lay ``overrides`` over it.

    Relative paths in a profile begin in its folder.

    Raises:
        SettingsError: the profile is unknown, or a value is missing, misspelt or out of range.
    """
    by_path = profile.endswith((".yaml", ".yml"))
    path = Path(profile) if by_path else PROFILES / f"{profile}.yaml"
    # What is no path is a name, and leads out of no folder.
    if not (path.is_file() if by_path else profile in profile_names()):
        raise SettingsError(
            f"Profile {profile!r} does not exist: choose one of {', '.join(profile_names())} "
            "or give the path of a YAML file."
        )
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise SettingsError(f"Profile {path} is not a mapping of settings.")
        values["profile"] = path.stem
        values = _with_layout(whole_addresses(values, path.absolute().parent), overrides or {})
        merged = _without_other_classes(merge(values, overrides or {}), overrides or {})
        return Settings.model_validate(_with_preset(merged))
    except yaml.YAMLError as error:
        raise SettingsError(f"Profile {path} is not valid YAML: {error}") from error
    except ValidationError as error:
        faults = "; ".join(_in_words(fault["loc"], fault["type"], fault["msg"]).rstrip(".") for fault in error.errors())
        raise SettingsError(
            f"The settings of profile {profile!r} are wrong: {faults}{'' if faults.endswith('?') else '.'}"
        ) from error


def _with_layout(profile: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """What a profile and the layout say that it or ``overrides`` name, still without the overrides.

    Raises:
        SettingsError: There is no such layout.
    """
    data, changed = profile.get("data"), overrides.get("data")
    if not isinstance(data, dict):
        return dict(profile)
    own = data.get("layout")
    named = changed.get("layout", own) if isinstance(changed, dict) else own
    if not isinstance(named, str):
        return dict(profile)
    piece = {section: values for section, values in read_layout(named).items() if section != "description"}
    if named != own:
        return merge({**profile, "data": {**data, "table": None}}, piece)
    # What a profile leaves empty is no word of its own.
    said = {name: value for name, value in data.items() if value is not None or name not in piece["data"]}
    return merge(piece, {**profile, "data": said})


def _without_other_classes(values: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the profile's counts of classes that are not there, where ``overrides`` give counts of their own."""
    data = values.get("data")
    classes = data.get("classes") if isinstance(data, dict) else None
    if not isinstance(classes, list | tuple):
        return values
    known = {composed(str(name)) for name in classes}
    for section, name in COUNTS_BY_CLASS:
        given = overrides.get(section)
        own = given.get(name) if isinstance(given, dict) else None
        if isinstance(own, dict):
            counts = values[section][name].items()
            kept = {label: count for label, count in counts if label in own or composed(str(label)) in known}
            values = {**values, section: {**values[section], name: kept}}
    return values


def _in_words(place: tuple[int | str, ...], kind: str, message: str) -> str:
    """One fault of the settings: where, and what; for a name that does not exist, the one that is most like it."""
    where = ".".join(map(str, place)) or "settings"
    if kind != "extra_forbidden":
        return f"{where}: {message.removeprefix('Value error, ')}"
    model: Any = Settings
    for part in place[:-1]:
        # A number is the place in a list, whose members are of the same model.
        if isinstance(part, str) and part in getattr(model, "model_fields", {}):
            model = _model_within(model.model_fields[part].annotation)
    beside = list(getattr(model, "model_fields", {}))
    name = str(place[-1])
    elsewhere = [
        f"{section}.{name}"
        for section, field in Settings.model_fields.items()
        if name in getattr(field.annotation, "model_fields", {})
    ]
    if elsewhere and name not in beside:
        return f"{where}: there is no such setting, did you mean {' or '.join(elsewhere)}?"
    return f"{where}: there is no such setting, {nearest(name, beside)}"


def _model_within(annotation: Any) -> Any:
    """The model that a setting holds, by itself, in a list, or where it is not ``null``; else ``None``."""
    if hasattr(annotation, "model_fields"):
        return annotation
    return next(filter(None, map(_model_within, get_args(annotation))), None)


def _with_preset(values: dict[str, Any]) -> dict[str, Any]:
    """Lay the profile's GAN settings over the preset that they name."""
    gan = values.get("gan")
    if not isinstance(gan, dict) or "preset" not in gan:
        return values
    path = PROFILES / "gan" / f"{gan['preset']}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(preset.stem for preset in path.parent.glob("*.yaml")))
        raise SettingsError(f"GAN preset {gan['preset']!r} does not exist: choose one of {known}.")
    return {**values, "gan": merge(yaml.safe_load(path.read_text(encoding="utf-8")), gan)}
