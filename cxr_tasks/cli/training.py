"""``cxr train-gan``, ``train-arm``, ``compare`` and ``report``: steps by hand, after all that they need."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cxr_tasks import tracking
from cxr_tasks.artifacts import Artifact, Comparison, Judgement, Report, TrainedModel, Training
from cxr_tasks.cli.options import (
    DEFAULT_PROFILE,
    DEFAULT_STORE,
    ArmOption,
    ClassifierOption,
    ForceOption,
    JsonOption,
    MlflowOption,
    OwnSourceArgument,
    ProfileOption,
    SeedOption,
    SetOption,
    SourceArgument,
    StoreOption,
    SyntheticArgument,
    by_hand,
    set_overrides,
)
from cxr_tasks.cli.tables import claims_table, external_results_table, models_table, pairs_table, report_table
from cxr_tasks.cli.terminal import Display, open_console, print_json, print_warnings
from cxr_tasks.config import Settings, merge, resolve
from cxr_tasks.durations import time_taken
from cxr_tasks.errors import UserError
from cxr_tasks.local import LocalRun, absolute_source
from cxr_tasks.store import open_store

if TYPE_CHECKING:
    from rich.console import Console

BRANCHES_FAILED = 1


def train_gan_command(
    source: OwnSourceArgument = "",
    profile: ProfileOption = DEFAULT_PROFILE,
    changes: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    mlflow: MlflowOption = "",
    force: ForceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train the GAN on the training images.

    Goes on from the last checkpoint where an earlier training with the same data and settings was interrupted.
    """
    with _local_run(source, profile, set_overrides(changes), store, mlflow, force) as run:
        gan = run.gan
    if as_json:
        print_json(gan.model_dump_json(indent=2))
        return
    console = open_console()
    if not gan.finished:
        console.print(gan.state, markup=False)
        return
    console.print(
        f"Trained for {gan.epochs:,} epochs ({gan.steps:,} steps) on {gan.images:,} images "
        f"in {time_taken(3600 * gan.hours)}."
    )
    _print_place(console, gan, (gan.GENERATOR, gan.GRID, gan.ANIMATION))


