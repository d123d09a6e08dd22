"""The step ``write_report``: the report of a run, kept with the run in MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cxr_tasks import tracking
from cxr_tasks.artifacts import (
    Artifact,
    ClaimRow,
    Comparison,
    Dataset,
    ExternalResults,
    Failure,
    Features,
    Gallery,
    Gan,
    ImportedImages,
    Judgement,
    LeakedModel,
    PairRow,
    Report,
    Ruled,
    RunContext,
    SyntheticSet,
    TrainedArm,
    TrainedModel,
)
from cxr_tasks.pipeline import Made, load_settings, perform
from cxr_tasks.report.missing import Planned, missing_parts
from cxr_tasks.report.results import Results
from cxr_tasks.steps.answer_in_mlflow import show_answer, trainings_of
from cxr_tasks.steps.common import Mapped, flat
from cxr_tasks.steps.mlflow_views import BEST_FIRST
from cxr_tasks.steps.plan import arms, leaks, pairs, wants_synthetic

if TYPE_CHECKING:
    from cxr_tasks.evaluation.claims import Claim
    from cxr_tasks.evaluation.comparison import PairComparison
    from cxr_tasks.report.render import Link


def write_report(
    run: RunContext,
    dataset: Dataset,
    gan: Gan | None,
    judgement: Judgement | None,
    synthetic: SyntheticSet | None,
    comparisons: list[Comparison | None],
    galleries: list[Gallery | None] | None,
    leaks: list[LeakedModel | None] | None,
    features: Mapped[Features],
    ruled: list[Ruled | None] | None,
    external: list[ExternalResults | None] | None = None,
    trained: Mapped[TrainedArm] | None = None,
    failures: list[Failure] | None = None,
    imported: ImportedImages | None = None,
) -> Report:
    """Write the run's report and keep it with the run in MLflow.

    What was skipped or failed is ``None``, or not among its like. The report says what is missing. ``failures`` say
    why; ``trained`` are the arms, also those whose comparison is missing. Of ``ruled`` the first that is there counts.
    """
    decided = next(flat([ruled]), None)
    results = Results(
        dataset=dataset,
        gan=gan,
        judgement=judgement,
        synthetic=synthetic,
        comparisons=list(flat([comparisons])),
        galleries=list(flat([galleries])),
        leaks=list(flat([leaks])),
        features=list(flat(features)),
        ruled=decided,
        trained=list(flat(trained or [])),
        imported=imported,
        external=list(flat([external])),
    )
    missing = missing_parts(_planned(run), results, failures or [])
    results = replace(results, missing=missing)

    def fill(folder: Path) -> Made[Report]:
        from cxr_tasks.report.content import gather
        from cxr_tasks.report.external_tables import external_rows
        from cxr_tasks.report.pdf import pdf_or_reason
        from cxr_tasks.report.render import data_files, render_report

        content = gather(load_settings(run), results, _links(run, dataset, results.arms))
        claims = tuple(map(_claim_row, content.claims))
        page = render_report(content)
        (folder / Report.PAGE).write_text(page, encoding="utf-8")
        pdf, reason = pdf_or_reason(page)
        if pdf:
            (folder / Report.PDF).write_bytes(pdf)
        (folder / Report.DATA).mkdir()
        for file in data_files(content):
            (folder / Report.DATA / file.name).write_text(file.csv, encoding="utf-8", newline="")
        report = Report(
            answer=content.answer,
            warnings=tuple(content.warnings),
            claims=claims,
            pairs=tuple(_row(pair.network, pair.seed, pair.comparison) for pair in content.pairs),
            champions=decided.decisions if decided is not None else (),
            address=tracking.artifact_url(run.experiment_id, run.mlflow_run_id, Report.PAGE),
            missing=tuple(missing),
            external=tuple(external_rows(results.external, results.ruled)),
            notes=(reason,) if reason else (),
        )
        return Made(report)

    # A report speaks of one run and links to it, so no other run's report can stand in for it.
    inputs: dict[str, Artifact | str] = {"dag_run": run.dag_run, "work": run.mlflow_run_id}
    parts = {"gan": gan, "imported": imported, "judgement": judgement, "synthetic": synthetic, "ruled": decided}
    inputs |= {name: part for name, part in parts.items() if part is not None and part.ref}
    for name, handles in (
        ("comparison", results.comparisons),
        ("gallery", results.galleries),
        ("leak", results.leaks),
        ("features", results.features),
        ("arm", results.arms),
        ("external", results.external),
    ):
        inputs |= {f"{name} {i}": handle for i, handle in enumerate(handles)}
    told = {"missing": [part.model_dump() for part in missing]}
    report = perform(run, Report, fill, version=11, settings=told, inputs=inputs)
    # Each time: an earlier try may have been ended before MLflow had all of it.
    _show(run, report)
    show_answer(run, dataset, report, results.arms, gan)
    if gan is not None:
        tracking.set_tags({tracking.TAG_GAN_RUN: gan.made_by}, run.mlflow_run_id)
    return report


def _show(run: RunContext, report: Report) -> None:
    """Keep the report's files with the run in MLflow."""
    folder = report.folder()
    for name in (Report.PAGE, Report.PDF):
        if (folder / name).is_file():
            tracking.log_file(folder / name, run.mlflow_run_id)
    tracking.log_folder(folder / Report.DATA, Report.DATA, run.mlflow_run_id)


