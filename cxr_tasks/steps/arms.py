"""Steps that train classifiers: one arm with one seed, and what the source report did instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cxr_tasks.arms import ARMS, needs_synthetic
from cxr_tasks.config import Settings
from cxr_tasks.errors import SettingsError
from cxr_tasks.execution import Record, RunContext, StepResult, load_settings, perform
from cxr_tasks.steps.shared import backbone_identity, dataset_tags, gathered


def arms(run: RunContext, synthetic: bool) -> list[dict[str, Any]]:
    """The trainings of the run, those that wait for a synthetic set or those that do not; the DAG maps over them."""
    settings = load_settings(run)
    wanted = [arm for arm in settings.arms.names if needs_synthetic(arm) == synthetic]
    return [
        {"classifier": name, "arm": arm, "seed": seed}
        for seed in settings.classifiers.seeds
        for arm in wanted
        for name in settings.classifiers.names
    ]


def pairs(run: RunContext) -> list[dict[str, Any]]:
    """What is compared with its baseline: one entry for each classifier, seed and arm; the DAG maps over them."""
    settings = load_settings(run)
    return [
        {"classifier": name, "arm": arm, "seed": seed}
        for arm in settings.arms.compared
        for seed in settings.classifiers.seeds
        for name in settings.classifiers.names
    ]


def wants_synthetic(run: RunContext) -> bool:
    """Whether anything of the run is trained on synthetic images."""
    settings = load_settings(run)
    return settings.evaluation.reproduce_leak or any(needs_synthetic(arm) for arm in settings.arms.names)


def train_arm(
    run: RunContext,
    dataset: StepResult,
    arm: Mapping[str, Any],
    synthetic: StepResult | None = None,
    features: Sequence[Iterable[StepResult] | None] = (),
) -> StepResult:
    """Train one arm of a classifier with a seed, and keep its model, its predictions and its curves.

    Args:
        arm: an entry of :func:`arms`.
        synthetic: the synthetic set, for arms that train with one.
        features: results of the steps that ran frozen backbones, the arm's own among them.
    """
    settings = load_settings(run)
    name, kind, seed = arm["classifier"], arm["arm"], arm["seed"]
    if needs_synthetic(kind) and synthetic is None:
        raise SettingsError(f"The arm {kind!r} trains on synthetic images but was given none.")
    inputs: dict[str, StepResult | str] = {"dataset": dataset}
    if synthetic is not None and needs_synthetic(kind):
        inputs["synthetic"] = synthetic
    backbone = backbone_identity(settings, dataset, name)

    def make(folder: Path, record: Record) -> None:
        from cxr_tasks.training.arm import fit_and_save

        fit_and_save(settings, dataset, synthetic, name, backbone, kind, seed, folder, record)

    extra: dict[str, Any] = {}
    if ARMS[kind].extra not in (None, "synthetic"):
        planned = settings.synthetic.model_dump(mode="json")["counts"]
        extra = {"counts": planned, "extra_seed": settings.seed, "gan_size": settings.gan.image_size}
    role = "baseline" if kind == settings.arms.baseline else "augmented"
    result = perform(
        run,
        "train_arm",
        make,
        version=2,
        settings={
            **_chosen(settings),
            **backbone,
            **extra,
            **arm,
            "augmentation": settings.augmentation.model_dump(mode="json") if ARMS[kind].classical else "none",
            "shortcuts": settings.evaluation.shortcuts,
        },
        inputs=inputs,
        after=_of_backbone(features, name),
        label=f"{name} {kind} seed {seed}",
        tags=dataset_tags(run, dataset)
        | {"cxr.classifier": name, "cxr.role": role, "cxr.arm": kind, "cxr.seed": str(seed)},
    )
    result["summary"]["role"] = role
    return result


def reproduce_leak(
    run: RunContext,
    dataset: StepResult,
    arm: Mapping[str, Any],
    synthetic: StepResult,
    features: Sequence[Iterable[StepResult] | None] = (),
) -> StepResult:
    """Train a classifier by the source report's own protocol, with synthetic images in the test set.

    Args:
        arm: an entry of :func:`leaks`. features: as for :func:`train_arm`.
    """
    settings = load_settings(run)
    name, seed = arm["classifier"], arm["seed"]
    backbone = backbone_identity(settings, dataset, name)

    def make(folder: Path, record: Record) -> None:
        from cxr_tasks.training.leak import fit_leaking

        fit_leaking(settings, dataset, synthetic, name, backbone, seed, folder, record)

    split = settings.data.split.model_dump(mode="json", include={"validation", "test"})
    return perform(
        run,
        "reproduce_leak",
        make,
        settings={**_chosen(settings), **backbone, "classifier": name, "seed": seed, **split},
        inputs={"dataset": dataset, "synthetic": synthetic},
        after=_of_backbone(features, name),
        label=f"{name} seed {seed} LEAKING",
        tags=dataset_tags(run, dataset) | {"cxr.classifier": name, "cxr.seed": str(seed), "cxr.leak": "true"},
    )


def leaks(run: RunContext) -> list[dict[str, Any]]:
    """The trainings by the source report's protocol: none unless they were asked for."""
    settings = load_settings(run)
    if not settings.evaluation.reproduce_leak:
        return []
    return [
        {"classifier": name, "arm": "leaking", "seed": seed}
        for seed in settings.classifiers.seeds
        for name in settings.classifiers.names
    ]


def _of_backbone(features: Sequence[Iterable[StepResult] | None], name: str) -> list[StepResult]:
    """The steps that ran the frozen backbone ``name``."""
    return [result for result in gathered(features) if result["summary"]["backbone"] == name]


def _chosen(settings: Settings) -> dict[str, Any]:
    """How classifiers are trained, but for what differs from arm to arm."""
    chosen = settings.classifiers.model_dump(mode="json", exclude={"names", "seeds", "weights"})
    return {**chosen, "classes": list(settings.data.classes)}
