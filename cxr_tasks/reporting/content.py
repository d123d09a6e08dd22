"""What a run's artifacts say, as the content of its report."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cxr_tasks import tracking
from cxr_tasks.arms import ARMS, needs_synthetic
from cxr_tasks.comparing import COMPARISON, FINDINGS, ArmFindings
from cxr_tasks.config import DISPLAY_NAMES, Settings
from cxr_tasks.evaluation.answer import NOTHING, answer
from cxr_tasks.evaluation.comparison import PairComparison
from cxr_tasks.evaluation.intervals import holm
from cxr_tasks.evaluation.report import (
    Link,
    PromotedModel,
    ReportContent,
    ReportPair,
    SampleGrid,
    UnpairedArm,
)
from cxr_tasks.evaluation.seeds import SeedsComparison, over_seeds
from cxr_tasks.execution import RunContext, StepResult, load_settings
from cxr_tasks.reporting.findings import NamedFindings, leak_table, shortcuts_table, sources_table, thresholds_table
from cxr_tasks.reporting.tables import cost_table, quality_tables
from cxr_tasks.store import open_store

# Figures of benchmarks/simulation.py.
ONE_SEED = (
    "Each arm was trained once, so verdicts are about these very models. Trained again with another seed both arms "
    "would come out differently: where there was no effect, one seed called one in up to a third of simulated cases. "
    "Train with several seeds (five are good, two say little)."
)


@dataclass(frozen=True)
class Results:
    """What the steps of one run handed on. ``None`` and empty lists stand for what was skipped."""

    dataset: StepResult
    gan: StepResult | None
    judged: StepResult | None
    synthetic: StepResult | None
    comparisons: list[StepResult]
    galleries: list[StepResult]
    leaks: list[StepResult]
    features: list[StepResult]
    promoted: StepResult


def gather(run: RunContext, results: Results) -> ReportContent:
    """What the report says, from the artifacts alone."""
    settings = load_settings(run)
    pairs = [_pair(settings, result, results.galleries) for result in results.comparisons if _compared(result)]
    findings = _findings(results.comparisons)
    paired = {(p.network, p.seed, arm) for p in pairs for arm in (p.baseline_arm, p.augmented_arm)}
    summaries = _over_seeds(results.comparisons)
    shortcuts, of_shortcuts = shortcuts_table(findings)
    sources, of_sources = sources_table(findings)
    gan, judged, synthetic = results.gan, results.judged, results.synthetic
    summary = results.dataset["summary"]
    if summaries:
        said = answer(summaries, _unconfirmed(pairs, len(settings.classifiers.seeds)))
    else:
        said = judged["summary"]["sentence"] if judged else NOTHING
    return ReportContent(
        title="Does synthetic augmentation help?",
        created=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        answer=said,
        dataset_name=Path(summary["source"]).name,
        dataset_version=summary["version"],
        classes=list(settings.data.classes),
        counts=summary["counts"],
        profile=settings.profile,
        protocol=_protocol(settings, gan),
        synthetic_counts=synthetic["summary"]["counts"] if synthetic else {},
        warnings=[
            *settings.warnings,
            *_two_changes(settings),
            *_no_control(settings, summary["counts"]["train"], synthetic),
            *([ONE_SEED] if pairs and len(settings.classifiers.seeds) == 1 else []),
            *(judged["summary"]["warnings"] if judged else []),
            *of_shortcuts,
            *of_sources,
            *(f"Synthetic set: {note}." for note in (synthetic["summary"]["notes"] if synthetic else ())),
            *(f"Data: {warning}" for warning in summary["warnings"]),
        ],
        pairs=pairs,
        summaries=summaries if len(settings.classifiers.seeds) > 1 else [],
        unpaired=[
            UnpairedArm(
                network=each.network,
                seed=each.seed,
                arm=each.found.arm,
                validation=each.found.validation,
                test=each.found.test,
            )
            for each in findings
            if (each.network, each.seed, each.found.arm) not in paired
        ],
        sample_grids=_grids(gan, synthetic),
        tables=[
            *shortcuts,
            *sources,
            *quality_tables(judged),
            cost_table(gan, synthetic, results.features, _trainings(results)),
        ],
        leak=leak_table(results.leaks, _honest(results.comparisons)),
        promoted=[PromotedModel(**decision) for decision in results.promoted["summary"]["decisions"]],
        settings_yaml=settings.to_yaml(),
        links=[link for link in _links(run, results) if link.url],
    )


def _compared(result: StepResult) -> bool:
    return bool(result["summary"]["baseline"] and result["summary"]["augmented"])


def _comparison(result: StepResult) -> PairComparison:
    folder = open_store().fetch(result["ref"])
    return PairComparison.model_validate_json((folder / COMPARISON).read_text("utf-8"))


def _pair(settings: Settings, result: StepResult, galleries: Sequence[StepResult]) -> ReportPair:
    store, pair = open_store(), result["summary"]["pair"]
    folder = store.fetch(result["ref"])
    gallery = [
        store.fetch(g["ref"]) / "gallery.png" for g in galleries if g["summary"].get("comparison") == result["ref"]
    ]
    arms = {
        role: ArmFindings.model_validate(found)
        for role, found in json.loads((folder / FINDINGS).read_text("utf-8")).items()
    }
    return ReportPair(
        network=DISPLAY_NAMES[pair["classifier"]],
        seed=pair["seed"],
        baseline_arm=arms["baseline"].arm,
        augmented_arm=arms["augmented"].arm,
        comparison=_comparison(result),
        curves_png=(folder / "curves.png").read_bytes(),
        reliability_png=(folder / "reliability.png").read_bytes(),
        gallery_png=gallery[0].read_bytes() if gallery and gallery[0].is_file() else None,
        thresholds=thresholds_table(list(arms.values()), settings.evaluation.min_sensitivity),
    )


def _findings(comparisons: Sequence[StepResult]) -> list[NamedFindings]:
    """Each arm once, though a baseline is in several comparisons."""
    found: dict[tuple[str, int, str], NamedFindings] = {}
    for result in comparisons:
        pair = result["summary"]["pair"]
        text = (open_store().fetch(result["ref"]) / FINDINGS).read_text("utf-8")
        for of_arm in json.loads(text).values():
            arm = ArmFindings.model_validate(of_arm)
            named = NamedFindings(network=DISPLAY_NAMES[pair["classifier"]], seed=pair["seed"], found=arm)
            found.setdefault((pair["classifier"], pair["seed"], arm.arm), named)
    return list(found.values())


def _over_seeds(comparisons: Sequence[StepResult]) -> list[SeedsComparison]:
    """Each classifier and arm over the seeds that it was compared with."""
    store = open_store()
    by_arm: dict[tuple[str, str], list[StepResult]] = {}
    for result in comparisons:
        if _compared(result):
            pair = result["summary"]["pair"]
            by_arm.setdefault((pair["arm"], pair["classifier"]), []).append(result)
    return [
        over_seeds(
            [_comparison(result) for result in results],
            [
                (
                    pd.read_parquet(store.fetch(result["summary"]["baseline"]["ref"]) / "predictions.parquet"),
                    pd.read_parquet(store.fetch(result["summary"]["augmented"]["ref"]) / "predictions.parquet"),
                )
                for result in results
            ],
            [result["summary"]["pair"]["seed"] for result in results],
            name=DISPLAY_NAMES[classifier],
        )
        for (_, classifier), results in by_arm.items()
    ]


def _unconfirmed(pairs: Sequence[ReportPair], seeds: int) -> dict[str, list[str]]:
    """By arm, the networks whose verdict McNemar's test does not confirm; over seeds there is no such test."""
    if seeds > 1 or not pairs:
        return {}
    adjusted = holm([pair.comparison.mcnemar_p for pair in pairs])
    found: dict[str, list[str]] = {}
    for pair, p_value in zip(pairs, adjusted, strict=True):
        c = pair.comparison
        # On an unbalanced test set macro F1 may rise while more images are lost than won.
        won = c.augmented_only_correct - c.baseline_only_correct
        agrees = p_value < 1 - c.confidence and (won > 0) == (c.verdict == "helps")
        if c.verdict != "no detectable difference" and not agrees:
            found.setdefault(pair.augmented_arm, []).append(pair.network)
    return found


