"""The end of a run: what MLflow says of it afterwards, on a real server, and that an incomplete run is no success."""

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.entities import Run

from cxr_tasks import steps, tracking
from cxr_tasks.artifacts import Failure, RunContext
from cxr_tasks.errors import IncompleteError, UserError
from cxr_tasks.store import FolderStore, staging
from cxr_tasks.tracking.closing import MOST_ERROR, TAG_ERROR

BROKEN = [
    Failure(step="train_arm", label="cnn none seed 0", task="arms.train", sentence="It is broken."),
    Failure(step="promote", task="verdict.promote", sentence="MLflow is away."),
]
pytestmark = pytest.mark.usefixtures("store")
WORDS = "arms.train (cnn none seed 0): It is broken.; verdict.promote: MLflow is away."


class DagRun(RunContext):
    """A DAG run in an experiment of its own, with what MLflow says of it."""

    experiment: str

    def now(self) -> Run:
        """The run of the DAG run."""
        return tracking.client().get_run(self.mlflow_run_id)

    def children(self) -> dict[str, tuple[str, str]]:
        """Status and error of each step's run, by the step."""
        found = tracking.client().search_runs(
            [self.experiment_id], f"tags.`mlflow.parentRunId` = '{self.mlflow_run_id}'"
        )
        return {run.info.run_name: (run.info.status, run.data.tags.get(TAG_ERROR, "")) for run in found}


@pytest.fixture
def begin(mlflow_uri: str) -> Callable[..., DagRun]:
    """Begins DAG runs, all in one experiment."""
    experiment = f"dag-{uuid.uuid4().hex}"

    def begun(dag_run: str = "") -> DagRun:
        experiment_id, dag_run = tracking.experiment_id(experiment), dag_run or f"manual__{uuid.uuid4().hex}"
        identity = {tracking.TAG_DAG_RUN: dag_run, tracking.TAG_WORK: "dag run"}
        run_id = tracking.find_or_create(experiment_id, dag_run, identity, {})
        given = {"experiment_id": experiment_id, "mlflow_run_id": run_id, "experiment": experiment}
        return DagRun(dag_run=dag_run, settings="", **given)

    return begun


def kill(run: DagRun, work: str) -> None:
    """Leave the run of a step as a killed task does."""
    identity = {tracking.TAG_DAG_RUN: run.dag_run, tracking.TAG_WORK: work}
    tracking.find_or_create(run.experiment_id, work, identity, {"mlflow.parentRunId": run.mlflow_run_id})


@pytest.mark.slow
class TestInMlflow:
    def test_a_run_without_failures_ends_finished(self, begin: Callable[..., DagRun]) -> None:
        run = begin()
        with tracking.step_run(run, "scan", "scan/a", {}):
            pass

        steps.finish(run.experiment, run.dag_run, [])

        assert (run.now().info.status, run.now().info.end_time is not None) == ("FINISHED", True)
        assert TAG_ERROR not in run.now().data.tags and run.children() == {"scan": ("FINISHED", "")}

    def test_a_run_with_failures_ends_failed_and_says_why(self, begin: Callable[..., DagRun]) -> None:
        run = begin()

        with pytest.raises(IncompleteError, match=r"incomplete, for 2 tasks have failed\. arms\.train \(cnn none seed"):
            steps.finish(run.experiment, run.dag_run, BROKEN)

        assert (run.now().info.status, run.now().data.tags[TAG_ERROR]) == ("FAILED", WORDS)

    def test_what_killed_tasks_left_open_ends_killed_and_nothing_else_is_touched(
        self, begin: Callable[..., DagRun]
    ) -> None:
        run, other = begin(), begin()
        with pytest.raises(ZeroDivisionError), tracking.step_run(run, "judge", "judge/a", {}):
            raise ZeroDivisionError
        with tracking.step_run(run, "train_gan", "train_gan/a", {}):
            pass
        for each in (run, other):
            kill(each, "synthesize")

        with pytest.raises(IncompleteError, match="1 task has failed"):
            steps.finish(run.experiment, run.dag_run, BROKEN[:1])

        killed = ("KILLED", "The task was killed, and has left no word.")
        assert run.children() == {
            "judge": ("FAILED", "ZeroDivisionError."),
            "train_gan": ("FINISHED", ""),
            "synthesize": killed,
        }
        assert other.now().info.status == "RUNNING" and other.children() == {"synthesize": ("RUNNING", "")}

    def test_a_run_that_was_mended_is_not_told_of_as_failed_any_more(self, begin: Callable[..., DagRun]) -> None:
        run = begin()
        with pytest.raises(IncompleteError):
            steps.finish(run.experiment, run.dag_run, BROKEN)

        steps.finish(run.experiment, run.dag_run, [])

        assert run.now().info.status == "FINISHED" and TAG_ERROR not in run.now().data.tags

    def test_very_many_words_are_cut_and_not_refused(self, begin: Callable[..., DagRun]) -> None:
        run = begin()

        steps.close_run(run.experiment, run.dag_run, "word " * 4000)

        assert len(run.now().data.tags[TAG_ERROR]) == MOST_ERROR

    def test_runs_that_go_on_are_known_by_the_dag_run(self, begin: Callable[..., DagRun]) -> None:
        open_run, ended = begin("one"), begin("two")
        kill(open_run, "scan")
        steps.close_run(ended.experiment, ended.dag_run, "")

        assert steps.open_runs(open_run.experiment) == ["one"]

    def test_a_dag_that_never_began_has_nothing_to_close(self, mlflow_uri: str) -> None:
        nobody = f"dag-{uuid.uuid4().hex}"

        steps.close_run(nobody, "one", "It is broken.")

        assert steps.open_runs(nobody) == [] and tracking.client().get_experiment_by_name(nobody) is None


def test_without_tracking_only_the_failures_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_MLFLOW", "off")

    steps.finish("cxr_training", "one", [])
    with pytest.raises(IncompleteError) as told:
        steps.finish("cxr_training", "one", BROKEN)

    assert str(told.value) == f"This run is incomplete, for 2 tasks have failed. {WORDS}"
    # Another try finds the same tasks failed.
    assert isinstance(told.value, UserError) and steps.open_runs("cxr_training") == []


def test_what_killed_tasks_left_in_staging_is_gone_when_the_run_has_ended(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXR_MLFLOW", "off")
    monkeypatch.setattr(staging, "SETTLED_SECONDS", -1.0)
    with staging.staging_folder(store.root, "judge/a") as in_use:
        killed = Path(shutil.copytree(in_use, in_use.with_name(f"{in_use.name}x")))

        with pytest.raises(IncompleteError):
            steps.finish("dag", "run", BROKEN)

        assert in_use.is_dir() and not killed.exists()
