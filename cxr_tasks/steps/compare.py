"""The step ``compare``: an arm beside its baseline or its control, on the same real test images."""

from __future__ import annotations

from pathlib import Path

from cxr_tasks import tracking
from cxr_tasks.artifacts import Artifact, Comparison, Dataset, Pair, RunContext, TrainedArm, Training, write_json
from cxr_tasks.classifiers.registry import CLASSIFIERS
from cxr_tasks.config import Settings
from cxr_tasks.pipeline import Made, load_settings, perform
from cxr_tasks.steps.common import Mapped, flat, keep_plot


def compare(run: RunContext, dataset: Dataset, pair: Pair | Training, trained: Mapped[TrainedArm]) -> Comparison:
    """Compare an arm with its baseline or its control, from their saved predictions.

    Args:
        run: The DAG run.
        dataset: What both were trained and tested on.
        pair: One of :func:`cxr_tasks.steps.plan.pairs`. A training by itself is compared with the run's baseline.
        trained: The trained arms, in any order. Where one of the two is not among them the other stands alone.
    """
    settings = load_settings(run)
    if not isinstance(pair, Pair):
        pair = Pair(**pair.model_dump(), against=settings.arms.baseline)
    found = {arm.training: arm for arm in flat(trained)}
    baseline, augmented = (found.get(training) for training in pair.trainings)
    name = pair_name(settings, pair)
    both = Comparison(pair=pair, name=name, baseline=baseline, augmented=augmented, verdict="")
    inputs: dict[str, Artifact | str] = dict(both.arms)

    def fill(folder: Path) -> Made[Comparison]:
        _show_arms(both, list(settings.data.classes), folder)
        if not both.is_complete:
            return Made(both.model_copy(update={"verdict": "not compared" if both.arms else "not trained"}))
        return _compare(both, settings, folder)

    measured = settings.evaluation.model_dump(mode="json", include={"bootstrap_samples", "confidence"})
    comparison = perform(
        run,
        Comparison,
        fill,
        version=5,
        settings={
            **measured,
            "seed": settings.seeds.bootstrap,
            "name": name,
            "pair": pair.model_dump(),
            "classes": list(settings.data.classes),
        },
        inputs=inputs,
        label=pair.label,
    )
    # As this run has them: an artifact that was made before holds the handles of the run that made it.
    return comparison.model_copy(update={"baseline": baseline, "augmented": augmented})


def pair_name(settings: Settings, pair: Training) -> str:
    """A pair's name among those of its run, such as ``VGG16 both, seed 1``: no longer than it must be.

    A pair that is held against a control and not the baseline says so: ``VGG16 both beside oversample``.
    """
    name = CLASSIFIERS[pair.classifier].display
    if len(settings.arms.compared) > 1:
        name += f" {pair.arm}"
    if isinstance(pair, Pair) and pair.against != settings.arms.baseline:
        name += f" beside {pair.against}"
    return name + (f", seed {pair.seed}" if len(settings.seeds.classifiers) > 1 else "")


def _show_arms(both: Comparison, classes: list[str], folder: Path) -> None:
    """Draw the arms' curves over each other, and keep what they do on each class."""
    from cxr_tasks.evaluation.metrics import per_class_table
    from cxr_tasks.evaluation.plots import learning_curves

    for role, arm in both.arms.items():
        predictions = arm.model.predictions()
        table = per_class_table(predictions[predictions["split"] == "test"], classes)
        tracking.log_table(table.reset_index(names="class"), f"{role}-per-class.json")
    if both.arms:
        histories = {arm.training.arm: arm.model.history() for arm in both.arms.values()}
        keep_plot(folder, Comparison.CURVES, learning_curves(histories, f"{both.name}: training"))


def _compare(both: Comparison, settings: Settings, folder: Path) -> Made[Comparison]:
    import numpy as np

    from cxr_tasks.evaluation.comparison import compare_predictions
    from cxr_tasks.evaluation.plots import confusion_matrices
    from cxr_tasks.evaluation.plots_calibration import reliability_diagrams

    baseline, augmented = both.arms["baseline"], both.arms["augmented"]
    classes, arms = list(settings.data.classes), (baseline.training.arm, augmented.training.arm)
    result = compare_predictions(
        baseline.model.predictions(),
        augmented.model.predictions(),
        classes,
        name=both.name,
        bootstrap_samples=settings.evaluation.bootstrap_samples,
        confidence=settings.evaluation.confidence,
        seed=settings.seeds.bootstrap,
        baseline_arm=arms[0],
        augmented_arm=arms[1],
    )
    write_json(folder / Comparison.RESULT, result)
    tracking.log_file(folder / Comparison.RESULT)
    confusion = confusion_matrices(
        np.array(result.baseline_confusion),
        np.array(result.augmented_confusion),
        classes,
        f"{both.name}: test images",
        arms=arms,
    )
    keep_plot(folder, Comparison.CONFUSION, confusion)
    reliability = reliability_diagrams(
        baseline.findings().calibration,
        augmented.findings().calibration,
        f"{both.name}: how far confidence can be trusted",
        arms=arms,
    )
    keep_plot(folder, Comparison.RELIABILITY, reliability)
    metrics = {
        "macro_f1_difference": result.macro_f1_difference,
        "macro_f1_difference_low": result.macro_f1_low,
        "macro_f1_difference_high": result.macro_f1_high,
        "accuracy_difference": result.accuracy_difference,
        "accuracy_difference_low": result.accuracy_low,
        "accuracy_difference_high": result.accuracy_high,
        "macro_f1_difference_p": result.p_value,
        "sign_p": result.sign_p,
    }
    if result.detectable is not None:
        metrics["detectable_difference"] = result.detectable
    compared = both.model_copy(update={"verdict": result.verdict, "notes": (result.sentence,)})
    return Made(compared, metrics)
