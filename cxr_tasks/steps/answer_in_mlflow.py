"""What people see of a training in MLflow: the answer, in the list of runs and on the page of the run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from urllib.parse import urlsplit

from cxr_tasks import tracking
from cxr_tasks.artifacts import Artifact, ClaimRow, Dataset, Gan, PairRow, Report, RunContext, TrainedArm
from cxr_tasks.markdown import in_markdown, markdown_links, markdown_list, markdown_table
from cxr_tasks.names import slug
from cxr_tasks.overview.trainings import ANSWER_FILE
from cxr_tasks.pipeline import load_settings
from cxr_tasks.steps.common import training_name
from cxr_tasks.steps.mlflow_views import BEST_FIRST

# MLflow refuses notes of more than 8000 characters.
MOST_NOTE = 7900
# So many trainings are named in the note; the others are one link away.
NAMED_TRAININGS = 12
TRAININGS_FILE = "trainings.json"
TRAININGS_COLUMNS = [
    "training", "validation_macro_f1", "test_macro_f1", "seconds", "made_by", "mlflow_run", "address"
]  # fmt: skip


def show_answer(
    run: RunContext, dataset: Dataset, report: Report, trained: Sequence[TrainedArm] = (), gan: Gan | None = None
) -> None:
    """Name the MLflow run of a DAG run by its answer, and keep its figures as metrics, as a note and as a file.

    Args:
        run: The DAG run.
        dataset: What it trained on.
        report: What it says.
        trained: Its arms. Those that were made by other runs stay there, and links lead to them.
        gan: Its GAN; ``None`` where there is none.
    """
    if not tracking.is_on():
        return
    # A source of several places has no name of its own.
    source = urlsplit(dataset.source).path.rstrip("/").rpartition("/")[2] or "several sources"
    name = f"{source} · {load_settings(run).profile} · {_in_short(report.claims)}"
    best = sorted(trained, key=lambda arm: arm.validation_macro_f1, reverse=True)
    tags = {
        tracking.TAG_NAME: name,
        tracking.TAG_NOTE: _note(run, dataset, report, best, gan),
        "cxr.dataset": dataset.version,
        "cxr.answer": report.answer,
    }
    metrics = _metrics(report)
    ids = ",".join(sorted({arm.mlflow_run_id for arm in best}))
    # MLflow refuses a longer tag, and with it all that is told beside it.
    if ids and len(ids) < MOST_NOTE:
        tags[tracking.TAG_TRAINING_RUNS] = ids
    if best:
        metrics["best_validation_macro_f1"] = best[0].validation_macro_f1
        metrics["best_test_macro_f1"] = best[0].test_macro_f1
        tags |= {
            "cxr.best": training_name(best[0].training),
            "cxr.taken": f"{sum(not arm.shown_here for arm in best)} of {len(best)}",
        }
        tracking.log_text(_trainings_table(best), TRAININGS_FILE, run.mlflow_run_id)
    tracking.set_tags(tags, run.mlflow_run_id)
    tracking.log_metrics(metrics, run_id=run.mlflow_run_id)
    tracking.log_text(report.model_dump_json(), ANSWER_FILE, run.mlflow_run_id)


def trainings_of(trained: Sequence[TrainedArm]) -> str:
    """What finds the MLflow runs of trainings, in MLflow's search language, whichever DAG runs made them."""
    return tracking.these_runs(arm.mlflow_run_id for arm in trained)


def _trainings_table(trained: Sequence[TrainedArm]) -> str:
    """A row a training, in the form that MLflow shows as a table."""
    rows = [
        [
            training_name(arm.training),
            arm.validation_macro_f1,
            arm.test_macro_f1,
            arm.model.seconds,
            "this run" if arm.shown_here else "an earlier run",
            arm.mlflow_run_id,
            arm.url,
        ]
        for arm in trained
    ]
    return json.dumps({"columns": TRAININGS_COLUMNS, "data": rows})


def _in_short(claims: Sequence[ClaimRow]) -> str:
    """The verdicts in a few words: what helps or hurts, and nothing else where something does."""
    found = [f"{each.arm} {each.verdict} ({each.classifier})" for each in claims if each.verdict in ("helps", "hurts")]
    others = dict.fromkeys(each.verdict for each in claims)
    return ", ".join(found or others) or "nothing compared"


def _metrics(report: Report) -> dict[str, float]:
    """Differences with their intervals, and the test macro F1 of each arm as a mean over seeds."""
    metrics: dict[str, float] = {"parts_missing": len(report.missing)}
    for claim in report.claims:
        key = slug(f"{claim.classifier}_{claim.arm}")
        metrics |= {f"{key}_difference": claim.difference, f"{key}_p_value": claim.p_value}
        metrics |= {f"{key}_difference_low": claim.low, f"{key}_difference_high": claim.high}
    return metrics | {f"{name}_macro_f1": sum(of) / len(of) for name, of in _by_arm(report.pairs).items()}


def _by_arm(pairs: Sequence[PairRow]) -> dict[str, list[float]]:
    """Test macro F1 of each seed, by classifier and arm."""
    by_seed: dict[str, dict[int, float]] = {}
    for each in pairs:
        for arm, score in ((each.baseline_arm, each.baseline_macro_f1), (each.arm, each.augmented_macro_f1)):
            by_seed.setdefault(slug(f"{each.classifier}_{arm}"), {})[each.seed] = score
    return {name: list(scores.values()) for name, scores in by_seed.items()}


def _note(run: RunContext, dataset: Dataset, report: Report, best: Sequence[TrainedArm], gan: Gan | None) -> str:
    rows = [
        [
            each.classifier,
            f"{each.arm} against {each.baseline_arm}",
            f"{100 * each.difference:+.1f} ({100 * each.low:+.1f} to {100 * each.high:+.1f})",
            each.verdict,
        ]
        for each in report.claims
    ]
    head = ["Classifier", "Arms", "Macro F1, points (joint interval)", "Verdict"]
    champions = [f"{each.name} version {each.version}: {each.decision}" for each in report.champions]
    missing = [f"Missing: {each.what}. {each.why}" for each in report.missing]
    links = markdown_links({"The report": report.address, "Data Docs": dataset.data_docs})
    parts = [
        f"**{in_markdown(report.answer)}**",
        markdown_table(head, rows) if rows else "",
        markdown_list([*champions, *missing]),
        links,
        _trainings_note(best, gan),
        markdown_links({f"All {len(best)} trainings": _address(run, best)}) if best else "",
    ]
    note = ""
    for part in parts:
        # MLflow refuses a longer note whole.
        if part and len(note) + len(part) < MOST_NOTE:
            note += f"{part}\n\n"
    return note.strip()


def _address(run: RunContext, trained: Sequence[TrainedArm]) -> str:
    return tracking.search_url(run.experiment_id, trainings_of(trained), BEST_FIRST)


def _trainings_note(best: Sequence[TrainedArm], gan: Gan | None) -> str:
    """Links to the MLflow runs of the trainings, the best first."""
    pages: list[tuple[str, Artifact]] = [
        (f"{training_name(arm.training)}: macro F1 {arm.validation_macro_f1:.3f} on validation images", arm)
        for arm in best[:NAMED_TRAININGS]
    ]
    pages += [("GAN", gan)] if gan is not None else []
    lines = [
        f"- [{in_markdown(words)}]({each.url}){'' if each.shown_here else ', made by an earlier run'}"
        for words, each in pages
        if each.url
    ]
    return "\n".join(["Trainings, the best first:", "", *lines]) if lines else ""
