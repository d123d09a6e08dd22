"""What a run's artifacts say, as the content of its report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from cxr_tasks.arms import ARMS, is_control, needs_synthetic
from cxr_tasks.artifacts import Comparison, Gallery, Gan, ImportedImages, Judgement, SyntheticSet
from cxr_tasks.classifiers.registry import CLASSIFIERS
from cxr_tasks.config import Settings
from cxr_tasks.data.subgroups import OF_SUBGROUPS
from cxr_tasks.evaluation.answer import NOTHING, answer
from cxr_tasks.evaluation.claims import Claim, claims_of
from cxr_tasks.evaluation.comparison import PairComparison, join_words
from cxr_tasks.evaluation.plots_gallery import disagreements
from cxr_tasks.evaluation.seeds import SeedsComparison, over_seeds
from cxr_tasks.precision import AUTO, FULL
from cxr_tasks.report.arm_tables import NamedFindings, shortcuts_table, thresholds_table
from cxr_tasks.report.data_files import DataFile, curves_file, gallery_file, reliability_file
from cxr_tasks.report.external_tables import external_tables, on_external
from cxr_tasks.report.render import OF_DATA, Link, ReportContent, ReportPair, SampleGrid, UnpairedArm
from cxr_tasks.report.results import Results
from cxr_tasks.report.run_tables import cost_table, leak_table, quality_tables
from cxr_tasks.report.subgroup_tables import external_subgroup_tables, subgroup_tables

# Figures of benchmarks/simulation.py.
ONE_SEED = (
    "Each arm was trained once. So the verdicts are about these very models. With another seed both arms come out "
    "differently. In simulations without any effect, one seed found an effect in up to a third of the cases. Train "
    "with several seeds: five are good, two say little."
)
SOME_ONE_SEED = (
    "Of {}, the trainings with all seeds but one are missing. The verdicts there are about these very models. They "
    "leave out how a training happens to go."
)


def gather(settings: Settings, results: Results, links: Sequence[Link]) -> ReportContent:
    """What the report says, from the artifacts alone.

    Args:
        settings: Of the run.
        results: What its steps handed on.
        links: Where to go on; those without an address are left out.
    """
    pairs = [_report_pair(settings, comparison, results.galleries) for comparison in results.complete]
    findings = named_findings(results)
    summaries = _over_seeds(results.complete)
    claims = run_claims(settings, summaries)
    shortcuts, of_shortcuts = shortcuts_table(findings)
    dataset, synthetic = results.dataset, results.synthetic
    subgroups, of_coincidences, of_gaps = subgroup_tables(dataset.manifest(OF_SUBGROUPS), results.arms, settings)
    external_subgroups, of_external_gaps = external_subgroup_tables(results.external, settings)
    # What was trained, and not what was asked for: seeds may have failed.
    once = list(dict.fromkeys(summary.name for summary in summaries if len(summary.seeds) == 1))
    several = any(len(summary.seeds) > 1 for summary in summaries)
    return ReportContent(
        title="Does synthetic augmentation help?",
        created=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        answer=_answer(results, claims, pairs),
        dataset_name=Path(dataset.source).name,
        dataset_version=dataset.version,
        classes=list(settings.data.classes),
        counts=dataset.counts,
        profile=settings.profile,
        protocol=_protocol(settings, results),
        synthetic_counts=synthetic.counts if synthetic else {},
        warnings=[
            *settings.warnings,
            *of_coincidences,
            *_two_changes(settings),
            *_no_control(settings, dataset.counts["train"], synthetic),
            *([ONE_SEED] if once and not several else []),
            *([SOME_ONE_SEED.format(join_words(once))] if once and several else []),
            *judgement_warnings(settings, results.judgement),
            *(f"{warning}." for warning in (results.judgement.warnings if results.judgement else ())),
            *_on_imported(results.imported),
            *of_shortcuts,
            *of_gaps,
            *of_external_gaps,
            *on_external(results.external),
            *(f"Synthetic set: {note}." for note in (synthetic.notes if synthetic else ())),
            *_setbacks(results),
            *(f"{OF_DATA}{warning}" for warning in dataset.warnings),
        ],
        claims=claims,
        pairs=pairs,
        summaries=summaries if several else [],
        unpaired=_unpaired(findings, pairs),
        sample_grids=_grids(results.gan, synthetic),
        tables=[
            *shortcuts,
            *subgroups,
            *external_tables(results.external, results.ruled),
            *external_subgroups,
            *quality_tables(results.judgement),
            cost_table(results),
        ],
        leak=leak_table(results.leaks, _honest(results.complete)),
        promoted=list(results.ruled.decisions) if results.ruled else [],
        settings_yaml=settings.to_yaml(),
        links=[link for link in links if link.url],
        missing=results.missing,
    )


def _on_imported(imported: ImportedImages | None) -> list[str]:
    """What a reader must know of images that others have made."""
    if imported is None:
        return []
    return [
        f"The synthetic images were not made in this run: they are {imported.origin}. What made them may have seen "
        "images like the test images. Only copies would show that.",
        *(f"Imported images: {warning}." for warning in imported.warnings),
    ]


def _setbacks(results: Results) -> list[str]:
    """What the trainings say of numbers that were not finite."""
    of_gan = results.gan.notes if results.gan else ()
    of_arms = [(arm.training, arm.model.notes) for arm in results.arms]
    of_leaks = [(leak.training, leak.notes) for leak in results.leaks]
    told = [f"{training.label}: {note}" for training, notes in of_arms + of_leaks for note in notes]
    return [*of_gan, *told]


def named_findings(results: Results) -> list[NamedFindings]:
    """The findings on each trained arm, with what it is an arm of."""
    return [
        NamedFindings(
            network=CLASSIFIERS[arm.training.classifier].display,
            seed=arm.training.seed,
            found=arm.findings(),
        )
        for arm in results.arms
    ]


def judgement_warnings(settings: Settings, judgement: Judgement | None) -> list[str]:
    """What a reader must know of the synthetic images before using the figures."""
    if judgement is None:
        return []
    failed = [] if judgement.passed else [judgement.sentence, *judgement.reasons[1:]]
    overridden = settings.judge.override and not judgement.passed and judgement.kind != "unfinished"
    all_the_same = ["The augmented arms were trained all the same, because judge.override is set."]
    return [*failed, *judgement.not_judged, *(all_the_same if overridden else [])]


def run_claims(settings: Settings, summaries: Sequence[SeedsComparison]) -> list[Claim]:
    """What the run may claim, corrected for all that its settings ask for."""
    arms = settings.arms
    return claims_of(
        summaries,
        baseline=arms.baseline,
        arms=arms.claimed,
        controls=arms.controls,
        asked=len(settings.classifiers.names) * len(arms.claimed),
    )


def _answer(results: Results, claims: Sequence[Claim], pairs: Sequence[ReportPair]) -> str:
    if claims:
        return answer(claims, _unconfirmed([claim for claim in claims if claim.seeds == 1], pairs))
    if results.judgement and (not results.judgement.passed or not results.missing):
        return results.judgement.sentence
    return f"{NOTHING} Parts of it failed." if results.missing else NOTHING


def _report_pair(settings: Settings, comparison: Comparison, galleries: Sequence[Gallery]) -> ReportPair:
    gallery = next((g for g in galleries if g.comparison == comparison.ref), None)
    arms = [arm.findings() for arm in comparison.arms.values()]
    return ReportPair(
        network=CLASSIFIERS[comparison.pair.classifier].display,
        seed=comparison.pair.seed,
        baseline_arm=arms[0].arm,
        augmented_arm=arms[1].arm,
        comparison=comparison.result(),
        curves_png=comparison.file(Comparison.CURVES),
        reliability_png=comparison.file(Comparison.RELIABILITY),
        gallery_png=gallery.file(Gallery.PICTURE) if gallery else None,
        thresholds=thresholds_table(arms, settings.evaluation.min_sensitivity),
        data=_pair_data(settings, comparison, gallery),
    )


def _pair_data(settings: Settings, comparison: Comparison, gallery: Gallery | None) -> list[DataFile]:
    """What the pictures of a pair show, as files."""
    arms = comparison.arms
    files = [
        curves_file(comparison.name, {arm.training.arm: arm.model.history() for arm in arms.values()}),
        reliability_file(comparison.name, {arm.training.arm: arm.findings().calibration for arm in arms.values()}),
    ]
    if gallery is not None and gallery.shown:
        baseline, augmented = (arm.model.predictions() for arm in arms.values())
        chosen = disagreements(baseline, augmented, settings.data.classes, most=settings.evaluation.gallery)
        files.append(gallery_file(comparison.name, chosen))
    return files


def _unpaired(findings: Sequence[NamedFindings], pairs: Sequence[ReportPair]) -> list[UnpairedArm]:
    """Arms that were trained and have no partner."""
    paired = {(p.network, p.seed, arm) for p in pairs for arm in (p.baseline_arm, p.augmented_arm)}
    return [
        UnpairedArm(
            network=each.network,
            seed=each.seed,
            arm=each.found.arm,
            validation=each.found.validation,
            test=each.found.test,
        )
        for each in findings
        if (each.network, each.seed, each.found.arm) not in paired
    ]


def _over_seeds(comparisons: Sequence[Comparison]) -> list[SeedsComparison]:
    """Each classifier, arm and what it is held against, over the seeds that were compared."""
    by_arm: dict[tuple[str, str, str], list[Comparison]] = {}
    for comparison in comparisons:
        pair = comparison.pair
        by_arm.setdefault((pair.arm, pair.against, pair.classifier), []).append(comparison)
    return [
        over_seeds(
            [comparison.result() for comparison in of_arm],
            [
                (
                    comparison.arms["baseline"].model.predictions(),
                    comparison.arms["augmented"].model.predictions(),
                )
                for comparison in of_arm
            ],
            [comparison.pair.seed for comparison in of_arm],
            name=CLASSIFIERS[classifier].display,
        )
        for (*_, classifier), of_arm in by_arm.items()
    ]


def _unconfirmed(claims: Sequence[Claim], pairs: Sequence[ReportPair]) -> dict[str, list[str]]:
    """By arm, the networks whose verdict the sign test does not confirm; over seeds there is no such test."""
    compared = {(pair.network, pair.augmented_arm, pair.baseline_arm): pair.comparison for pair in pairs}
    found: dict[str, list[str]] = {}
    for claim in claims:
        c = compared[claim.name, claim.arm, claim.baseline]
        # On an unbalanced test set macro F1 may rise while more images are lost than won.
        won = c.augmented_better_groups - c.baseline_better_groups
        agrees = c.sign_p * claim.claims < 1 - claim.confidence and (won < 0) == (claim.verdict == "hurts")
        if claim.verdict != "no detectable difference" and not agrees:
            found.setdefault(claim.arm, []).append(claim.name)
    return found


def _two_changes(settings: Settings) -> list[str]:
    return [
        f"The arms {settings.arms.baseline} and {arm} differ in two things, as in the source report: the added images "
        "and classical augmentation. The difference between them cannot be credited to the added images alone."
        for arm in settings.arms.compared
        if settings.arms.changes_classical(arm)
    ]


def _no_control(settings: Settings, real: Mapping[str, int], synthetic: SyntheticSet | None) -> list[str]:
    """What nothing in the run can tell apart from what the synthetic images show."""
    missing = [control for control in settings.arms.controls.values() if control not in settings.arms.names]
    if synthetic is None or not missing:
        return []
    classes = ", ".join(f"{name} {real[name]:,} to {real[name] + n:,}" for name, n in synthetic.counts.items() if n)
    which = join_words([f"the arm {control}" for control in dict.fromkeys(missing)])
    return [
        f"The synthetic set also gives classes more training images ({classes}). More images of a class may help by "
        f"themselves. {which[0].upper()}{which[1:]} would show whether they do. This run did not train "
        f"{'them' if len(set(missing)) > 1 else 'it'}."
    ]


def _protocol(settings: Settings, results: Results) -> list[tuple[str, str]]:
    """How the arms were trained, as terms and their values."""
    chosen, seeds = settings.classifiers, settings.seeds.classifiers
    names = settings.arms.names
    size = f"{chosen.image_size} × {chosen.image_size}"
    rows = [("Image size", size), ("Arms", "; ".join(f"{name}: {ARMS[name].meaning}" for name in names))]
    if any(ARMS[name].classical for name in names):
        views = settings.augmentation.views
        many = "a new version of each image in every epoch" if views is None else f"a pool of {views} versions an image"
        rows.append(("Classical augmentation", many))
    budget = (
        "every arm sees all of its images once an epoch: an arm with more images takes more optimiser steps"
        if chosen.budget == "epochs"
        else "every arm takes as many optimiser steps an epoch, however many images it has"
    )
    until = f"at most {chosen.epochs} epochs, until the validation loss has not fallen for {chosen.patience}"
    rows.append(("Budget", f"{budget}; {until}"))
    if chosen.precision != FULL:
        which = "what the hardware computes fast (auto)" if chosen.precision == AUTO else chosen.precision
        rows.append(("Frozen backbones", f"run in {which}"))
    if chosen.undersample:
        rows.append(("Classes", "undersampled to the smallest"))
    if chosen.class_weights:
        rows.append(("Classes", "weighted in the loss by their rarity"))
    rows.append(("Seeds" if len(seeds) > 1 else "Seed", ", ".join(map(str, seeds))))
    return [*rows, _origin(results)]


def _origin(results: Results) -> tuple[str, str]:
    """What made the synthetic images."""
    if (imported := results.imported) is not None:
        counts = ", ".join(f"{label} {number:,}" for label, number in imported.images.items() if number)
        return "Synthetic images", f"{imported.origin} ({counts}; {imported.rejected:,} files set aside)"
    gan = results.gan
    return "GAN training", f"{gan.epochs:,} epochs, {gan.steps:,} steps" if gan is not None else "none"


def _grids(gan: Gan | None, synthetic: SyntheticSet | None) -> list[SampleGrid]:
    found = []
    if gan is not None and gan.finished and (png := gan.file(Gan.GRID)):
        found.append(SampleGrid(caption="The GAN's fixed grid at the end of training", png=png))
    if synthetic is not None and (png := synthetic.file(SyntheticSet.GRID)):
        caption = f"The synthetic set: {synthetic.origin}" if synthetic.origin else "The synthetic set"
        found.append(SampleGrid(caption=caption, png=png))
    return found


def _honest(comparisons: Sequence[Comparison]) -> dict[tuple[str, int], PairComparison]:
    """The comparison with synthetic images of each classifier and seed; of several arms the first."""
    found: dict[tuple[str, int], PairComparison] = {}
    for comparison in comparisons:
        pair, baseline = comparison.pair, comparison.arms["baseline"].training.arm
        if needs_synthetic(pair.arm) and not needs_synthetic(baseline) and not is_control(baseline):
            found.setdefault((pair.classifier, pair.seed), comparison.result())
    return found
