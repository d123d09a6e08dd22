"""A training leaves one MLflow run however often it is tried, and other steps none, on a real server."""

import json
import time
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
from cxr_tasks.pipeline import Made, Postponed, ShownTraining, perform
from cxr_tasks.store import FolderStore

NewRun = Callable[..., RunContext]


VIEW = tracking.View("best", "Best first", "tags.a = 'b'", "metrics.`c`", ("params.`d`",))


class Answer(Artifact):
    """What a training of these tests makes."""

    step = "answer"
    has_run = True
    answer: int


class Plain(Artifact):
    """What a step makes that trains nothing."""

    step = "plain"
    answer: int


class Make:
    """What a step does, with a count of how often it was asked to."""

    def __init__(self, kind: type[Artifact] = Answer) -> None:
        self.kind, self.calls = kind, 0

    def __call__(self, folder: Path) -> Made[Any]:
        self.calls += 1
        (folder / "made.txt").write_text(f"call {self.calls}")
        curves = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}]
        return Made(self.kind.model_validate({"answer": 42}), {"accuracy": 0.5}, curves)


def fails(folder: Path) -> Made[Answer]:
    (folder / "half.txt").write_text("half")
    raise ZeroDivisionError


def step(run: RunContext, make: Callable[[Path], Made[Answer]], **options: Any) -> Answer:
    given: dict[str, Any] = {"settings": {"gan": {"epochs": 3}}, "inputs": {"data": "x"}, "label": "seed 0"} | options
    return perform(run, given.pop("kind", Answer), make, **given)


def plain(run: RunContext, make: Callable[[Path], Made[Any]], **options: Any) -> Plain:
    return step(run, make, kind=Plain, **options)


def evaluated(run: RunContext, fitted: Answer, make: Make, **settings: Any) -> Plain:
    """What belongs to a training."""
    return plain(run, make, settings=settings, inputs={"first": fitted}, within=fitted)