def _two_changes(settings: Settings) -> list[str]:
    return [
        f"The arms {settings.arms.baseline} and {arm} differ in two things, what is added and classical augmentation, "
        "as in the source report: the difference between them cannot be credited to the added images alone."
        for arm in settings.arms.compared
        if settings.arms.changes_classical(arm)
    ]


def _no_control(settings: Settings, real: Mapping[str, int], synthetic: StepResult | None) -> list[str]:
    """What nothing in the run can tell apart from what the synthetic images show."""
    if synthetic is None or "oversample" in settings.arms.names:
        return []
    added = synthetic["summary"]["counts"]
    classes = ", ".join(f"{name} {real[name]:,} to {real[name] + n:,}" for name, n in added.items() if n)
    return [
        f"The synthetic set also changes how many training images each class has ({classes}). Whether that alone "
        "does it, and not what the images show, only the arm oversample tells, which this run does not have."
    ]


def _protocol(settings: Settings, gan: StepResult | None) -> list[tuple[str, str]]:
    """How the arms were trained, as terms and their values."""
    chosen = settings.classifiers
    names = settings.arms.names
    size = f"{chosen.image_size} × {chosen.image_size}"
    rows = [("Image size", size), ("Arms", "; ".join(f"{name}: {ARMS[name].meaning}" for name in names))]
    if any(ARMS[name].classical for name in names):
        views = settings.augmentation.views
        many = "a new version of each image in every epoch" if views is None else f"a pool of {views} versions an image"
        rows.append(("Classical augmentation", many))
    budget = (
        "every arm sees all of its images once an epoch, so that one with more images takes more optimiser steps"
        if chosen.budget == "epochs"
        else "every arm takes as many optimiser steps an epoch, however many images it has"
    )
    until = f"at most {chosen.epochs} epochs, until the validation loss has not fallen for {chosen.patience}"
    rows.append(("Budget", f"{budget}; {until}"))
    if chosen.precision != "float32":
        rows.append(("Frozen backbones", f"run in {chosen.precision}"))
    if chosen.undersample:
        rows.append(("Classes", "undersampled to the smallest"))
    if chosen.class_weights:
        rows.append(("Classes", "weighted in the loss by their rarity"))
    rows.append(("Seeds" if len(chosen.seeds) > 1 else "Seed", ", ".join(map(str, chosen.seeds))))
    if gan is not None:
        rows.append(("GAN training", f"{gan['summary']['epochs']:,} epochs, {gan['summary']['steps']:,} steps"))
    else:
        rows.append(("GAN training", "none"))
    return rows


