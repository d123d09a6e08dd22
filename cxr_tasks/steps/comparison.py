"""Steps that follow from trained arms: the comparison of each with its baseline, and what comes of all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cxr_tasks.config import DISPLAY_NAMES, Settings
from cxr_tasks.execution import Record, RunContext, StepResult, load_settings, perform
from cxr_tasks.steps.shared import dataset_tags, gathered


def compare(
    run: RunContext, dataset: StepResult, pair: Mapping[str, Any], trained: Sequence[Iterable[StepResult] | None]
) -> StepResult:
    """Compare an arm with its baseline on the same real test images, from their saved predictions.

    Args:
        pair: an entry of :func:`cxr_tasks.steps.arms.pairs`.
        trained: results of the trainings, in any order. Where the arm is not among them its baseline stands alone.
    """
    settings = load_settings(run)
    name, seed = pair["classifier"], pair["seed"]
    found = {(r["summary"]["classifier"], r["summary"]["arm"], r["summary"]["seed"]): r for r in gathered(trained)}
    baseline, augmented = (found.get((name, arm, seed)) for arm in (settings.arms.baseline, pair["arm"]))
    label = pair_label(settings, pair)
    inputs: dict[str, StepResult | str] = {"baseline": baseline} if baseline else {}
    if augmented:
        inputs["augmented"] = augmented

    def make(folder: Path, record: Record) -> None:
        from cxr_tasks.comparing import compare_and_draw

        arms = {role: arm for role, arm in inputs.items() if not isinstance(arm, str)}
        compare_and_draw(settings, label, arms, folder, record)

    result = perform(
        run,
        "compare",
        make,
        version=2,
        settings={
            **settings.evaluation.model_dump(mode="json", exclude={"gallery", "reproduce_leak"}),
            **{"seed": settings.seed, "name": label, "classes": list(settings.data.classes)},
        },
        inputs=inputs,
        label=f"{name} {pair['arm']} seed {seed}",
        tags=dataset_tags(run, dataset) | {"cxr.classifier": name, "cxr.arm": pair["arm"], "cxr.seed": str(seed)},
    )
    result["summary"] |= {"pair": dict(pair), "name": label, "baseline": baseline, "augmented": augmented}
    return result


def pair_label(settings: Settings, pair: Mapping[str, Any]) -> str:
    """A pair's name among those of its run, such as ``VGG16 both, seed 1``: no longer than it must be."""
    label = DISPLAY_NAMES[pair["classifier"]]
    if len(settings.arms.compared) > 1:
        label += f" {pair['arm']}"
    return label + (f", seed {pair['seed']}" if len(settings.classifiers.seeds) > 1 else "")


def explain(run: RunContext, dataset: StepResult, comparison: StepResult) -> StepResult:
    """Show some of the test images that the two arms of a pair disagree on, and where each arm looks."""
    settings, summary = load_settings(run), comparison["summary"]
    arms = {role: summary[role] for role in ("baseline", "augmented")}

    def make(folder: Path, record: Record) -> None:
        if not all(arms.values()) or not settings.evaluation.gallery:
            record["summary"] = {"shown": 0, "comparison": comparison["ref"]}
            return
        from cxr_tasks.training.gallery import draw_gallery

        shown = draw_gallery(settings, dataset, arms, summary["name"], folder)
        record["summary"] = {"shown": shown, "comparison": comparison["ref"]}

    inputs: dict[str, StepResult | str] = {"comparison": comparison, "dataset": dataset}
    return perform(
        run,
        "explain",
        make,
        settings={"gallery": settings.evaluation.gallery},
        inputs=inputs,
        label=summary["name"],
        tags=dataset_tags(run, dataset) | {"cxr.classifier": summary["pair"]["classifier"]},
    )


def promote(run: RunContext, dataset: StepResult, comparisons: Iterable[StepResult]) -> StepResult:
    """Register the better arm of each classifier, and of all, by validation macro F1."""
    from cxr_tasks.registry import promote_best

    return promote_best(run, dataset, list(comparisons), load_settings(run).data.classes)


def report(
    run: RunContext,
    dataset: StepResult,
    gan: StepResult | None,
    judged: StepResult | None,
    synthetic: StepResult | None,
    comparisons: Iterable[StepResult],
    galleries: Iterable[StepResult] | None,
    leaks: Iterable[StepResult] | None,
    features: Sequence[Iterable[StepResult] | None],
    promoted: StepResult,
) -> StepResult:
    """Write the run's report and keep it with the run in MLflow."""
    from cxr_tasks.reporting import Results, write_report

    results = Results(
        dataset,
        gan,
        judged,
        synthetic,
        list(comparisons),
        list(gathered([galleries])),
        list(gathered([leaks])),
        list(gathered(features)),
        promoted,
    )
    return write_report(run, results)
