"""The site builds without a warning, fetches nothing, and its reference is what the settings say."""

import importlib.util
import re
import subprocess
import sys

import pytest

from cxr_tasks.arms import ARMS
from cxr_tasks.classifiers.registry import CLASSIFIERS
from cxr_tasks.config import profile_names, resolve
from tests.docs import pages

# What a browser fetches by itself: scripts, styles, images, fonts. Links that a reader follows are no such thing.
FETCHED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed|link)\b[^>]*\b(?:src|href)=["'](?:https?:)?//"""
    r"""|url\(["']?(?:https?:)?//|@import +["'](?:https?:)?//""",
    re.IGNORECASE,
)


@pytest.fixture(scope="module")
def reference():
    spec = importlib.util.spec_from_file_location("make_reference", pages.DOCS / "make_reference.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=pages.REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_every_page_is_in_the_site(site):
    for page in pages.DOCS.rglob("*.md"):
        assert (site / page.relative_to(pages.DOCS).with_suffix(".html")).is_file()


def test_nothing_but_pages_is_in_the_site(site):
    assert not list(site.rglob("*.py")) and not list(site.rglob("__pycache__"))


def test_the_site_fetches_nothing_from_elsewhere(site):
    for path in (*site.rglob("*.html"), *site.rglob("*.css")):
        found = FETCHED.search(path.read_text(encoding="utf-8"))
        assert not found, f"{path.relative_to(site)}: {found[0]}"


def test_the_reference_is_what_the_settings_say(reference):
    written = reference.PAGE.read_text(encoding="utf-8")
    assert written == reference.profile_reference(), "run docs/make_reference.py again"


def test_a_new_classifier_or_arm_does_not_change_the_reference(reference):
    profiles = [resolve(profile) for profile in profile_names()]
    used = {name for settings in profiles for name in (*settings.classifiers.names, *settings.arms.names)}
    for name in {*CLASSIFIERS, *ARMS} - used:
        assert f"`{name}`" not in reference.profile_reference()
