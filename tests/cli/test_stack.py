"""``cxr run`` and ``cxr status``: what they print. The stack itself is tested with its code."""

import json
import subprocess
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psutil
import pytest

from cxr_tasks import tracking
from cxr_tasks.how_far import HowFar

ROOT = Path(__file__).parents[2]

SUMMARY = {
    "state": "failed",
    "seconds": 12.3,
    "finished": "2026-01-01T10:00:00+00:00",
    "source": "/data",
    "profile": "quick",
    "runs": {"cxr_data": "manual"},
    "answer": "Nothing can be said.",
    "warnings": ["small images", "small images"],
    "claims": [
        {
            "classifier": "CNN",
            "seeds": 1,
            "baseline_arm": "none",
            "arm": "synthetic",
            "difference": 0.1,
            "low": -0.15,
            "high": 0.35,
            "p_value": 0.6,
            "detectable": 0.3,
            "control": "oversample",
            "beyond_control": beyond,
            "beyond_control_low": beyond and -0.2,
            "beyond_control_high": beyond and 0.3,
            "claims": 3,
            "verdict": "no detectable difference",
        }
        for beyond in (0.05, None)
    ],
    "comparison": [
        {
            "classifier": "CNN",
            "seed": 0,
            "baseline_arm": "none",
            "arm": "synthetic",
            "baseline_macro_f1": 0.5,
            "augmented_macro_f1": 0.6,
            "difference": 0.1,
            "low": -0.05,
            "high": 0.25,
            "p_value": 0.2,
            "sign_p": 0.3,
            "verdict": "no detectable difference",
        }
    ],
    "champions": [
        {
            "name": "cxr-cnn",
            "version": "1",
            "alias": "champion",
            "arm": "synthetic",
            "validation_macro_f1": 0.61,
            "decision": "the first",
        }
    ],
    "external": [
        {
            "external": "hospital-b",
            "model": "CNN, none, seed 0",
            "is_champion": True,
            "images": 1200,
            "macro_f1": 0.5,
            "macro_f1_low": 0.4,
            "macro_f1_high": 0.6,
            "drop": 0.1,
            "drop_low": -0.05,
            "drop_high": 0.25,
        }
    ],
    "report": "http://127.0.0.1:5000/report.html",
    "tasks": [
        {"dag": "cxr_data", "task": "scan", "state": "success", "reused": True},
        {"dag": "cxr_training", "task": "arms.train [cnn none seed 0]", "state": "failed", "reused": None},
    ],
}


@pytest.fixture
def home(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "last-run.json").write_text(json.dumps(SUMMARY))
    return tmp_path / "home"


def test_status_says_what_the_last_run_said(cxr, home):
    done = cxr("status", "--home", home)

    assert done.exit_code == 0
    for words in (
        f"Nothing runs in {home}",
        "+10.0 (-5.0 to +25.0) points",
        "corrected for 3 comparisons",
        "+10.0 (-15.0 to +35.0)",
        "+5.0 (-20.0 to +30.0) oversample",
        "Nothing can be said.",
        "hospital-b",
        "CNN, none, seed 0 (champion)",
        "0.500 (0.400 to 0.600)",
        "+10.0 (-5.0 to +25.0) points",
        "Before you use it:\n- small images\n",
        "failed in 12 s, 1 of 2 tasks took their artifact as it was",
        "Failed   cxr_training: arms.train [cnn none seed 0]",
        "http://127.0.0.1:5000/report.html",
    ):
        assert words in done.stdout


def test_status_is_there_for_programs_too(cxr, home):
    status = json.loads(cxr("status", "--home", home, "--json").stdout)

    assert status["up"] is False and status["last_run"] == SUMMARY


def test_a_warning_is_said_once(cxr, home):
    assert cxr("status", "--home", home).stdout.count("small images") == 1


@pytest.fixture
def champion(mlflow_server):
    """A champion in a real registry."""
    name, api = f"cxr-{uuid.uuid4().hex[:8]}", f"{mlflow_server}/api/2.0/mlflow"
    for path, asked in (
        ("registered-models/create", {"name": name}),
        ("model-versions/create", {"name": name, "source": "s3://nowhere/model"}),
        ("registered-models/alias", {"name": name, "alias": "champion", "version": "1"}),
    ):
        httpx.post(f"{api}/{path}", json=asked, timeout=60).raise_for_status()
    return name


