"""The training runs: which there were, what each found, and how its arms stand beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from cxr_tasks.artifacts import Report, TrainedModel
from cxr_tasks.overview.mlflow_api import MlflowApi, tags_of
from cxr_tasks.strict import Strict
from cxr_tasks.tracking import (
    TAG_CAUSE,
    TAG_DAG_RUN,
    TAG_GAN_RUN,
    TAG_TRAINING_RUNS,
    artifact_url,
    run_url,
    search_url,
    these_runs,
)

# The report as a file of the run, for programs.
ANSWER_FILE = "answer.json"
# Only the run of a training says why it was made. Few runs have the tag, and so MLflow finds them sooner than by what
# all have.
OF_TRAINING = f"tags.`{TAG_CAUSE}` LIKE '%'"
# How many runs can be chosen from.
RUNS_TO_CHOOSE_FROM = 15
ANOTHER_VERSION = "What this run found was written by another version of this program: its report has it."


class TrainingRun(Strict):
    """A DAG run that trained, as MLflow knows it.

    Attributes:
        run_id: In MLflow.
        dag_run: In Airflow.
        name: In MLflow: the source, the profile and the answer.
        begun: When.
        status: ``RUNNING``, ``FINISHED``, ``FAILED`` or ``KILLED``.
        answer: In words; empty where there is none yet.
        dataset: The version that it trained on.
        cause: Why the run was made.
        gan_run: The run in MLflow that trained its GAN; empty where that is not told yet, or there is no GAN.
        experiment: Its id in MLflow.
        url: Its page in MLflow.
        compare: Where MLflow shows the curves of its trainings over each other.
        report: Where people see the report; empty where there is none.
    """

    run_id: str
    dag_run: str
    name: str
    begun: datetime
    status: str
    answer: str = ""
    dataset: str = ""
    cause: str = ""
    gan_run: str = ""
    experiment: str = ""
    url: str = ""
    compare: str = ""
    report: str = ""


class TrainingFound(Strict):
    """What a training found. ``report``: its figures; ``None`` where ``remark`` says why there are none."""

    training: TrainingRun
    report: Report | None = None
    remark: str = ""


def training_runs(mlflow: MlflowApi, experiments: Sequence[str]) -> list[TrainingRun]:
    """The newest training runs, the newest first.

    Args:
        mlflow: The server.
        experiments: Ids of the experiments that they are in.

    Raises:
        MlflowAwayError: There is no answer.
    """
    return [_training_run(each) for each in mlflow.search_runs(experiments, OF_TRAINING, RUNS_TO_CHOOSE_FROM)]


def find_training(mlflow: MlflowApi, run_id: str, among: Sequence[TrainingRun]) -> TrainingRun | None:
    """The run of that id; of no id, the newest that has an answer, or the newest; ``None`` where there is none."""
    if not run_id:
        return next((each for each in among if each.answer), among[0] if among else None)
    known = next((each for each in among if each.run_id == run_id), None)
    if known is not None or not run_id.isalnum():
        return known
    told = mlflow.get("runs/get", run_id=run_id)
    is_training = bool(told) and TAG_CAUSE in tags_of(told["run"])
    return _training_run(told["run"]) if is_training else None


def what_it_found(mlflow: MlflowApi, training: TrainingRun) -> TrainingFound:
    """The figures of a training.

    Raises:
        MlflowAwayError: There is no answer.
    """
    kept = mlflow.file(training.run_id, ANSWER_FILE)
    if kept is None:
        goes_on = training.status == "RUNNING"
        remark = "This run has no figures yet." if goes_on else "This run has left no figures for this page."
        return TrainingFound(training=training, remark=remark)
    try:
        return TrainingFound(training=training, report=Report.model_validate_json(kept))
    except ValidationError:
        return TrainingFound(training=training, remark=ANOTHER_VERSION)


def _training_run(told: Mapping[str, Any]) -> TrainingRun:
    info, tags = told["info"], tags_of(told)
    run_id, experiment = info["run_id"], info["experiment_id"]
    trained = f"tags.`{TAG_DAG_RUN}` = '{tags.get(TAG_DAG_RUN, '')}' AND tags.`cxr.step` = '{TrainedModel.step}'"
    # Trainings that another run made stay there.
    if named := tags.get(TAG_TRAINING_RUNS):
        trained = these_runs(named.split(","))
    return TrainingRun(
        run_id=run_id,
        dag_run=tags.get(TAG_DAG_RUN, ""),
        name=info.get("run_name", ""),
        begun=datetime.fromtimestamp(int(info["start_time"]) / 1000, UTC),
        status=info["status"],
        answer=tags.get("cxr.answer", ""),
        dataset=tags.get("cxr.dataset", ""),
        cause=tags.get(TAG_CAUSE, ""),
        gan_run=tags.get(TAG_GAN_RUN, ""),
        experiment=experiment,
        url=run_url(experiment, run_id),
        compare=search_url(experiment, trained, "metrics.`validation_macro_f1`", charts=True),
        report=artifact_url(experiment, run_id, Report.PAGE) if tags.get("cxr.answer") else "",
    )
