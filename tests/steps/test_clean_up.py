"""What a cleanup removes of a real store and a real MLflow, and what people rely on and keep."""

from __future__ import annotations

import logging
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from cxr_tasks import steps, tracking
from cxr_tasks.artifacts import RunContext, Watched
from cxr_tasks.pipeline import Made, perform
from cxr_tasks.registry.champions import TAG_DIGEST, TAG_KEEP, TAG_REPLACED, TAG_SINCE
from cxr_tasks.store import FolderStore, noted_uses

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("mlflow_uri")]
# All that was made before tomorrow is old.
OLD = -1.0


@pytest.fixture
def name(monkeypatch: pytest.MonkeyPatch) -> str:
    """Of an experiment and of a registered model that no other test has."""
    name = f"cxr-{uuid.uuid4().hex}"
    monkeypatch.setattr(sys.modules["cxr_tasks.steps.clean_up"], "EXPERIMENTS", (name, "not-there"))
    tracking.client().create_registered_model(name)
    return name


@pytest.fixture
def begin(name: str) -> Callable[[str], RunContext]:
    experiment = tracking.experiment_id(name)

    def begun(dag_run: str) -> RunContext:
        identity = {tracking.TAG_DAG_RUN: dag_run, tracking.TAG_WORK: "dag run"}
        parent = tracking.find_or_create(experiment, dag_run, identity, {})
        return RunContext(dag_run=dag_run, settings="", experiment_id=experiment, mlflow_run_id=parent, url="")

    return begun


def make(run: RunContext, what: str) -> Watched:
    """An artifact with a file in the store and one in MLflow, and a model that MLflow logs."""

    def fill(folder: Path) -> Made[Watched]:
        (folder / "file.txt").write_text(what)
        tracking.log_text(what, "file.txt", run.mlflow_run_id)
        client = tracking.client()
        logged = client.create_logged_model(run.experiment_id, name=what, source_run_id=run.mlflow_run_id)
        client.log_model_artifacts(logged.model_id, str(folder))
        return Made(Watched(champion="", images={}, words=what))

    return perform(run, Watched, fill, settings={"what": what}, inputs={})


def ended(run: RunContext) -> None:
    tracking.client().set_terminated(run.mlflow_run_id)


def files_of_run(made: Watched) -> list[str]:
    return [each.path for each in tracking.client().list_artifacts(made.mlflow_run_id)]


