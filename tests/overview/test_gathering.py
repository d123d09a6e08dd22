"""What the page shows of a real MLflow server, and what it says of one that is away."""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from cxr_tasks import tracking
from cxr_tasks.artifacts import Report
from cxr_tasks.how_far import HowFar
from cxr_tasks.overview.gathering import Gathering
from cxr_tasks.overview.mlflow_api import MlflowApi
from cxr_tasks.overview.published import DATASET_FILE, PublishedData
from cxr_tasks.overview.registered import read_figure
from cxr_tasks.overview.render import render_parts
from cxr_tasks.overview.samples import sample_grid_png
from cxr_tasks.overview.trainings import ANSWER_FILE
from cxr_tasks.overview.under_way import AirflowFacts, RunUnderWay
from tests.hostile import MARKUP, run_in_page
from tests.overview.test_render import claim
from tests.servers import answering

pytestmark = pytest.mark.slow
PNG = b"\x89PNG\r\n\x1a\n and so on"
RUN = RunUnderWay(dag="cxr_training", dag_run="now", seconds=60, tasks=(), done=1, total=2, failed=(), page="/x")


class Hospital:
    """Experiments and models of a test's own on a shared server."""

    def __init__(self, address: str) -> None:
        self.mark = uuid.uuid4().hex[:8]
        self.client = MlflowClient(address)
        self.trainings, self.data = (self.client.create_experiment(f"{kind}-{self.mark}") for kind in ("t", "d"))
        self.page = Gathering(MlflowApi(address), [f"t-{self.mark}"], [f"d-{self.mark}"])

    def training(self, name: str, **tags: str) -> str:
        """A run of a training; tags of this project by the ends of their names."""
        told = {f"cxr.{tag}": value for tag, value in tags.items()} | {"mlflow.runName": name}
        told |= {tracking.TAG_DAG_RUN: name, tracking.TAG_CAUSE: "by hand", tracking.TAG_WORK: "dag run"}
        return self.client.create_run(self.trainings, tags=told).info.run_id

    def facts(self, run_id: str = "") -> dict[str, Any]:
        """All that is shown, by the names of the templates."""
        return {name: fact for part in self.page.visit(AirflowFacts(), run_id) for name, fact in part.facts.items()}


@pytest.fixture
def hospital(mlflow_uri: str) -> Hospital:
    return Hospital(mlflow_uri)


def report(**given: Any) -> Report:
    told: dict[str, Any] = {"answer": "Yes.", "warnings": (), "claims": (), "pairs": (), "champions": (), "address": ""}
    return Report(**told | given)


def test_nothing_is_there_at_first(hospital: Hospital) -> None:
    facts = hospital.facts()

    assert facts["runs"] == [] and facts["found"] is facts["samples"] is facts["data"] is None


def test_a_training_is_shown_with_its_figures(hospital: Hospital) -> None:
    first = hospital.training("first", answer="Yes.", dataset="00ab")
    hospital.client.log_text(first, report(claims=(claim("helps"),)).model_dump_json(), ANSWER_FILE)
    second = hospital.training("second")
    # The run of a step is no training.
    hospital.client.create_run(hospital.trainings, tags={tracking.TAG_DAG_RUN: "second"})
    newest, chosen, unknown = hospital.facts(), hospital.facts(second), hospital.facts("f" * 32)

    assert [run.name for run in newest["runs"]] == ["second", "first"]
    # The newest has no answer yet.
    assert newest["found"].training.run_id == first and newest["found"].report.claims[0].verdict == "helps"
    assert newest["found"].training.report.partition("?")[0].endswith("/report.html")
    assert chosen["found"].report is None and "no figures yet" in chosen["found"].remark
    assert unknown["found"] is None and unknown["is_missing"]


@pytest.mark.parametrize("run_id", ["'", "../../x", MARKUP[0], "0"])
def test_no_id_of_a_run_leads_elsewhere(hospital: Hospital, run_id: str) -> None:
    facts = hospital.facts(run_id)

    assert facts["found"] is None and facts["is_missing"]


def test_what_another_version_wrote_is_no_fault(hospital: Hospital) -> None:
    run = hospital.training("run", answer="Yes.")
    hospital.client.log_text(run, '{"of": "another version"}', ANSWER_FILE)

    assert "another version" in hospital.facts()["found"].remark


def test_samples_are_those_of_the_run_that_trained_the_gan(hospital: Hospital, tmp_path: Path) -> None:
    run = hospital.training("run", answer="Yes.")
    made = hospital.client.create_run(hospital.trainings).info.run_id
    tags = {tracking.TAG_DAG_RUN: "run", "cxr.step": "train_gan", "cxr.made_by": made}
    hospital.client.create_run(hospital.trainings, tags=tags)
    for name in ("step-000001", "step-001200", "other"):
        (tmp_path / f"{name}.png").write_bytes(PNG)
        hospital.client.log_artifact(made, str(tmp_path / f"{name}.png"), "grids")
    (tmp_path / "step-000002.png").write_text("<script>")
    hospital.client.log_artifact(made, str(tmp_path / "step-000002.png"), "grids")
    hospital.client.log_text(run, "secret", "settings.yaml")

    samples, mlflow = hospital.facts()["samples"], hospital.page.mlflow

    assert samples.run_id == made and samples.steps == (1, 2, 1200)
    assert sample_grid_png(mlflow, made, "step-001200") == PNG
    # The report of a run that took a GAN as it was says whose GAN that is.
    hospital.training("taken", answer="Yes.", gan_run=made)
    assert hospital.facts()["samples"].run_id == made
    # What is no picture, or no grid, is not handed out.
    for other, name in ((made, "step-000002"), (made, "other"), (run, "../settings.yaml"), ("../x", "step-000001")):
        assert sample_grid_png(mlflow, other, name) is None


