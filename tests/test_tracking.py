"""A step leaves one MLflow run however often it is tried, and an artifact is made once, on a real server."""

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest

from cxr_tasks import tracking
from cxr_tasks.artifacts import Artifact, RunContext
from cxr_tasks.errors import SettingsError
from cxr_tasks.pipeline import Made, Postponed, perform
from cxr_tasks.store import FolderStore

NewRun = Callable[..., RunContext]


class Answer(Artifact):
    """What the step of these tests makes."""

    step = "answer"
    answer: int


class Make:
    """What a step does, with a count of how often it was asked to."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, folder: Path) -> Made[Answer]:
        self.calls += 1
        (folder / "made.txt").write_text(f"call {self.calls}")
        curves = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}]
        return Made(Answer(answer=42), {"accuracy": 0.5}, curves)


def fails(folder: Path) -> Made[Answer]:
    (folder / "half.txt").write_text("half")
    raise ZeroDivisionError


def step(run: RunContext, make: Callable[[Path], Made[Answer]], **options: Any) -> Answer:
    settings = {"gan": {"epochs": 3}}
    return perform(run, Answer, make, settings=settings, inputs={"data": "x"}, label="seed 0", **options)


def runs_of(run: RunContext) -> list[mlflow.entities.Run]:
    """The children of a DAG run."""
    return tracking.client().search_runs([run.experiment_id], f"tags.`mlflow.parentRunId` = '{run.mlflow_run_id}'")


@pytest.fixture
def untracked(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tracking, though the address of a server is known."""
    monkeypatch.setenv("CXR_MLFLOW", "off")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")


def test_missing_address_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    with pytest.raises(
        SettingsError,
        match=r"MLFLOW_TRACKING_URI is not set: give it the address .*, or set CXR_MLFLOW=off",
    ):
        tracking.client()


def test_pages_are_where_people_see_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXR_MLFLOW_UI", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    assert tracking.run_url("1", "abc") == ""
    assert tracking.artifact_url("1", "abc", "a.html") == ""

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000/")
    assert tracking.run_url("1", "abc") == "http://mlflow:5000/#/experiments/1/runs/abc?workflowType=machine_learning"

    monkeypatch.setenv("CXR_MLFLOW_UI", "https://here")
    assert tracking.artifact_url("1", "abc", "a.html") == (
        "https://here/#/experiments/1/runs/abc/artifacts/a.html?workflowType=machine_learning"
    )


@pytest.mark.slow
@pytest.mark.usefixtures("mlflow_uri")
class TestRuns:
    def test_an_experiment_says_what_it_is_unless_somebody_has_said_it(self) -> None:
        client, name, old = tracking.client(), f"experiment-{uuid.uuid4().hex}", f"experiment-{uuid.uuid4().hex}"
        # Of an earlier version, with words of a person.
        client.create_experiment(old, tags={tracking.TAG_NOTE: "ours"})

        told = [client.get_experiment(tracking.experiment_id(each, "what it is")).tags for each in (name, old, old)]

        assert [each[tracking.TAG_NOTE] for each in told] == ["what it is", "ours", "ours"]
        assert all(each["mlflow.experimentKind"] == "custom_model_development" for each in told)

    def test_experiment_is_created_once(self) -> None:
        name = f"experiment-{uuid.uuid4().hex}"

        with ThreadPoolExecutor(4) as threads:
            ids = set(threads.map(lambda _: tracking.experiment_id(name), range(4)))

        assert ids == {tracking.experiment_id(name)}

    def test_run_is_found_again_by_its_identity(self, new_run: NewRun) -> None:
        experiment = new_run().experiment_id
        identity = {tracking.TAG_DAG_RUN: "manual__2026-01-01T00:00:00+00:00", tracking.TAG_WORK: "train_arm cnn"}

        first = tracking.find_or_create(experiment, "name", identity, {"more": "1"})
        again = tracking.find_or_create(experiment, "other name", identity, {})
        other = tracking.find_or_create(experiment, "name", identity | {tracking.TAG_WORK: "train_arm vgg16"}, {})

        assert again == first != other
        found = tracking.client().get_run(first)
        assert identity.items() <= found.data.tags.items()
        assert (found.info.run_name, found.data.tags["more"]) == ("name", "1")

    def test_retried_step_goes_on_in_its_run(self, new_run: NewRun) -> None:
        run = new_run()
        with pytest.raises(ZeroDivisionError), tracking.step_run(run, "work", "step/a", {}) as first:
            mlflow.log_metric("before", 1)
            raise ZeroDivisionError
        assert tracking.client().get_run(first).info.status == "FAILED"

        with tracking.step_run(run, "work", "step/a", {}) as second:
            mlflow.log_metric("after", 2)

        finished = tracking.client().get_run(first)
        assert second == first
        assert finished.info.status == "FINISHED"
        assert finished.data.metrics == {"before": 1, "after": 2}

    def test_step_is_a_child_of_its_dag_run(self, new_run: NewRun) -> None:
        run, other = new_run(), new_run()
        for parent in (run, other):
            with tracking.step_run(parent, "work", "step/a", {"cxr.step": "step"}):
                pass

        (child,) = runs_of(run)
        assert child.info.run_name == "work"
        assert child.data.tags[tracking.TAG_DAG_RUN] == run.dag_run
        assert child.data.tags["cxr.step"] == "step"

    def test_images_are_recorded_as_a_dataset(self, new_run: NewRun) -> None:
        with tracking.step_run(new_run(), "work", "step/a", {}) as active:
            tracking.log_dataset(pd.DataFrame({"image_id": ["a"]}), "test images", "0123456789abcdef", "test")

        (used,) = tracking.client().get_run(active).inputs.dataset_inputs
        assert (used.dataset.name, used.dataset.digest) == ("test images", "0123456789ab")
        assert [tag.value for tag in used.tags] == ["test"]


