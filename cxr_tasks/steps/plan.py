"""What a run trains and compares; the DAG maps over these lists."""

from __future__ import annotations

from cxr_tasks.arms import is_control, needs_synthetic
from cxr_tasks.artifacts import Features, Pair, RunContext, Training
from cxr_tasks.classifiers.registry import CLASSIFIERS
from cxr_tasks.pipeline import load_settings
from cxr_tasks.steps.common import Mapped, of_backbone


def backbones(run: RunContext) -> list[str]:
    """The run's classifiers that stand on a frozen backbone."""
    return [name for name in load_settings(run).classifiers.names if CLASSIFIERS[name].has_backbone]


def arms(run: RunContext, synthetic: bool) -> list[Training]:
    """The trainings of the run: those that wait for a synthetic set, or those that do not.

    Controls wait too where any arm trains with the set: they add as many images of each class as are in it.
    """
    settings = load_settings(run)
    is_made = any(map(needs_synthetic, settings.arms.names))
    wanted = [
        arm for arm in settings.arms.names if (needs_synthetic(arm) or (is_control(arm) and is_made)) == synthetic
    ]
    return [
        Training(classifier=name, arm=arm, seed=seed)
        for seed in settings.seeds.classifiers
        for arm in wanted
        for name in settings.classifiers.names
    ]


def does_without(training: Training) -> bool:
    """Whether a training that waits for a synthetic set can do without: a control only asks how large the set is."""
    return is_control(training.arm)


def pairs(run: RunContext) -> list[Pair]:
    """What is compared: for each classifier and seed, each arm with the baseline, and then with its control."""
    settings = load_settings(run)
    chosen = settings.arms
    held = [(arm, chosen.baseline) for arm in chosen.compared]
    held += [(arm, control) for arm, control in chosen.controls.items() if control in chosen.names]
    return [
        Pair(classifier=name, arm=arm, against=against, seed=seed)
        for arm, against in held
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


def imports_synthetic(run: RunContext) -> bool:
    """Whether the run's synthetic images are read from an address, and no GAN is trained."""
    return load_settings(run).synthetic.is_imported


def lacks_features(training: Training, features: Mapped[Features]) -> str:
    """The sentence that says which features a training waits for in vain; empty where it has all.

    Args:
        training: One of the run's.
        features: Of each set of images that it trains on, the handles of the steps that ran frozen backbones.
    """
    chosen = CLASSIFIERS[training.classifier]
    if not chosen.has_backbone or all(of_backbone([group], training.classifier) for group in features):
        return ""
    return f"The features of {chosen.display} are missing: its task in the group features says why."
