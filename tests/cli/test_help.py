"""What a stranger sees first: help, the version, and the sentence of an error."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command

from cxr_tasks.arms import ARMS
from cxr_tasks.artifacts import STEPS
from cxr_tasks.classifiers.registry import CLASSIFIERS
from cxr_tasks.cli import app
from cxr_tasks.config import profile_names

ROOT = Path(__file__).parents[2]
COMMANDS = get_command(app).commands
SUBCOMMANDS = [
    *([name] for name in COMMANDS),
    *([group, name] for group, command in COMMANDS.items() for name in getattr(command, "commands", {})),
]
HEAVY = ("tensorflow", "keras", "pandas", "mlflow", "airflow", "matplotlib", "great_expectations", "boto3", "sklearn")


def test_every_command_is_there():
    assert list(COMMANDS) == [
        "run",
        "status",
        "estimate",
        "scan",
        "train-gan",
        "judge",
        "train-arm",
        "compare",
        "report",
        "evaluate",
        "predict",
        "champions",
        "approve",
        "rollback",
        "serve",
        "profiles",
        "doctor",
        "store",
    ]
    assert list(COMMANDS["store"].commands) == ["ls", "show", "gc", "verify"]


@pytest.mark.parametrize("words", [[], *SUBCOMMANDS], ids=" ".join)
def test_every_command_explains_itself(cxr, words):
    shown = cxr(*words, "--help")

    assert shown.exit_code == 0
    assert "Usage" in shown.output
    command = get_command(app)
    for word in words:
        command = command.commands[word]
    assert command.help and command.help.splitlines()[0].endswith((".", "?"))
    assert all(option.help for option in command.params if option.name != "help")


def test_choices_are_those_of_the_registries():
    options = {option.name: option for option in COMMANDS["compare"].params}

    assert all(name in str(options["classifier"].help) for name in [c.display for c in CLASSIFIERS.values()])
    assert all(name in str(options["arm"].help) for name in ARMS)
    assert all(step in str(options["force"].help) for step in STEPS)
    assert all(profile in str(options["profile"].help) for profile in profile_names())


@pytest.mark.parametrize("option", ["--classifier", "--arm", "--force"])
def test_a_name_that_is_none_is_refused_with_those_that_are(cxr, option):
    given = {"--classifier": "cnn", "--arm": "none", "--force": "scan"} | {option: "nothing"}
    done = cxr("train-arm", "somewhere", *(word for pair in given.items() for word in pair))

    assert done.exit_code == 2
    known = {"--classifier": CLASSIFIERS, "--arm": ARMS, "--force": STEPS}[option]
    assert all(name in done.output for name in known)


def test_help_loads_no_heavy_library():
    code = f"import sys, cxr_tasks.cli; print([name for name in {HEAVY} if name in sys.modules])"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_the_version_is_that_of_the_project(script):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

    assert script("--version").stdout == f"cxr {version}\n"


def test_an_error_is_one_sentence_and_exit_status_2(script):
    done = script("profiles", "papr")

    assert done.returncode == 2 and done.stdout == ""
    assert (
        done.stderr.startswith("Error: Profile 'papr' does not exist: choose one of") and done.stderr.count("\n") == 1
    )


def test_an_error_that_nobody_expected_says_how_to_see_more(cxr, monkeypatch):
    def fail(profile, overrides):
        raise RuntimeError("no luck\ntoday")

    monkeypatch.setattr("cxr_tasks.cli.profiles.resolve", fail)
    done, debugged = cxr("profiles", "quick"), cxr("--debug", "profiles", "quick")

    assert done.exit_code == 2
    assert done.stderr == "Error: RuntimeError: no luck today (cxr --debug profiles … shows where)\n"
    assert isinstance(debugged.exception, RuntimeError)


def test_an_interrupted_command_says_that_it_goes_on(cxr, monkeypatch):
    def interrupt(profile, overrides):
        raise KeyboardInterrupt

    monkeypatch.setattr("cxr_tasks.cli.profiles.resolve", interrupt)
    done = cxr("profiles", "quick")

    assert done.exit_code == 130 and "the same command goes on from there" in done.stderr
