"""What Airflow's pages say of a task in a line: what it works on, and what came out of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from cxr_tasks import tracking
from cxr_tasks.artifacts import (
    Artifact,
    Challenge,
    Comparison,
    Dataset,
    ExternalResults,
    ExternalSet,
    Features,
    Gallery,
    Gan,
    ImportedImages,
    Judgement,
    LeakedModel,
    Manifest,
    Pair,
    Report,
    Ruled,
    Scan,
    Shard,
    Split,
    SyntheticSet,
    TrainedArm,
    Training,
    Validation,
    Watched,
)
from cxr_tasks.classifiers.registry import CLASSIFIERS
from cxr_tasks.durations import time_taken
from cxr_tasks.registry.champions import CHAMPION, OVERALL_MODEL
from cxr_tasks.steps.clean_up import CleanedUp
from cxr_tasks.steps.roll_back import RolledBack

# Airflow's pages show a line of a label.
LONGEST = 120


def task_label(given: Mapping[str, Any]) -> str:
    """What one of many instances of a task works on, such as ``VGG16 · synthetic · seed 0``.

    Args:
        given: What it is given, as JSON or as handles.

    Returns:
        Words; empty where nothing tells it from others.
    """
    if given.get("arm"):
        arm = Training.model_validate(given["arm"])
        return f"{_network(arm.classifier)} · {arm.arm} · seed {arm.seed}"
    if given.get("pair"):
        pair = Pair.model_validate(given["pair"])
        return f"{_network(pair.classifier)} · {pair.arm} against {pair.against} · seed {pair.seed}"
    if given.get("comparison"):
        return Comparison.model_validate(given["comparison"]).name
    if isinstance(given.get("external"), Mapping | ExternalSet):
        return ExternalSet.model_validate(given["external"]).name
    if given.get("name"):
        return str(given["name"])
    if "shard" in given:
        return f"shard {given['shard'] + 1}"
    return _network(given["backbone"]) if given.get("backbone") else ""


def task_result(returned: Any) -> str:
    """What came out of a task, in a line such as ``test macro F1 0.94``.

    Args:
        returned: What its step returned.

    Returns:
        Words; empty where the step has no figures.
    """
    words = next((tell(returned) for kind, tell in RESULTS.items() if isinstance(returned, kind)), "")
    if words and isinstance(returned, Artifact) and returned.reused:
        words += ", taken as it was"
    return " ".join(words.split())[:LONGEST]


def page_of_run() -> str:
    """Where people see the MLflow run that this process has worked in last; empty where there is none."""
    return tracking.last_run_url()


def page_of_docs() -> str:
    """Where people see the Data Docs that this process has written last; empty where it has written none."""
    from cxr_tasks.data.data_docs import DOCS_PAGE

    return tracking.last_artifact_url(DOCS_PAGE)


def _network(classifier: str) -> str:
    return CLASSIFIERS[classifier].display if classifier in CLASSIFIERS else classifier


def _images(counts: Mapping[str, int]) -> str:
    return f"{sum(counts.values()):,} images"


def _trained(gan: Gan) -> str:
    return f"{gan.steps:,} steps in {time_taken(3600 * gan.hours)}{'' if gan.finished else ', not finished'}"


def _rejected(found: Shard | Manifest | ImportedImages) -> str:
    images = found.images if isinstance(found.images, int) else sum(found.images.values())
    return f"{images:,} images{f', {found.rejected:,} set aside' if found.rejected else ''}"


def _champions(ruled: Ruled) -> str:
    """What became of the champion of all models, or else of that of the first classifier."""
    if not ruled.decisions:
        return "nothing to rule on"
    first = min(ruled.decisions, key=lambda each: each.name != OVERALL_MODEL)
    figure = f"validation macro F1 {first.validation_macro_f1:.2f}"
    new = [each for each in ruled.decisions if each.is_new]
    if new:
        return f"{figure}, {len(new)} of {len(ruled.decisions)} models have a new champion"
    passing = sum(each.passes for each in ruled.decisions)
    if isinstance(ruled, Challenge) and passing:
        return f"{figure}, {passing} of {len(ruled.decisions)} models pass the gate"
    return f"{figure}, {'champion stays' if first.against or first.alias == CHAMPION else 'no champion'}"


def _verdicts(report: Report) -> str:
    """How many verdicts of each kind."""
    verdicts = Counter(each.verdict for each in report.claims)
    told = [f"{number} {verdict}" for verdict, number in verdicts.most_common()]
    missing = [f"{len(report.missing)} missing"] if report.missing else []
    return ", ".join([*told, *missing]) or "nothing compared"


# What is told of what each kind of step returns. The first kind that fits counts.
RESULTS: dict[type, Callable[[Any], str]] = {
    Scan: lambda found: _images(found.files),
    Shard: _rejected,
    Manifest: _rejected,
    ImportedImages: _rejected,
    Validation: lambda found: f"{found.expectations} expectations, {len(found.warnings)} warnings",
    Split: lambda found: f"{found.version}, {_images(found.counts.get('test', {}))} test",
    Dataset: lambda found: f"dataset {found.version}",
    Gan: _trained,
    Judgement: lambda found: found.kind,
    SyntheticSet: lambda found: _images(found.counts),
    Features: lambda found: f"{found.computed:,} images run, {found.found:,} known",
    TrainedArm: lambda found: f"test macro F1 {found.test_macro_f1:.2f}",
    LeakedModel: lambda found: f"wrong on purpose: accuracy {found.leaked_test_accuracy:.2f}",
    Comparison: lambda found: found.verdict,
    Gallery: lambda found: f"{found.shown} images",
    ExternalSet: lambda found: _images(found.images),
    ExternalResults: lambda found: f"{len(found.tests)} models tested",
    Ruled: _champions,
    Report: _verdicts,
    Watched: lambda found: found.words,
    RolledBack: lambda found: found.words,
    CleanedUp: lambda found: found.words,
}
