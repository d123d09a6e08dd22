"""The files beside the code that forges and tools read: they are what they claim, and agree with each other."""

import re
import tomllib

import yaml

from tests.docs.pages import REPOSITORY


def read(name):
    return (REPOSITORY / name).read_text(encoding="utf-8")


def test_the_version_has_its_section_in_the_changelog():
    version = tomllib.loads(read("pyproject.toml"))["project"]["version"]
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d{2}-\d{2}$", read("CHANGELOG.md"), re.MULTILINE)
    coming = re.findall(r"^## \[Unreleased: (\d+\.\d+\.\d+)\]$", read("CHANGELOG.md"), re.MULTILINE)
    assert version in [*coming, *released]
    assert released == sorted(released, reverse=True)
    assert yaml.safe_load(read("CITATION.cff"))["version"] == released[0]


def test_the_licence_is_apache_2_and_names_its_holder():
    assert "Apache License\n                           Version 2.0, January 2004" in read("LICENSE")
    assert "The cxr-mlops authors" in read("LICENSE")
    assert yaml.safe_load(read("CITATION.cff"))["license"] == "Apache-2.0"


def test_hooks_fetch_nothing():
    (local,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    assert local["repo"] == "local"
    assert all(hook["language"] == "system" and hook["entry"].startswith(".venv/bin/") for hook in local["hooks"])


def test_ci_only_reads_and_names_each_action_with_its_version():
    workflow = yaml.safe_load(read(".github/workflows/ci.yml"))
    assert workflow["permissions"] == {"contents": "read"}
    test, audit = (workflow["jobs"][name] for name in ("test", "audit"))
    assert test["timeout-minutes"] == 90 and "continue-on-error" not in test
    assert [step["run"] for step in test["steps"] if "run" in step] == ["bash .ci/run"]
    # What its data say changes from day to day, and so does not stop a change.
    assert audit["continue-on-error"] and {f"-r {path.name}" for path in REPOSITORY.glob("*.lock")} == set(
        re.findall(r"-r \S+", audit["steps"][-1]["run"])
    )
    for step in test["steps"] + audit["steps"]:
        assert "run" in step or re.fullmatch(r"[\w-]+/[\w-]+@v\d+\.\d+\.\d+", step["uses"])


def test_locks_hold_no_address():
    for lock in REPOSITORY.glob("requirements*.lock"):
        assert not re.search(r"^[^#\n]*(://|--(extra-)?index-url|--find-links)", lock.read_text(encoding="utf-8"), re.M)


def test_every_threat_meets_something_that_a_test_shows():
    text = read("docs/how-it-works/threat-model.md").partition("## What each threat meets")[2].partition("\n## ")[0]
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]

    assert len(rows) > 15
    for row in rows:
        shown = re.findall(r"`(tests/[\w/]+\.py)`", row.split("|")[3])
        assert shown and all((REPOSITORY / path).is_file() for path in shown), row