@pytest.mark.slow
def test_status_of_a_given_mlflow_names_its_champions(cxr, champion, mlflow_server):
    done = cxr("status", "--mlflow", f"{mlflow_server}/")
    told = json.loads(cxr("status", "--mlflow", mlflow_server, "--json").stdout)

    assert done.exit_code == 0 and f"{champion} version 1" in done.stdout
    page = f"{mlflow_server}/#/models/{champion}/versions/1"
    assert {"model": champion, "version": "1", "page": page} in told["champions"]


def test_status_of_an_airflow_that_does_not_answer_is_an_error(cxr):
    done = cxr("status", "--airflow", "http://127.0.0.1:9")

    assert done.exit_code == 2 and "Airflow does not answer at http://127.0.0.1:9" in " ".join(done.stderr.split())


@pytest.mark.slow
def test_status_says_how_far_the_tasks_are(cxr, mlflow_server, mlflow_uri):
    experiment = tracking.experiment_id("cxr_training")
    run = tracking.find_or_create(experiment, "far", {tracking.TAG_WORK: uuid.uuid4().hex}, {})
    now = datetime.now(UTC)
    told = HowFar(work="GAN training", done=60, total=240, first=0, since=now - timedelta(seconds=60), at=now)
    tracking.set_tags({tracking.TAG_PROGRESS: told.model_dump_json()}, run)

    done = cxr("status", "--mlflow", mlflow_server)
    told = json.loads(cxr("status", "--mlflow", mlflow_server, "--json").stdout)["progress"]

    assert done.exit_code == 0 and "GAN training: 60/240, " in done.stdout and "left" in done.stdout
    assert [each["told"]["done"] for each in told if each["told"]["work"] == "GAN training"] == [60]


def test_status_says_that_servers_are_busy(cxr, home):
    me = psutil.Process()
    nobody = "http://127.0.0.1:9"
    state = {"runner": me.pid, "started": me.create_time(), "airflow": nobody, "mlflow": nobody}
    (home / "stack.json").write_text(json.dumps(state))

    done = cxr("status", "--home", home)

    assert done.exit_code == 0
    assert "Airflow does not answer: it is starting" in done.stdout and "since MLflow does not answer" in done.stdout


def test_a_folder_where_nothing_ran_is_an_error(cxr, tmp_path):
    done = cxr("status", "--home", tmp_path / "nowhere")

    assert done.exit_code == 2 and "Nothing was ever run in" in done.stderr


@pytest.mark.parametrize(("succeeded", "status"), [(True, 0), (False, 1)])
def test_the_exit_status_is_that_of_the_run(cxr, monkeypatch, succeeded, status):
    asked = {}

    def run_stack(**options):
        asked.update(options)
        options["show"](SUMMARY)
        return succeeded

    monkeypatch.setattr("infra.embedded.run.run_stack", run_stack)
    done = cxr("run", "--data", "", "--airflow-port", 18080, "--once", "--reproduce-leak", "--set", "gan.epochs=3")

    assert done.exit_code == status and "Nothing can be said." in done.stdout
    assert (asked["data"], asked["airflow_port"], asked["mlflow_port"]) == ("", 18080, 5000)
    assert asked["once"] and asked["reproduce_leak"] and asked["profile"] == "quick" and asked["estimate"]
    assert asked["settings"] == {"gan": {"epochs": 3}}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("", []),
        ("data.layout=nih", ["data.layout=nih"]),
        (
            "data.classes=[No Finding, 'It''s *']; gan.epochs=3",
            ["data.classes=[No Finding, 'It''s *']", " gan.epochs=3"],
        ),
    ],
)
def test_make_run_hands_settings_over_as_they_are(tmp_path, given, wanted):
    for name, line in (("infra/setup.sh", ":"), (".venv/bin/cxr", """printf '%s\\n' "$@" >told""")):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)

    subprocess.run(["make", "-f", ROOT / "Makefile", "run", f"SET={given}", "DATA=a b"], cwd=tmp_path, check=True)

    told = (tmp_path / "told").read_text().splitlines()
    assert [told[at + 1] for at, option in enumerate(told) if option == "--set"] == wanted
    assert told[told.index("--data") + 1] == "a b"