@pytest.mark.slow
@pytest.mark.usefixtures("mlflow_uri")
class TestPerform:
    def test_first_call_makes_and_logs(self, new_run: NewRun, store: FolderStore) -> None:
        run, make = new_run(), Make()

        answer = step(run, make)

        assert make.calls == 1
        assert (store.fetch(answer.ref) / "made.txt").read_text() == "call 1"
        assert (answer.answer, answer.reused, answer.forced) == (42, False, False)
        assert f"/runs/{answer.mlflow_run_id}?" in answer.url
        logged = tracking.client().get_run(answer.mlflow_run_id)
        assert logged.data.params == {"gan.epochs": "3"}
        assert logged.data.metrics == {"accuracy": 0.5}
        assert logged.data.tags["cxr.artifact"] == answer.ref
        assert logged.data.tags["cxr.step"] == "answer"
        assert logged.data.tags["cxr.reused"] == "false"
        assert logged.info.run_name == "answer seed 0"

    @pytest.mark.usefixtures("store")
    def test_next_run_takes_it_as_it_was_and_shows_its_figures(self, new_run: NewRun) -> None:
        make = Make()
        first = step(new_run(), make)

        second = step(new_run(), make)

        assert make.calls == 1
        assert (second.ref, second.reused, second.answer) == (first.ref, True, 42)
        assert second.mlflow_run_id != first.mlflow_run_id == second.made_by
        logged = tracking.client().get_run(second.mlflow_run_id)
        assert logged.data.metrics["accuracy"] == 0.5
        assert logged.data.tags["cxr.made_by"] == first.mlflow_run_id
        curve = tracking.client().get_metric_history(second.mlflow_run_id, "loss")
        assert [(point.step, point.value) for point in curve] == [(1, 3.0), (2, 2.0)]

    def test_failure_leaves_no_artifact_and_the_retry_goes_on(self, new_run: NewRun, store: FolderStore) -> None:
        run, make = new_run(), Make()
        with pytest.raises(ZeroDivisionError):
            step(run, fails)
        (failed,) = runs_of(run)
        assert failed.info.status == "FAILED"
        assert not list(store.root.rglob("half.txt"))

        answer = step(run, make)

        (finished,) = runs_of(run)
        assert answer.mlflow_run_id == finished.info.run_id == failed.info.run_id
        assert finished.info.status == "FINISHED"
        assert (store.fetch(answer.ref) / "made.txt").is_file()

    @pytest.mark.usefixtures("store")
    def test_retry_after_the_artifact_was_published_did_not_reuse_another_run(self, new_run: NewRun) -> None:
        # The task was killed after publishing and before it could say so.
        run, make = new_run(), Make()
        first = step(run, make)

        second = step(run, make)

        assert make.calls == 1
        assert (second.mlflow_run_id, second.reused) == (first.mlflow_run_id, False)
        tags = tracking.client().get_run(second.mlflow_run_id).data.tags
        assert (tags["cxr.reused"], tags["cxr.made_by"]) == ("false", "this run")

    @pytest.mark.usefixtures("store")
    def test_what_belongs_to_earlier_work_is_logged_to_its_run(self, new_run: NewRun) -> None:
        run = new_run()
        first = step(run, Make())

        within = perform(run, Answer, Make(), settings={"gan": {"epochs": 4}}, inputs={"first": first}, within=first)

        (child,) = runs_of(run)
        assert within.mlflow_run_id == first.mlflow_run_id == child.info.run_id
        assert child.info.status == "FINISHED"
        assert child.data.params == {"gan.epochs": "3"}
        assert child.data.tags["cxr.artifact"] == first.ref

    @pytest.mark.usefixtures("store")
    def test_postponed_work_ends_its_run_well(self, new_run: NewRun) -> None:
        def postpone(folder: Path) -> Made[Answer]:
            raise Postponed(Answer(answer=1), "half-way")

        waiting = step(new_run(), postpone)

        logged = tracking.client().get_run(waiting.mlflow_run_id)
        assert logged.info.status == "FINISHED"
        assert logged.data.tags["cxr.reused"] == "false"


