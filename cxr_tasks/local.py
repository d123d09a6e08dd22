"""A run on this machine without Airflow: the steps are called one after the other, in the order of the DAGs.

The keys of artifacts are those of a DAG run with the same source and settings, so that either takes what the other
made. Each part of a run is made when something asks for it, and once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from cxr_tasks import steps, tracking
from cxr_tasks.arms import is_control, needs_synthetic
from cxr_tasks.artifacts import (
    Artifact,
    Challenge,
    Comparison,
    Dataset,
    ExternalResults,
    ExternalSet,
    ExternalTest,
    Failure,
    Features,
    Gallery,
    Gan,
    ImportedImages,
    Judgement,
    KeptChampion,
    LeakedModel,
    Manifest,
    Pair,
    Promotion,
    Report,
    Ruled,
    Scan,
    Shard,
    Split,
    SyntheticSet,
    TrainedArm,
    TrainedModel,
    Training,
    Validation,
)
from cxr_tasks.classifiers.registry import CLASSIFIERS
from cxr_tasks.config import Settings
from cxr_tasks.data.sources import open_source
from cxr_tasks.data_settings import ExternalSettings
from cxr_tasks.errors import UserError
from cxr_tasks.pipeline import load_settings

Handle = TypeVar("Handle", bound=Artifact)
Given = TypeVar("Given")
# The DAGs whose steps a local run calls; their names are MLflow's experiments.
DATA, TRAINING = "cxr_data", "cxr_training"


class Watcher:
    """Is told of each step of a local run. This one keeps silent."""

    def began(self, work: str) -> None:
        """The step ``work`` begins."""

    def ended(self, work: str, handle: Artifact) -> None:
        """The step ``work`` has returned ``handle``."""

    def failed(self, work: str, error: Exception) -> None:
        """The step ``work`` has raised ``error``."""


class LocalRun:
    """One run by hand.

    Attributes:
        source: Address of the images, as :func:`absolute_source` gives it; empty where the settings list sources.
        data: What the data steps share.
        training: What the other steps share.
        watcher: Is told of each step.
        failures: What :meth:`report` did without, by the step that failed.
    """

    def __init__(self, source: str, form: Mapping[str, Any], watcher: Watcher | None = None) -> None:
        """Resolve the settings.

        Args:
            source: Address of the images; empty where the settings list sources.
            form: The fields of the trigger form, see :mod:`cxr_tasks.form`.
            watcher: Is told of each step.

        Raises:
            DataError: There is nothing at a local address, or the address is of no known kind.
            SettingsError: The profile or an override is wrong.
        """
        self.source = absolute_source(source) if source else ""
        name = _new_name()
        self.data, self.training = (steps.configure(dag, name, form) for dag in (DATA, TRAINING))
        self.settings.data.one_source(self.source)
        self.watcher = watcher or Watcher()
        self.failures: dict[str, Exception] = {}
        self._features: dict[tuple[str, bool], Features] = {}
        self._arms: dict[Training, TrainedArm] = {}

    @cached_property
    def settings(self) -> Settings:
        """The resolved settings."""
        return load_settings(self.training)

    @cached_property
    def dataset(self) -> Dataset:
        """The dataset of the source. It is not published: what Airflow trains on next stays what it was."""
        run = self.data
        scanned = self._step(Scan.step, steps.scan, run, self.source)
        read = [
            self._step(f"{Shard.step} shard {shard + 1} of {scanned.shards}", steps.ingest, run, scanned, shard)
            for shard in steps.shards(run, scanned)
        ]
        joined = self._step(Manifest.step, steps.manifest, run, scanned, read)
        validated = self._step(Validation.step, steps.validate, run, joined)
        divided = self._step(Split.step, steps.split, run, joined, validated)
        return steps.dataset_of(scanned, joined, validated, divided)

    @cached_property
    def gan(self) -> Gan:
        """The GAN; where its hours were used up it is not finished, and the next run goes on."""
        return self._step(Gan.step, steps.train_gan, self.training, self.dataset)

    @cached_property
    def imported(self) -> ImportedImages:
        """The synthetic images that others have made."""
        return self._step(ImportedImages.step, steps.import_synthetic, self.training, self.dataset)

    @cached_property
    def judgement(self) -> Judgement:
        """What the judge says of the images of the GAN, or of those that others have made."""
        return self._step(Judgement.step, steps.judge, self.training, self.dataset, *self._makers())

    @cached_property
    def synthetic(self) -> SyntheticSet | None:
        """The synthetic set; ``None`` where the images are not good enough to train with."""
        if not steps.may_train_with(self.training, self.judgement):
            return None
        call = steps.synthesize
        return self._step(SyntheticSet.step, call, self.training, self.dataset, *self._makers(), self.judgement)

    def arm(self, training: Training) -> TrainedArm:
        """Train one arm of a classifier with one seed, after all that it needs.

        Raises:
            UserError: The arm trains with synthetic images, and they are not good enough.
        """
        if needs_synthetic(training.arm) and self.synthetic is None:
            raise UserError(
                f"The arm {training.arm!r} trains with synthetic images, and there are none. {self.judgement.sentence} "
                "To train with these images all the same, set judge.override to true."
            )
        return self._train(training)

    def comparison(self, pair: Training) -> Comparison:
        """Compare an arm with its baseline, after both were trained.

        Raises:
            UserError: The arm is the baseline itself, or one of the arms cannot be trained.
        """
        baseline = self.settings.arms.baseline
        if pair.arm == baseline:
            raise UserError(
                f"The arm {pair.arm!r} is the baseline that others are compared with: choose another arm, "
                "or another baseline with arms.baseline."
            )
        held = Pair(**pair.model_dump(), against=baseline)
        return self._compare(held, [self.arm(training) for training in held.trainings])

    def report(self) -> Report:
        """Train and compare everything that the settings name, and write the report.

        A step that fails is noted in ``failures``, and the rest goes on without what it would have made. Models are
        registered only where MLflow is.
        """
        run, dataset = self.training, self.dataset
        # First: a set that cannot be read is known before hours of training.
        read = self._each(self._read_external, steps.external_sets(run))
        if steps.wants_synthetic(run):
            self._attempt(lambda: self.synthetic)
        synthetic = self._made("synthetic")
        waiting = [arm for arm in steps.arms(run, True) if synthetic is not None or not needs_synthetic(arm.arm)]
        trainings = steps.arms(run, False) + waiting
        trained = self._each(self._train, trainings)
        leaks = self._each(self._leak, steps.leaks(run) if synthetic is not None else [])
        comparisons = self._each(lambda pair: self._compare(pair, trained), steps.pairs(run))
        galleries = self._each(self._explain, comparisons)
        external = self._each(lambda tested: self._test_external(tested, trained), read)
        given = comparisons, trained, external
        challenge = self._attempt(partial(self._challenge, *given)) if tracking.is_on() else None
        decided = self._attempt(partial(self._decide, challenge, *given)) if challenge is not None else None
        return self._step(
            Report.step,
            steps.write_report,
            run,
            dataset,
            self._made("gan"),
            self._made("judgement"),
            synthetic,
            comparisons,
            galleries,
            leaks,
            [list(self._features.values())],
            [decided, challenge],
            external,
            [trained],
            self._told_failures(),
            self._made("imported"),
        )

    def end(self, error: BaseException | None = None) -> None:
        """Close the run in MLflow: as one that has failed where ``error`` ended it, or a step of it failed.

        Where MLflow does not answer, ``error`` matters more.
        """
        words = f"{type(error).__name__}: {error}" if error else "; ".join(each.words for each in self._told_failures())
        for dag, run in ((DATA, self.data), (TRAINING, self.training)):
            with suppress(*([Exception] if error else [])):
                steps.close_run(dag, run.dag_run, words)

    def _told_failures(self) -> list[Failure]:
        parts = [(*work.partition(" "), error) for work, error in self.failures.items()]
        return [Failure(step=step, label=label, sentence=steps.sentence_of(error)) for step, _, label, error in parts]

    def _features_of(self, backbone: str, synthetic: SyntheticSet | None) -> Features:
        key = (backbone, synthetic is not None)
        if key not in self._features:
            work = f"{Features.step} {backbone}{' synthetic' * key[1]}"
            call = steps.extract_features
            self._features[key] = self._step(work, call, self.training, self.dataset, backbone, synthetic)
        return self._features[key]

    def _stored_features(self, classifier: str, *, synthetic: bool) -> list[list[Features]]:
        """What the classifier's backbone makes of all images that it trains on; nothing where it has no backbone."""
        if not CLASSIFIERS[classifier].has_backbone:
            return []
        sets = [None, self.synthetic] if synthetic else [None]
        return [[self._features_of(classifier, each) for each in sets]]

    def _train(self, training: Training) -> TrainedArm:
        if training not in self._arms:
            synthetic = needs_synthetic(training.arm)
            # A control adds as many images as the run's synthetic set has, and needs none to be made.
            given = self.synthetic if synthetic else self._made("synthetic") if is_control(training.arm) else None
            self._arms[training] = self._step(
                f"{TrainedModel.step} {training.label}",
                steps.train_arm,
                self.training,
                self.dataset,
                training,
                given,
                self._stored_features(training.classifier, synthetic=synthetic),
            )
        return self._arms[training]

    def _leak(self, training: Training) -> LeakedModel:
        features = self._stored_features(training.classifier, synthetic=True)
        work = f"{LeakedModel.step} {training.label}"
        return self._step(work, steps.reproduce_leak, self.training, self.dataset, training, self.synthetic, features)

    def _compare(self, pair: Pair, arms: list[TrainedArm]) -> Comparison:
        work = f"{Comparison.step} {pair.label}"
        return self._step(work, steps.compare, self.training, self.dataset, pair, [arms])

    def _explain(self, comparison: Comparison) -> Gallery:
        work = f"{Gallery.step} {comparison.name}"
        return self._step(work, steps.explain, self.training, self.dataset, comparison)

    def _challenge(
        self, comparisons: list[Comparison], trained: list[TrainedArm], external: list[ExternalResults]
    ) -> Challenge:
        given = self.training, self.dataset, comparisons, [trained], [external]
        return self._step(Challenge.step, steps.challenge, *given)

    def _decide(
        self,
        challenge: Challenge,
        comparisons: list[Comparison],
        trained: list[TrainedArm],
        external: list[ExternalResults],
    ) -> Ruled:
        """Nobody answers in a run by hand: where a person is to be asked, the challengers wait."""
        if not steps.passes_gate(challenge) or steps.asks_a_person(self.training):
            return self._step(KeptChampion.step, steps.keep_champion, self.training, challenge)
        given = self.training, self.dataset, challenge, comparisons, [trained], [external]
        return self._step(Promotion.step, steps.promote, *given)

    def _read_external(self, name: str) -> ExternalSet:
        work = f"{ExternalSet.step} {name}"
        return self._step(work, steps.read_external, self.training, self.dataset, name)

    def _test_external(self, external: ExternalSet, trained: list[TrainedArm]) -> ExternalResults:
        work = f"{ExternalResults.step} {external.name}"
        call = steps.evaluate_external
        return self._step(work, call, self.training, self.dataset, external, [trained])

    def _makers(self) -> tuple[Gan | None, ImportedImages | None]:
        """What the synthetic images come from: one of the two."""
        return (None, self.imported) if self.settings.synthetic.is_imported else (self.gan, None)

    def _made(self, name: str) -> Any:
        """The part ``name`` of the run, or ``None`` where it was not made."""
        return self.__dict__.get(name)

    def _step(self, work: str, call: Callable[..., Handle], *given: Any) -> Handle:
        if work in self.failures:
            # Several parts may ask for it, such as all arms of a backbone: what failed once is not tried again.
            raise self.failures[work]
        self.watcher.began(work)
        try:
            handle = call(*given)
        except Exception as error:
            self.failures[work] = error
            self.watcher.failed(work, error)
            raise
        self.watcher.ended(work, handle)
        return handle

    def _attempt(self, call: Callable[[], Handle | None]) -> Handle | None:
        """What ``call`` returns, or ``None`` where one of its steps fails."""
        try:
            return call()
        except Exception as error:
            if error not in self.failures.values():
                raise
            return None

    def _each(self, call: Callable[[Given], Handle], works: Iterable[Given]) -> list[Handle]:
        """What ``call`` makes of each of ``works``, without those that fail."""
        made = [self._attempt(partial(call, work)) for work in works]
        return [handle for handle in made if handle is not None]