def files(run_id: str, folder: str = "") -> set[str]:
    return {each.path for each in tracking.client().list_artifacts(run_id, folder or None)}


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

        ids = [tracking.experiment_id(each) for each in (name, old)]
        for each in (*ids, *ids):
            tracking.keep_views(each, [VIEW], "what it is")

        told = [client.get_experiment(each).tags for each in ids]
        view = f"#/experiments/{ids[0]}/runs?viewStateShareKey=best&workflowType=machine_learning"
        assert [each[tracking.TAG_NOTE] for each in told] == [f"[Best first]({view})\n\nwhat it is", "ours"]
        assert all(each["mlflow.experimentKind"] == "custom_model_development" for each in told)
        assert all(json.loads(each["mlflow.sharedViewState.best"])["name"] == "Best first" for each in told)

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

    def test_the_machine_is_measured_where_a_training_runs_long_enough(
        self, new_run: NewRun, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = new_run()
        with tracking.step_run(run, "short", "step/a", {}) as short, tracking.measured():
            pass
        monkeypatch.setattr("cxr_tasks.tracking.machine.SAMPLE_SECONDS", 0.05)
        monkeypatch.setattr("cxr_tasks.tracking.machine.TOLD_SECONDS", 0.1)
        with tracking.step_run(run, "long", "step/b", {}) as long, tracking.measured():
            time.sleep(0.5)
        with tracking.within_dag_run(run, "other", "other", had_failed=False), tracking.measured():
            time.sleep(0.2)

        found = [tracking.client().get_run(each).data.metrics for each in (short, long, run.mlflow_run_id)]
        assert found[0] == found[2] == {}
        assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= set(found[1])
        assert len(tracking.client().get_metric_history(long, "system/cpu_utilization_percentage")) >= 2

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
    def test_a_training_has_the_name_the_tags_and_the_params_that_people_look_for(self, new_run: NewRun) -> None:
        shown = ShownTraining("VGG16 · none · seed 0", {"cxr.arm": "none"}, {"dataset": "00ab"})

        answer = step(new_run(), Make(), training=shown)

        logged = tracking.client().get_run(answer.mlflow_run_id)
        assert (logged.info.run_name, logged.data.tags["cxr.arm"]) == ("VGG16 · none · seed 0", "none")
        assert logged.data.params == {"gan.epochs": "3", "dataset": "00ab"}

    @pytest.mark.usefixtures("store")
    def test_a_run_that_was_never_told_all_is_not_led_to(self, new_run: NewRun) -> None:
        make = Make()
        first = step(new_run(), make)
        # As where its task was ended while MLflow was away.
        tracking.client().delete_tag(first.mlflow_run_id, "cxr.reused")

        taken = step(new_run(), make)

        assert (make.calls, taken.reused) == (1, True) and taken.mlflow_run_id != first.mlflow_run_id
        logged = tracking.client().get_run(taken.mlflow_run_id)
        assert logged.data.metrics == {"accuracy": 0.5, "loss": 2.0} and logged.data.params == {"gan.epochs": "3"}
        # The next one is led to that.
        assert step(new_run(), make).mlflow_run_id == taken.mlflow_run_id

    @pytest.mark.usefixtures("store")
    def test_the_next_run_takes_it_as_it_was_and_leads_to_the_run_that_made_it(self, new_run: NewRun) -> None:
        make, again = Make(), new_run()
        first = step(new_run(), make)

        second = step(again, make)

        assert make.calls == 1 and runs_of(again) == []
        assert (second.ref, second.reused, second.answer) == (first.ref, True, 42)
        assert second.mlflow_run_id == first.mlflow_run_id == second.made_by
        assert (second.url, first.shown_here, second.shown_here) == (first.url, True, False)

    @pytest.mark.parametrize("lost", ["deleted", "never there"])
    def test_where_mlflow_has_lost_that_run_the_next_one_shows_its_figures(
        self, new_run: NewRun, store: FolderStore, monkeypatch: pytest.MonkeyPatch, lost: str
    ) -> None:
        make, again, later = Make(), new_run(), new_run()
        with monkeypatch.context() as patched:
            if lost == "never there":
                patched.setenv("CXR_MLFLOW", "off")
            first = step(new_run() if lost == "deleted" else RunContext(dag_run="one", settings=""), make)
        if lost == "deleted":
            tracking.client().delete_run(first.mlflow_run_id)

        second, third = step(again, make), step(later, make)

        assert make.calls == 1 and second.mlflow_run_id != first.mlflow_run_id
        logged = tracking.client().get_run(second.mlflow_run_id)
        assert (logged.data.metrics["accuracy"], second.reused, second.shown_here) == (0.5, True, True)
        assert (logged.data.tags["cxr.reused"], logged.data.tags["cxr.made_by"]) == ("true", first.mlflow_run_id)
        curve = tracking.client().get_metric_history(second.mlflow_run_id, "loss")
        assert [(point.step, point.value) for point in curve] == [(1, 3.0), (2, 2.0)]
        # One run that shows them is enough.
        assert third.mlflow_run_id == second.mlflow_run_id and runs_of(later) == []

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
    def test_what_belongs_to_a_training_is_logged_to_its_run(self, new_run: NewRun) -> None:
        run = new_run()
        first = step(run, Make())

        within = evaluated(run, first, Make(Plain), samples=10)

        (child,) = runs_of(run)
        assert within.mlflow_run_id == first.mlflow_run_id == child.info.run_id
        assert child.info.status == "FINISHED"
        assert child.data.params == {"gan.epochs": "3"}
        assert child.data.tags["cxr.artifact"] == first.ref

    @pytest.mark.usefixtures("store")
    def test_a_training_that_is_evaluated_otherwise_is_shown_once_more_with_what_was_found(
        self, new_run: NewRun
    ) -> None:
        run, other, last = new_run(), new_run(), new_run()
        first, before = step(run, Make()), evaluated(run, step(run, Make()), Make(Plain), samples=10)

        second = evaluated(other, step(other, Make()), Make(Plain), samples=20)
        further = evaluated(other, step(other, Make()), Make(Plain), samples=30)
        taken = [evaluated(last, step(last, Make()), Make(Plain), samples=number) for number in (10, 20)]

        (child,) = runs_of(other)
        assert second.mlflow_run_id == further.mlflow_run_id == child.info.run_id != before.mlflow_run_id
        assert child.data.metrics == {"accuracy": 0.5, "loss": 2.0}
        assert child.data.tags["cxr.made_by"] == first.mlflow_run_id and child.data.tags["cxr.artifact"] == first.ref
        assert len(tracking.client().get_metric_history(child.info.run_id, "loss")) == 2
        assert runs_of(last) == []
        assert [each.mlflow_run_id for each in taken] == [first.mlflow_run_id, child.info.run_id]

    @pytest.mark.usefixtures("store")
    def test_postponed_work_ends_its_run_well(self, new_run: NewRun) -> None:
        def postpone(folder: Path) -> Made[Answer]:
            raise Postponed(Answer(answer=1), "half-way")

        waiting = step(new_run(), postpone)

        logged = tracking.client().get_run(waiting.mlflow_run_id)
        assert logged.info.status == "FINISHED"
        assert logged.data.tags["cxr.reused"] == "false"


@pytest.mark.slow
@pytest.mark.usefixtures("mlflow_uri", "store")
class TestWithinTheDagRun:
    def test_a_step_that_trains_nothing_logs_beside_the_others_and_ends_nothing(self, new_run: NewRun) -> None:
        run = new_run()

        def made(folder: Path) -> Made[Any]:
            tracking.log_text("said", "word.txt")
            tracking.log_text("<b>", "page.html", run.mlflow_run_id)
            return Make(Plain)(folder)

        def step_of(number: int) -> Plain:
            return plain(run, made, settings={"number": number}, label=f"set {number}")

        with ThreadPoolExecutor(4) as threads:
            handles = list(threads.map(step_of, range(4)))

        parent = tracking.client().get_run(run.mlflow_run_id)
        assert runs_of(run) == [] and parent.info.status == "RUNNING"
        assert {(each.mlflow_run_id, each.url) for each in handles} == {(run.mlflow_run_id, run.url)}
        assert parent.data.metrics == {f"plain/set_{number}/accuracy": 0.5 for number in range(4)}
        assert files(run.mlflow_run_id) == {"plain", "page.html"}
        assert files(run.mlflow_run_id, "plain/set_3") == {"plain/set_3/word.txt"}

    def test_what_is_taken_shows_its_figures_in_this_run_too(self, new_run: NewRun) -> None:
        run, other = new_run(), new_run()
        plain(run, Make(Plain))

        taken = plain(other, Make(Plain))

        assert (taken.reused, taken.made_by, taken.mlflow_run_id) == (True, run.mlflow_run_id, other.mlflow_run_id)
        assert tracking.client().get_run(other.mlflow_run_id).data.metrics == {"plain/seed_0/accuracy": 0.5}

    def test_a_step_that_fails_says_so_until_a_try_succeeds(self, new_run: NewRun) -> None:
        run = new_run()
        with pytest.raises(ZeroDivisionError):
            plain(run, fails)
        failed = tracking.client().get_run(run.mlflow_run_id)

        plain(run, Make(Plain))

        assert (failed.info.status, failed.data.tags["cxr.error.plain_seed_0"]) == ("RUNNING", "ZeroDivisionError.")
        mended = tracking.client().get_run(run.mlflow_run_id)
        assert not any(tag.startswith("cxr.error") for tag in mended.data.tags)

    def test_what_one_step_could_not_tell_is_told_by_its_next_try_and_by_no_other_step(
        self, new_run: NewRun, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = new_run()
        with monkeypatch.context() as patched:
            patched.setattr("cxr_tasks.outages.OUTAGE_SECONDS", 0.3)
            patched.setattr("cxr_tasks.tracking.places.FAREWELL_SECONDS", 0.2)
            patched.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
            with pytest.raises(ConnectionError, match="and the next try sends them"):
                plain(run, Make(Plain))

        plain(run, Make(Plain), label="other", settings={})
        before = dict(tracking.client().get_run(run.mlflow_run_id).data.metrics)
        plain(run, Make(Plain))

        assert before == {"plain/other/accuracy": 0.5}
        after = tracking.client().get_run(run.mlflow_run_id).data
        assert after.metrics == {**before, "plain/seed_0/accuracy": 0.5} and "cxr.error.plain_seed_0" not in after.tags

    def test_a_step_that_logs_nothing_asks_mlflow_nothing(
        self, new_run: NewRun, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = new_run()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")

        made = plain(run, lambda folder: Made(Plain(answer=1)))

        assert (made.answer, made.mlflow_run_id) == (1, run.mlflow_run_id)


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