def test_trainings_that_another_run_made_are_compared_where_they_are(hospital: Hospital) -> None:
    run = hospital.training("run", answer="Yes.")
    hospital.client.set_tag(run, tracking.TAG_TRAINING_RUNS, "00ab,00cd")

    assert "run_id%20IN%20%28%2700ab%27%2C%20%2700cd%27%29" in hospital.facts()["training"].compare


def test_the_newest_dataset_is_shown(hospital: Hospital) -> None:
    told = PublishedData(
        version="00ab", counts={"train": {"COVID": 3}, "test": {"COVID": 1}}, rejected=2, near_duplicates=0, masks=0
    )
    tags = {"cxr.dataset": "00ab", "cxr.changes": "the first"}
    run = hospital.client.create_run(hospital.data, tags=tags).info.run_id
    hospital.client.log_text(run, told.model_dump_json(), DATASET_FILE)
    # A run that has published nothing.
    hospital.client.create_run(hospital.data, tags={"cxr.dataset": "none"})

    data = hospital.facts()["data"]

    assert (data.version, data.changes, data.told.rejected) == ("00ab", "the first", 2)
    assert data.told.splits == ["train", "test"]


def test_models_are_shown_with_champion_history_and_ways_back(hospital: Hospital) -> None:
    # Other tests of this server register models, too.
    name = f"cxr-{hospital.mark}"
    hospital.client.create_registered_model(name)
    told = {"cxr.test_macro_f1": "94.1 (90.0 to 97.2)", "cxr.validation_macro_f1": "0.93", "cxr.decision": MARKUP[0]}
    for since in ("2026-01-01", "2026-02-01", ""):
        champion = {"cxr.champion_since": since} if since else {"cxr.gate.floor": "refused: too low."}
        hospital.client.create_model_version(name, "s3://nowhere/model", tags=told | champion)
    hospital.client.set_registered_model_alias(name, "champion", "2")

    parts = list(hospital.page.visit(AirflowFacts()))
    model = next(each for part in parts for each in part.facts.get("models", ()) if each.name == name)

    assert model.champion.number == "2" and model.newest.number == "3" and model.back_to == ("1",)
    assert [version.number for version in model.versions] == ["3", "2", "1"]
    assert (model.champion.test.value, model.champion.test.low) == (94.1, 90.0)
    assert model.newest.conditions == ("refused: too low.",)
    assert run_in_page("".join(render_parts(parts))) == []


@pytest.mark.parametrize("text", ["", "94", "1.2.3 (1 to 2)", "94.1 (90.0 to 97.2) <b>", MARKUP[0]])
def test_what_is_no_figure_is_none(text: str) -> None:
    assert read_figure(text) is None


class TestUnderWay:
    def tag(self, hospital: Hospital, done: int = 10, *, ago: float = 10, first: int = 0, told: str = "") -> None:
        now = datetime.now(UTC)
        since, at = now - timedelta(seconds=ago + 100), now - timedelta(seconds=ago)
        far = HowFar(work="GAN training", done=done, total=40, first=first, since=since, at=at)
        tags = {tracking.TAG_DAG_RUN: "now", tracking.TAG_PROGRESS: told or far.model_dump_json()}
        hospital.client.create_run(hospital.trainings, tags=tags)

    def work(self, hospital: Hospital) -> list[Any]:
        return hospital.page.under_way(AirflowFacts(runs=(RUN,))).facts["work"]

    def test_what_is_left_is_told_at_the_pace_of_this_sitting(self, hospital: Hospital) -> None:
        self.tag(hospital, done=30, first=20)

        (work,) = self.work(hospital)

        # 10 parts in 100 seconds, and 10 more to do, told 10 seconds ago.
        assert work.left == pytest.approx(90, abs=5) and work.told.work == "GAN training"

    def test_what_is_done_or_silent_or_no_progress_is_left_out(self, hospital: Hospital) -> None:
        self.tag(hospital, done=40)
        self.tag(hospital, ago=3600)
        self.tag(hospital, told="{}")

        assert self.work(hospital) == []

    def test_nothing_is_asked_where_nothing_runs(self, hospital: Hospital) -> None:
        self.tag(hospital)

        assert hospital.page.under_way(AirflowFacts()).facts["work"] == []


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def shown(address: str, **login: Any) -> str:
    return "".join(render_parts(Gathering(MlflowApi(address, **login)).visit(AirflowFacts(runs=(RUN,)))))


def test_a_silent_server_keeps_nobody_waiting(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.monotonic()
    parts = Gathering(MlflowApi(silent)).visit(AirflowFacts(runs=(RUN,)))

    assert "runs for 1 min" in next(render_parts(parts)) and time.monotonic() - began < 1
    assert "it takes too long" in "".join(render_parts(parts)) and time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, b"no", "does not let this Airflow in (401)"),
        (403, b"no", "MLFLOW_TRACKING_USERNAME"),
        (503, b"", "is busy or starts (503)"),
        (500, b"{}", "answers with 500"),
        (200, b"<html>", "is not MLflow"),
        (200, b"[]", "answers with 200"),
    ],
)
def test_a_server_in_trouble_is_named_without_its_password(status: int, body: bytes, words: str) -> None:
    with answering(status, body) as address:
        page = shown(address.replace("://", "://someone:secret@"))

    assert words in page and "secret" not in page and page.rstrip().endswith("</html>")


def test_without_a_server_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")

    page = "".join(render_parts(Gathering(MlflowApi.of_environment()).visit(AirflowFacts())))

    assert "MLFLOW_TRACKING_URI names none" in page
