"""What a run trains and compares; the DAG maps over these lists."""

from __future__ import annotations

from cxr_tasks.arms import needs_synthetic
from cxr_tasks.artifacts import RunContext, Training
from cxr_tasks.classifiers.registry import CLASSIFIERS
from cxr_tasks.pipeline import load_settings


def backbones(run: RunContext) -> list[str]:
    """The run's classifiers that stand on a frozen backbone."""
    return [name for name in load_settings(run).classifiers.names if CLASSIFIERS[name].has_backbone]


def arms(run: RunContext, synthetic: bool) -> list[Training]:
    """The trainings of the run: those that wait for a synthetic set, or those that do not."""
    settings = load_settings(run)
    wanted = [arm for arm in settings.arms.names if needs_synthetic(arm) == synthetic]
    return [
        Training(classifier=name, arm=arm, seed=seed)
        for seed in settings.seeds.classifiers
        for arm in wanted
        for name in settings.classifiers.names
    ]


def pairs(run: RunContext) -> list[Training]:
    """What is compared with its baseline: one entry for each classifier, seed and arm."""
    settings = load_settings(run)
    return [
        Training(classifier=name, arm=arm, seed=seed)
        for arm in settings.arms.compared
        for seed in settings.seeds.classifiers
        for name in settings.classifiers.names
    ]


def leaks(run: RunContext) -> list[Training]:
    """The trainings by the source report's protocol: none unless they were asked for."""
    settings = load_settings(run)
    if not settings.evaluation.reproduce_leak:
        return []
    return [
        Training(classifier=name, arm="leaking", seed=seed)
        for seed in settings.seeds.classifiers
        for name in settings.classifiers.names
    ]


def wants_synthetic(run: RunContext) -> bool:
    """Whether anything of the run is trained on synthetic images."""
    settings = load_settings(run)
    return settings.evaluation.reproduce_leak or any(needs_synthetic(arm) for arm in settings.arms.names)