def test_what_people_rely_on_stays_and_the_rest_goes_with_its_files(
    name: str, store: FolderStore, begin: Callable[[str], RunContext], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cxr_tasks")
    client = tracking.client()
    names = ("champion", "refused", "by hand", "pinned", "taken", "forgotten", "goes on", "newest")
    runs = {which: begin(which) for which in names}
    made = {which: make(run, which) for which, run in runs.items() if which != "newest"}
    made["newest"] = make(runs["newest"], "taken")
    for which, run in runs.items():
        if which != "goes on":
            ended(run)
    # The champion replaced one that somebody had made champion by hand.
    more = {"champion": {TAG_SINCE: "2026-11-29", TAG_REPLACED: "3"}, "pinned": {TAG_KEEP: "yes"}}
    for which in ("champion", "refused", "by hand", "pinned"):
        tags = {"cxr.artifact": made[which].ref, TAG_DIGEST: which, **more.get(which, {})}
        source = client.get_run(made[which].mlflow_run_id).info
        client.create_model_version(name, f"{source.artifact_uri}/model", source.run_id, tags=tags)

    listed = steps.clean_up(OLD, 1, only_list=True)
    there = {which: store.record(each.ref) is not None for which, each in made.items()}
    done = steps.clean_up(OLD, 1)
    again = steps.clean_up(OLD, 1)

    assert all(there.values())
    assert listed.only_listed and listed.model_copy(update={"only_listed": False}) == done
    assert (done.artifacts, done.versions, done.dag_runs) == (2, 1, 2) and done.size > 0
    assert (again.artifacts, again.versions, again.dag_runs, again.size) == (0, 0, 0, 0)
    stays = {which: store.record(each.ref) is not None for which, each in made.items()}
    gone = {"refused", "forgotten"}
    assert {which for which, is_there in stays.items() if not is_there} == gone
    assert {use.dag_run for use in noted_uses(store).values()} == {
        run.mlflow_run_id for which, run in runs.items() if which not in gone
    }
    stages = {which: client.get_run(run.mlflow_run_id).info.lifecycle_stage for which, run in runs.items()}
    assert {which for which, stage in stages.items() if stage == "deleted"} == gone
    assert made["newest"].made_by == made["taken"].mlflow_run_id and files_of_run(made["taken"]) == ["file.txt"]
    assert files_of_run(made["forgotten"]) == [] and files_of_run(made["champion"]) == ["file.txt"]
    assert {str(each.version) for each in client.search_model_versions(f"name = '{name}'")} == {"1", "3", "4"}
    models = {model.name for model in client.search_logged_models([runs["champion"].experiment_id])}
    assert models == {"champion", "by hand", "pinned", "taken", "goes on"}
    assert f"{name} version 2 would go" in caplog.text and f"artifact {made['forgotten'].ref} is gone" in caplog.text


def test_runs_of_another_store_and_versions_of_people_stay(
    name: str,
    store: FolderStore,
    begin: Callable[[str], RunContext],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client, run, newest = tracking.client(), begin("one"), begin("two")
    made = make(run, "one")
    for each in (run, newest):
        ended(each)
    source = client.get_run(made.mlflow_run_id).info
    client.create_model_version(name, f"{source.artifact_uri}/model", source.run_id)

    # The version was registered by a person, so that its run stays too.
    of_people = steps.clean_up(OLD, 1)
    client.delete_model_version(name, "1")
    monkeypatch.setenv("CXR_STORE", str(tmp_path / "other"))
    of_others = steps.clean_up(OLD, 1)

    assert (of_people.versions, of_people.dag_runs) == (0, 0) == (of_others.versions, of_others.dag_runs)
    assert client.get_run(run.mlflow_run_id).info.lifecycle_stage == "active"


def test_a_cleanup_that_is_killed_is_ended_by_the_next_one(
    name: str, store: FolderStore, begin: Callable[[str], RunContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [begin(which) for which in ("one", "two", "newest")]
    made = [make(run, run.dag_run) for run in runs[:2]]
    for run in runs:
        ended(run)

    def killed(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(tracking, "forget_dag_run", killed)
        steps.clean_up(OLD, 1)
    assert not any(store.record(each.ref) for each in made)

    done = steps.clean_up(OLD, 1)

    stages = [tracking.client().get_run(run.mlflow_run_id).info.lifecycle_stage for run in runs]
    assert done.dag_runs == 2 and stages == ["deleted", "deleted", "active"]


def test_what_is_young_stays(name: str, store: FolderStore, begin: Callable[[str], RunContext]) -> None:
    runs = [begin(which) for which in ("one", "two")]
    made = [make(run, run.dag_run) for run in runs]
    for run in runs:
        ended(run)

    done = steps.clean_up(1.0, 1)

    assert done == steps.CleanedUp(artifacts=0, leftovers=0, size=0, versions=0, dag_runs=0, only_listed=False)
    assert all(store.record(each.ref) for each in made)


def test_a_cleanup_says_what_went() -> None:
    what = {"artifacts": 1200, "leftovers": 1, "size": 3 * 2**20, "versions": 2, "dag_runs": 4}

    words = [steps.CleanedUp(**what, only_listed=listed).words for listed in (True, False)]

    start = "1,200 artifacts, 1 leftovers, 2 versions of models and 4 runs in MLflow"
    assert words == [f"{start} would go: 3.0 MiB of the store.", f"{start} are gone: 3.0 MiB of the store."]