def evaluate_by_hand(
    model: str, external: ExternalSettings, form: Mapping[str, Any]
) -> tuple[ExternalSet, ExternalTest]:
    """Test a model that is there on an external set.

    Args:
        model: As for :func:`cxr_tasks.steps.find_model`.
        external: The set. It is read as the settings say, with the model's classes unless they name classes or a
            layout.
        form: The fields of the trigger form.

    Raises:
        UserError: There is no such model, or the set cannot be used.
    """
    run = steps.configure(TRAINING, _new_name(), form)
    try:
        found = steps.find_model(model)
        given = form.get("settings", {}).get("data", {})
        classes = load_settings(run).data.classes if {"classes", "layout"} & set(given) else found.classes
        tested = steps.tested_on(run, load_settings(run), found, external.model_copy(update={"classes": classes}))
    except BaseException as error:
        with suppress(Exception):
            steps.close_run(TRAINING, run.dag_run, f"{type(error).__name__}: {error}")
        raise
    tracking.set_tags({tracking.TAG_NAME: f"{found.who} on {external.name}"}, run.mlflow_run_id)
    steps.close_run(TRAINING, run.dag_run, "")
    return tested


def _new_name() -> str:
    return f"local__{time.strftime('%Y-%m-%dT%H:%M:%S')}.{time.time_ns() % 10**9:09d}"


def absolute_source(address: str) -> str:
    """The address of images as it is the same from every folder.

    Raises:
        DataError: There is nothing at a local address, or the address is of no known kind.
    """
    open_source(address)
    return address if "://" in address else str(Path(address).expanduser().resolve())
