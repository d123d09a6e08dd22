"""A step leaves one MLflow run however often it is tried, and an artifact is made once, on a real server."""

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from cxr_tasks import tracking
from cxr_tasks.errors import SettingsError
from cxr_tasks.execution import Record, RunContext, StepResult, perform
from cxr_tasks.store import FolderStore

NewRun = Callable[..., RunContext]


class Make:
    """What a step does, with a count of how often it was asked to."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, folder: Path, record: Record) -> None:
        self.calls += 1
        (folder / "made.txt").write_text(f"call {self.calls}")
        record["metrics"] = {"accuracy": 0.5}
        record["curves"] = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}]
        record["summary"] = {"answer": 42}


def fails(folder: Path, record: Record) -> None:
    (folder / "half.txt").write_text("half")
    raise ZeroDivisionError


def step(run: RunContext, make: Callable[[Path, Record], None], name: str = "step", **inputs: StepResult | str):
    return perform(run, name, make, settings={"gan": {"epochs": 3}}, inputs=inputs or {"data": "x"}, label="seed 0")


def runs_of(run: RunContext) -> list[mlflow.entities.Run]:
    """The children of a DAG run."""
    return tracking.client().search_runs(
        [run["experiment_id"]], f"tags.`mlflow.parentRunId` = '{run['mlflow_run_id']}'"
    )


def test_missing_address_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    with pytest.raises(SettingsError, match="MLFLOW_TRACKING_URI is not set: give it the address"):
        tracking.client()


def test_pages_are_where_people_see_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXR_MLFLOW_UI", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    assert tracking.run_url("1", "abc") == ""
    assert tracking.artifact_url("1", "abc", "a.html") == ""

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000/")
    assert tracking.run_url("1", "abc") == "http://mlflow:5000/#/experiments/1/runs/abc"

    monkeypatch.setenv("CXR_MLFLOW_UI", "https://here")
    assert tracking.artifact_url("1", "abc", "a.html") == "https://here/#/experiments/1/runs/abc/artifacts/a.html"


@pytest.mark.slow
@pytest.mark.usefixtures("mlflow_uri")
class TestRuns:
    def test_experiment_is_created_once(self) -> None:
        name = f"experiment-{uuid.uuid4().hex}"

        with ThreadPoolExecutor(4) as threads:
            ids = set(threads.map(lambda _: tracking.experiment_id(name), range(4)))

        assert ids == {tracking.experiment_id(name)}

    def test_run_is_found_again_by_its_identity(self, new_run: NewRun) -> None:
        experiment = new_run()["experiment_id"]
        identity = {tracking.TAG_DAG_RUN: "manual__2026-01-01T00:00:00+00:00", tracking.TAG_WORK: "train_arm cnn"}

        first = tracking.find_or_create(experiment, "name", identity, {"more": "1"})
        again = tracking.find_or_create(experiment, "other name", identity, {})
        other = tracking.find_or_create(experiment, "name", identity | {tracking.TAG_WORK: "train_arm vgg16"}, {})

        assert again.info.run_id == first.info.run_id != other.info.run_id
        assert identity.items() <= first.data.tags.items()
        assert (first.info.run_name, first.data.tags["more"]) == ("name", "1")

    def test_retried_step_goes_on_in_its_run(self, new_run: NewRun) -> None:
        run = new_run()
        with pytest.raises(ZeroDivisionError), tracking.step_run(run, "work", "step/a", {}) as first:
            mlflow.log_metric("before", 1)
            raise ZeroDivisionError
        assert tracking.client().get_run(first.info.run_id).info.status == "FAILED"

        with tracking.step_run(run, "work", "step/a", {}) as second:
            mlflow.log_metric("after", 2)

        finished = tracking.client().get_run(first.info.run_id)
        assert second.info.run_id == first.info.run_id
        assert finished.info.status == "FINISHED"
        assert finished.data.metrics == {"before": 1, "after": 2}

    def test_step_is_a_child_of_its_dag_run(self, new_run: NewRun) -> None:
        run, other = new_run(), new_run()
        for parent in (run, other):
            with tracking.step_run(parent, "work", "step/a", {"cxr.step": "step"}):
                pass

        (child,) = runs_of(run)
        assert child.info.run_name == "work"
        assert child.data.tags[tracking.TAG_DAG_RUN] == run["dag_run"]
        assert child.data.tags["cxr.step"] == "step"

    def test_images_are_recorded_as_a_dataset(self, new_run: NewRun) -> None:
        with tracking.step_run(new_run(), "work", "step/a", {}) as active:
            tracking.log_dataset(pd.DataFrame({"image_id": ["a"]}), "test images", "0123456789abcdef", "test")

        (used,) = tracking.client().get_run(active.info.run_id).inputs.dataset_inputs
        assert (used.dataset.name, used.dataset.digest) == ("test images", "0123456789ab")
        assert [tag.value for tag in used.tags] == ["test"]


@pytest.mark.slow
@pytest.mark.usefixtures("mlflow_uri")
class TestPerform:
    def test_first_call_makes_and_logs(self, new_run: NewRun, store: FolderStore) -> None:
        run, make = new_run(), Make()

        result = step(run, make)

        assert make.calls == 1
        assert (store.fetch(result["ref"]) / "made.txt").read_text() == "call 1"
        assert (result["step"], result["reused"], result["forced"]) == ("step", False, False)
        assert result["summary"] == {"answer": 42}
        assert result["url"].endswith(f"/runs/{result['mlflow_run_id']}")
        logged = tracking.client().get_run(result["mlflow_run_id"])
        assert logged.data.params == {"gan.epochs": "3"}
        assert logged.data.metrics == {"accuracy": 0.5}
        assert logged.data.tags["cxr.artifact"] == result["ref"]
        assert logged.data.tags["cxr.reused"] == "false"
        assert logged.info.run_name == "step seed 0"

    @pytest.mark.usefixtures("store")
    def test_next_run_takes_it_as_it_was_and_shows_its_figures(self, new_run: NewRun) -> None:
        make = Make()
        first = step(new_run(), make)

        second = step(new_run(), make)

        assert make.calls == 1
        assert (second["ref"], second["reused"], second["summary"]) == (first["ref"], True, {"answer": 42})
        assert second["mlflow_run_id"] != first["mlflow_run_id"]
        logged = tracking.client().get_run(second["mlflow_run_id"])
        assert logged.data.metrics["accuracy"] == 0.5
        assert logged.data.tags["cxr.made_by"] == first["mlflow_run_id"]
        curve = tracking.client().get_metric_history(second["mlflow_run_id"], "loss")
        assert [(point.step, point.value) for point in curve] == [(1, 3.0), (2, 2.0)]

    @pytest.mark.usefixtures("store")
    def test_other_inputs_are_other_work(self, new_run: NewRun) -> None:
        make = Make()

        refs = {step(new_run(), make, data=data)["ref"] for data in ("x", "y", "x")}

        assert (len(refs), make.calls) == (2, 2)

    def test_forced_step_and_what_follows_are_made_anew(self, new_run: NewRun, store: FolderStore) -> None:
        before, after = Make(), Make()

        def both(run: RunContext) -> tuple[StepResult, StepResult]:
            first = step(run, before, "before")
            return first, step(run, after, "after", before=first)

        old = both(new_run())
        forced = both(new_run(force=["before"]))
        later = both(new_run())

        assert [r["forced"] for r in (*old, *forced, *later)] == [False, False, True, True, False, False]
        assert [r["reused"] for r in (*old, *forced, *later)] == [False, False, False, False, True, True]
        assert (before.calls, after.calls) == (2, 2)
        assert [r["ref"] for r in forced] == [r["ref"] for r in old]
        assert (store.fetch(old[1]["ref"]) / "made.txt").read_text() == "call 2"

    @pytest.mark.usefixtures("store")
    def test_forcing_a_later_step_leaves_the_earlier_ones(self, new_run: NewRun) -> None:
        before, after = Make(), Make()

        for run in (new_run(), new_run(force=["after"])):
            step(run, after, "after", before=step(run, before, "before"))

        assert (before.calls, after.calls) == (1, 2)

    def test_failure_leaves_no_artifact_and_the_retry_goes_on(self, new_run: NewRun, store: FolderStore) -> None:
        run, make = new_run(), Make()
        with pytest.raises(ZeroDivisionError):
            step(run, fails)
        (failed,) = runs_of(run)
        assert failed.info.status == "FAILED"
        assert not list(store.root.rglob("half.txt"))

        result = step(run, make)

        (finished,) = runs_of(run)
        assert result["mlflow_run_id"] == finished.info.run_id == failed.info.run_id
        assert finished.info.status == "FINISHED"
        assert (store.fetch(result["ref"]) / "made.txt").is_file()

    @pytest.mark.usefixtures("store")
    def test_retry_after_the_artifact_was_published_did_not_reuse_another_run(self, new_run: NewRun) -> None:
        # The task was killed after publishing and before it could say so.
        run, make = new_run(), Make()
        first = step(run, make)

        second = step(run, make)

        assert make.calls == 1
        assert (second["mlflow_run_id"], second["reused"]) == (first["mlflow_run_id"], False)
        tags = tracking.client().get_run(second["mlflow_run_id"]).data.tags
        assert (tags["cxr.reused"], tags["cxr.made_by"]) == ("false", "this run")


def test_a_search_has_an_address(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000/")

    search = tracking.search_url("7", "tags.`cxr.step` = 'compare'", "metrics.`macro_f1_difference`")
    curves = tracking.search_url("7", "", "", charts=True)

    assert search.startswith("http://mlflow:5000/#/experiments/7/runs?searchFilter=tags.%60cxr.step%60%20%3D%20%27")
    assert curves.endswith("&compareRunsMode=CHART") and "compareRunsMode" not in search
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    assert tracking.search_url("7", "", "") == ""