def _planned(run: RunContext) -> Planned:
    """What the run was to make."""
    settings = load_settings(run)
    return Planned(
        trainings=[*arms(run, False), *arms(run, True)],
        pairs=pairs(run),
        leaks=leaks(run),
        synthetic=wants_synthetic(run),
        imported=settings.synthetic.is_imported,
        galleries=settings.evaluation.gallery > 0,
        promotion=tracking.is_on(),
        external=[each.name for each in settings.data.external],
    )


def _links(run: RunContext, dataset: Dataset, trained: Sequence[TrainedArm]) -> list[Link]:
    """Where to go on: pages, and a saved search in MLflow for each question that people ask next."""
    from cxr_tasks.report.render import Link

    experiment = run.experiment_id
    on_data = f"tags.`cxr.dataset` = '{dataset.version}'"
    answered = f"{on_data} AND tags.`{tracking.TAG_WORK}` = 'dag run'"
    ever_trained = f"{on_data} AND tags.`{tracking.TAG_STEP}` = '{TrainedModel.step}'"
    return [
        Link(label="This run in MLflow: parameters, metrics, figures and models", url=run.url),
        *_of_trainings(experiment, trained),
        Link(
            label="What has helped on this dataset so far? The answer of every run",
            url=tracking.search_url(experiment, answered, "attributes.start_time"),
        ),
        Link(
            label="What has been trained on this dataset so far? Every arm, of all runs",
            url=tracking.search_url(experiment, ever_trained, BEST_FIRST),
        ),
        Link(label="The data validation page (Data Docs)", url=dataset.data_docs),
    ]


def _of_trainings(experiment: str, trained: Sequence[TrainedArm]) -> list[Link]:
    """Searches for the trainings of the run; none where there are none."""
    from cxr_tasks.report.render import Link

    if not trained:
        return []
    of_run = trainings_of(trained)
    return [
        Link(
            label="How did these trainings go? Their curves over each other",
            url=tracking.search_url(experiment, of_run, BEST_FIRST, charts=True),
        ),
        Link(
            label="Which training of this run is best on the validation images?",
            url=tracking.search_url(experiment, of_run, BEST_FIRST),
        ),
    ]


def _claim_row(claim: Claim) -> ClaimRow:
    """One line of what the run may claim, for the terminal and for programs."""
    first, second = claim.against_baseline, claim.against_control
    return ClaimRow(
        classifier=claim.name,
        seeds=claim.seeds,
        baseline_arm=claim.baseline,
        arm=claim.arm,
        difference=first.mean,
        low=first.low,
        high=first.high,
        p_value=first.p_value,
        detectable=claim.detectable,
        control=claim.control,
        beyond_control=second.mean if second else None,
        beyond_control_low=second.low if second else None,
        beyond_control_high=second.high if second else None,
        claims=claim.claims,
        verdict=claim.verdict,
    )


def _row(network: str, seed: int, comparison: PairComparison) -> PairRow:
    """One pair's line of the table of comparisons by themselves, for the terminal and for programs."""
    return PairRow(
        classifier=network,
        seed=seed,
        baseline_arm=comparison.baseline_arm,
        arm=comparison.augmented_arm,
        baseline_macro_f1=comparison.baseline_test["macro_f1"],
        augmented_macro_f1=comparison.augmented_test["macro_f1"],
        difference=comparison.macro_f1_difference,
        low=comparison.macro_f1_low,
        high=comparison.macro_f1_high,
        detectable=comparison.detectable,
        p_value=comparison.p_value,
        sign_p=comparison.sign_p,
        test_images=comparison.images,
        verdict=comparison.verdict,
    )