def _grids(gan: StepResult | None, synthetic: StepResult | None) -> list[SampleGrid]:
    store = open_store()
    return [
        SampleGrid(caption=caption, png=(store.fetch(step["ref"]) / "grid.png").read_bytes())
        for step, caption in ((gan, "The GAN's fixed grid at the end of training"), (synthetic, "The synthetic set"))
        if step and step["ref"] and (store.fetch(step["ref"]) / "grid.png").is_file()
    ]


def _trainings(results: Results) -> dict[str, list[StepResult]]:
    """The trainings by arm, each once."""
    found: dict[str, dict[str, StepResult]] = {}
    for result in results.comparisons:
        for role in ("baseline", "augmented"):
            if trained := result["summary"][role]:
                found.setdefault(trained["summary"]["arm"], {})[trained["ref"]] = trained
    return {arm: list(trained.values()) for arm, trained in found.items()}


def _honest(comparisons: Sequence[StepResult]) -> dict[tuple[str, int], PairComparison]:
    """The comparison with synthetic images of each classifier and seed; of several arms the first."""
    found: dict[tuple[str, int], PairComparison] = {}
    for result in comparisons:
        pair = result["summary"]["pair"]
        baseline = result["summary"]["baseline"]
        if _compared(result) and needs_synthetic(pair["arm"]) and not needs_synthetic(baseline["summary"]["arm"]):
            found.setdefault((pair["classifier"], pair["seed"]), _comparison(result))
    return found


def _links(run: RunContext, results: Results) -> list[Link]:
    """Where to go on: pages, and a saved search in MLflow for each question that people ask next."""
    experiment, version = run["experiment_id"], results.dataset["summary"]["version"]
    trained = f"tags.`{tracking.TAG_DAG_RUN}` = '{run['dag_run']}' AND tags.`cxr.step` = 'train_arm'"
    on_data, best = f"tags.`cxr.dataset` = '{version}'", "metrics.`validation_macro_f1`"
    return [
        Link(label="This run in MLflow: parameters, metrics, figures and models", url=run["url"]),
        Link(
            label="How did these trainings go? Their curves over each other",
            url=tracking.search_url(experiment, trained, best, charts=True),
        ),
        Link(
            label="Which training of this run is best on the validation images?",
            url=tracking.search_url(experiment, trained, best),
        ),
        Link(
            label="What has helped on this dataset so far? Every comparison, of all runs",
            url=tracking.search_url(experiment, f"{on_data} AND tags.`cxr.step` = 'compare'", "attributes.start_time"),
        ),
        Link(
            label="What has been trained on this dataset so far? Every arm, of all runs",
            url=tracking.search_url(experiment, f"{on_data} AND tags.`cxr.step` = 'train_arm'", best),
        ),
        Link(label="The data validation page (Data Docs)", url=results.dataset["summary"]["data_docs"]),
    ]
