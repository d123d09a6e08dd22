"""Every link leads somewhere, every quoted command and path exists, and every quoted setting is one."""

import json
import re
from itertools import pairwise

import pytest
import yaml

from cxr_tasks.config import Settings, profile_names, resolve
from tests.docs import pages

MAKEFILE = (pages.REPOSITORY / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.MULTILINE))
VARIABLES = set(re.findall(r"^([A-Z_]+) *\?=", MAKEFILE, re.MULTILINE)) | {"PYTEST_ARGS"}
FOLDERS = ("benchmarks", "cxr_tasks", "dags", "docs", "infra", "mlflow", "plugins", "tests")
PATH = re.compile(rf"(?<![\w./])(?:{'|'.join(FOLDERS)})/[\w./-]*\w/?")

each_page = pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)


@each_page
def test_every_link_leads_somewhere(page):
    for link in pages.links(page):
        address, _, anchor = link.partition("#")
        target = (page.parent / address).resolve() if address else page
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in pages.anchors(target), f"{link}: no such heading"


@each_page
def test_every_make_command_is_one(page):
    for words in pages.commands(page, "make"):
        for word in words:
            variable, given, _ = word.partition("=")
            assert variable in (VARIABLES if given else TARGETS), f"make {' '.join(words)}"


@each_page
def test_every_cxr_command_is_one(page):
    cli = pytest.importorskip("cxr_tasks.cli", reason="the command cxr is not there yet")
    from typer.main import get_command

    for words in pages.commands(page, "cxr"):
        command, told = get_command(cli.app), []
        for word in words:
            if word.startswith("-"):
                told.append(word.partition("=")[0])
            elif subcommands := getattr(command, "commands", None):
                assert_options(command, told, words)
                assert word in subcommands, f"cxr {' '.join(words)}"
                command, told = subcommands[word], []
        assert_options(command, told, words)


def assert_options(command, told, words):
    known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)} | {"--help"}
    assert set(told) <= known, f"cxr {' '.join(words)}"


@each_page
def test_every_quoted_path_exists(page):
    for line in pages.quoted(page):
        for path in PATH.findall(line):
            assert (pages.REPOSITORY / path).exists(), path


@each_page
def test_every_quoted_setting_is_one(page):
    quoted = [yaml.safe_load(block) for block in pages.fenced(page, "yaml")]
    quoted += [json.loads(block) for block in pages.fenced(page, "json")]
    for overrides in quoted:
        assert set(overrides) <= set(Settings.model_fields)
        for profile in profile_names():
            resolve(profile, overrides)


@each_page
def test_every_heading_is_followed_by_text(page):
    parts = [part.strip() for part in pages.FENCE.sub("code", pages.text(page)).split("\n\n") if part.strip()]
    for part, following in pairwise([*parts, "# the end"]):
        depth, next_depth = (len(re.match("#*", each)[0]) for each in (part, following))
        # A heading may be followed by one of the level below, such as a version by its kinds of change.
        is_empty = depth and "\n" not in part and 0 < next_depth <= depth
        assert not is_empty, f"{part} has no text"