def judge_command(
    real: SourceArgument,
    synthetic: SyntheticArgument,
    profile: ProfileOption = DEFAULT_PROFILE,
    changes: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    mlflow: MlflowOption = "",
    force: ForceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge synthetic images that others have made, by class, against real ones.

    Says how near they are to the real training images, and whether they copy real images of any split. A report with
    synthetic.source set to the same address takes what was made here.

    Exit status: 0 whatever the verdict is, 2 the images could not be judged.
    """
    changed = merge(set_overrides(changes), {"synthetic": {"source": absolute_source(synthetic)}})
    with _local_run(real, profile, changed, store, mlflow, force) as run:
        judgement = run.judgement
        quality = judgement.quality()
    if as_json:
        told = {**judgement.model_dump(mode="json"), "quality": quality.model_dump(mode="json")}
        print_json(json.dumps(told, indent=2))
        return
    from cxr_tasks.report.run_tables import quality_tables

    console = open_console()
    for table in quality_tables(judgement):
        console.print(report_table(table))
    console.print(f"\n{judgement.sentence}\n", markup=False)
    doubts = (*judgement.reasons[1:], *judgement.not_judged, *(f"{each}." for each in judgement.warnings))
    print_warnings(console, "Before you use them:", doubts)
    _print_place(console, judgement, (Judgement.QUALITY, Judgement.COPIES))


def train_arm_command(
    classifier: ClassifierOption,
    arm: ArmOption,
    source: OwnSourceArgument = "",
    seed: SeedOption = None,
    profile: ProfileOption = DEFAULT_PROFILE,
    changes: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    mlflow: MlflowOption = "",
    force: ForceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train one classifier on one arm's training set with one seed, and test it on real images.

    What the training needs is made first: the dataset, features of a frozen backbone, and for arms with synthetic
    images the GAN.
    """
    settings = resolve(profile, set_overrides(changes))
    training = _training(settings, classifier, arm, seed)
    with _local_run(source, profile, _naming(settings, training, changes), store, mlflow, force) as run:
        trained = run.arm(training)
    if as_json:
        print_json(trained.model_dump_json(indent=2))
        return
    console, model = open_console(), trained.model
    console.print(
        f"{training.label}: macro F1 {trained.validation_macro_f1:.3f} on validation images, "
        f"{trained.test_macro_f1:.3f} on test images; accuracy {trained.test_accuracy:.3f} on test images."
    )
    console.print(f"Trained for {model.epochs:,} epochs ({model.steps:,} steps) on {model.train_images:,} images.")
    _print_place(console, model, (TrainedModel.MODEL, TrainedModel.PREDICTIONS, TrainedModel.HISTORY))


def compare_command(
    classifier: ClassifierOption,
    arm: ArmOption,
    source: OwnSourceArgument = "",
    seed: SeedOption = None,
    profile: ProfileOption = DEFAULT_PROFILE,
    changes: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    mlflow: MlflowOption = "",
    force: ForceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare one arm of a classifier with its baseline, on the same real test images.

    Both arms are trained first, where they are not yet. The profile names the baseline (arms.baseline).
    """
    settings = resolve(profile, set_overrides(changes))
    training = _training(settings, classifier, arm, seed)
    with _local_run(source, profile, _naming(settings, training, changes), store, mlflow, force) as run:
        comparison = run.comparison(training)
        result = comparison.result()
    if as_json:
        print_json(result.model_dump_json(indent=2))
        return
    console = open_console()
    console.print(result.sentence, markup=False)
    _print_place(console, comparison, (Comparison.RESULT, Comparison.CONFUSION, Comparison.CURVES))


def report_command(
    source: OwnSourceArgument = "",
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Where the report goes, as HTML. Its PDF goes beside it.")
    ] = Path(Report.PAGE),
    profile: ProfileOption = DEFAULT_PROFILE,
    changes: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    mlflow: MlflowOption = "",
    force: ForceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train and compare everything that the profile names, and write the report.

    Does what both DAGs do, one step after the other. Models are registered only with --mlflow.

    Exit status: 0 all went well, 1 a part failed and the report says what is missing, 2 there is no report.
    """
    out = out.expanduser().absolute()
    if out.suffix == ".pdf":
        raise UserError(f"--out names the page, and the PDF goes beside it: give it an HTML file and not {out.name}.")
    if not out.parent.is_dir():
        raise UserError(f"The folder {out.parent} does not exist: make it, or give --out another path.")
    with _local_run(source, profile, set_overrides(changes), store, mlflow, force) as run:
        report = run.report()
        shutil.copyfile(report.folder() / Report.PAGE, out)
        # What could not be laid out is no PDF; a note of the step says so.
        if has_pdf := (report.folder() / Report.PDF).is_file():
            shutil.copyfile(report.folder() / Report.PDF, out.with_suffix(".pdf"))
        else:
            # One of before would pass for this page's.
            out.with_suffix(".pdf").unlink(missing_ok=True)
    if as_json:
        print_json(report.model_dump_json(indent=2))
    else:
        _show_report(open_console(), report, run.failures)
        typer.echo(f"Report  {out}")
        if has_pdf:
            typer.echo(f"PDF     {out.with_suffix('.pdf')}")
    if run.failures:
        raise typer.Exit(BRANCHES_FAILED)


@contextmanager
def _local_run(
    source: str,
    profile: str,
    settings: Mapping[str, Any],
    store: str,
    mlflow: str,
    force: list[str] | None,
) -> Iterator[LocalRun]:
    """A local run whose steps are shown; however it ends, it is closed in MLflow too."""
    form = by_hand(profile, settings, store, mlflow, force)
    with Display() as display:
        run = LocalRun(source, form, display)
        try:
            yield run
        except BaseException as error:
            run.end(error)
            raise
        run.end()


def _training(settings: Settings, classifier: str, arm: str, seed: int | None) -> Training:
    chosen = settings.seeds.classifiers[0] if seed is None else seed
    return Training(classifier=classifier, arm=arm, seed=chosen)


def _naming(settings: Settings, training: Training, changes: list[str] | None) -> dict[str, Any]:
    """The settings given by hand, and those that make ``training`` one of the trainings that they name."""
    given = set_overrides(changes)
    if training.classifier not in settings.classifiers.names:
        names = [*settings.classifiers.names, training.classifier]
        given = merge(given, {"classifiers": {"names": names}})
    if training.arm not in settings.arms.names:
        given = merge(given, {"arms": {"compared": [*settings.arms.compared, training.arm]}})
    if training.seed not in settings.seeds.classifiers:
        given = merge(given, {"seeds": {"classifiers": [*settings.seeds.classifiers, training.seed]}})
    return given


def _print_place(console: Console, artifact: Artifact, files: tuple[str, ...]) -> None:
    """Say where the files of an artifact are."""
    console.print(f"Files in {open_store().where(artifact.ref)}: {', '.join(files)}", markup=False)
    if artifact.url and tracking.is_on():
        console.print(f"MLflow   {artifact.url}", markup=False)


def _show_report(console: Console, report: Report, failures: Mapping[str, Exception]) -> None:
    if report.pairs:
        console.print(pairs_table([pair.model_dump() for pair in report.pairs]))
    if report.claims:
        console.print(claims_table([claim.model_dump() for claim in report.claims]))
    if report.external:
        console.print(external_results_table([row.model_dump() for row in report.external]))
    if report.champions:
        console.print(models_table([decision.model_dump() for decision in report.champions]))
    console.print(f"\n{report.answer}\n", markup=False)
    print_warnings(console, "Before you use it:", report.warnings)
    for work, error in failures.items():
        console.print(f"Failed: {work}: {error}", style="red", markup=False)