@pytest.mark.usefixtures("untracked")
class TestSwitchedOff:
    def test_nothing_is_asked_of_a_server(self, tmp_path: Path) -> None:
        run = RunContext(dag_run="one", settings="settings/one")
        with tracking.step_run(run, "work", "step/a", {}) as first, tracking.reopen(first) as again:
            tracking.log_params({"a": 1})
            tracking.log_metrics({"a": 1.0})
            tracking.log_curves([{"step": 1, "a": 1.0}])
            tracking.log_text("a", "a.txt")
            tracking.log_file(tmp_path / "nothing")
            tracking.log_folder(tmp_path, "folder")
            tracking.log_table(pd.DataFrame({"a": [1]}), "a.json")
            tracking.log_dataset(pd.DataFrame({"a": [1]}), "images", "0123456789abcdef", "test")
            tracking.set_tags({"a": "1"})
            tracking.set_reused(None)
        with tracking.step_run(run, "work", "step/a", {}) as second:
            pass

        assert again == first != second
        pages = (tracking.run_url("1", "a"), tracking.artifact_url("1", "a", "b"), tracking.search_url("1", "", ""))
        assert pages == ("", "", "")
        assert tracking.active_artifact_url("a") == ""

    def test_what_needs_a_server_says_so(self) -> None:
        with pytest.raises(SettingsError, match="MLflow is needed here, and CXR_MLFLOW is off"):
            tracking.client()


def test_a_search_has_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000/")

    search = tracking.search_url("7", "tags.`cxr.step` = 'compare'", "metrics.`macro_f1_difference`")
    curves = tracking.search_url("7", "", "", charts=True)

    assert search.startswith("http://mlflow:5000/#/experiments/7/runs?searchFilter=tags.%60cxr.step%60%20%3D%20%27")
    assert curves.endswith("&compareRunsMode=CHART&workflowType=machine_learning") and "compareRunsMode" not in search
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    assert tracking.search_url("7", "", "") == ""


def test_every_version_of_every_registered_model_is_told_with_its_tags_and_aliases(mlflow_uri):
    server, name = tracking.client(), f"cxr-{uuid.uuid4().hex}"
    server.create_registered_model(name)
    for number in range(1, 4):
        server.create_model_version(name, "s3://bucket/model", tags={"cxr.artifact": f"train_arm/{number}"})
    for alias in ("champion", "challenger"):
        server.set_registered_model_alias(name, alias, "2")

    found = {each.version: each for each in tracking.registered_versions() if each.name == name}

    assert {version: each.tags["cxr.artifact"] for version, each in found.items()} == {
        "1": "train_arm/1",
        "2": "train_arm/2",
        "3": "train_arm/3",
    }
    assert {version: set(each.aliases) for version, each in found.items()} == {
        "1": set(),
        "2": {"champion", "challenger"},
        "3": set(),
    }
