"""One sitting of all speeds: what it runs, what it keeps, and when it calls something slower."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import benchmarks.__main__ as bench
from benchmarks import sitting
from benchmarks.sitting import LEFT_OUT, SCRIPTS, Measured, Sitting, change, figures_of, page, read_history, slower

MACHINE = {"processor": "A <b>", "cores": 2, "instructions": ["avx2"]}
FAKE = Measured("fake", ["1"], ["2"], {"speed of it": "deep/ratio"})
HELPERS = {"__init__", "__main__", "sitting", "endurance"}


def test_every_script_is_in_a_sitting_or_is_left_out_on_purpose():
    scripts = {path.stem for path in Path(sitting.__file__).parent.glob("*.py")} - HELPERS

    assert scripts == {each.script for each in SCRIPTS} | LEFT_OUT
    assert len({name for each in SCRIPTS for name in each.figures}) == sum(len(each.figures) for each in SCRIPTS)


def test_a_figure_is_found_by_its_keys():
    assert figures_of(FAKE, {"deep": {"ratio": 2}}) == {"speed of it": 2.0}
    with pytest.raises(KeyError):
        figures_of(FAKE, {"deep": {}})


positive = st.floats(0.01, 100)


@given(st.lists(st.tuples(positive, positive), min_size=2, max_size=8), st.booleans())
def test_a_change_lies_in_its_interval_and_the_other_way_round_it_is_its_inverse(pairs, less):
    here, there = zip(*pairs, strict=True)

    gain, low, high = change(here, there, less_is_better=less)
    back, _, _ = change(there, here, less_is_better=less)
    other, _, _ = change(here, there, less_is_better=not less)

    assert low <= gain + 1e-9 and gain <= high + 1e-9
    assert (1 + gain) * (1 + back) == pytest.approx(1)
    assert other == pytest.approx(back)


def sat(here, there):
    return Sitting("2026-01-01", "b", "a", "small", MACHINE, {"speed of it": here}, {"speed of it": there})


def test_noise_is_not_called_slower_and_one_round_never_is():
    assert slower(sat([0.5, 0.52, 0.51], [1.0, 1.01, 1.0])) == ["Worse by 49% than a: speed of it."]
    assert slower(sat([0.5, 2.0, 0.9], [1.0, 1.0, 1.0])) == []
    assert slower(sat([0.5], [1.0])) == []
    assert slower(sat([0.999, 0.999, 0.999], [1.0, 1.0, 1.0])) == []


def test_the_page_shows_the_newest_first_with_what_became_slower():
    first = Sitting("2026-01-01", "a", "", "small", MACHINE, {"speed of it": [1.0]}, {}, {"other": "It broke."})
    text = page([first, sat([0.5, 0.52, 0.51], [1.0, 1.01, 1.0])])

    assert text.index("b, small") < text.index("a, small")
    assert "| speed of it | 0.51 (0.50 to 0.52) | -49% (-5" in text and "Worse by 49% than a" in text
    assert "| speed of it | 1.00 |  |" in text and "Not measured: other. It broke." in text


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A repository with one script, committed at two speeds."""

    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    script = tmp_path / "benchmarks" / "fake.py"
    script.parent.mkdir()
    git("init", "--quiet")
    for ratio in (2.0, 1.0):
        script.write_text(f"import json, sys\nprint(json.dumps({{'deep': {{'ratio': {ratio} * int(sys.argv[1])}}}}))\n")
        git("add", ".")
        git("commit", "--quiet", "-m", "x")
    monkeypatch.setattr(bench, "REPOSITORY", tmp_path)
    monkeypatch.setattr(bench, "SPEED", tmp_path / "docs")
    monkeypatch.setattr(bench, "HISTORY", tmp_path / "docs" / "history.jsonl")
    monkeypatch.setattr(bench, "SCRIPTS", (FAKE,))
    return git


def test_a_sitting_measures_both_revisions_in_turn_and_is_kept(project, capsys):
    before = project("rev-parse", "--short", "HEAD~1")

    ended = bench.main("", "small", 3, before, [])

    (kept,) = read_history(bench.HISTORY)
    assert ended == 1 and kept.figures == {"speed of it": [1.0] * 3} and kept.peers == {"speed of it": [2.0] * 3}
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["slower"] == [f"Worse by 50% than {before}: speed of it."]
    assert project("worktree", "list").count("\n") == 0
    # The next sitting is held against this one's commit, which is the same.
    assert bench.main("", "small", 2, None, []) == 0
    assert read_history(bench.HISTORY)[1].against == kept.commit


def test_a_script_that_fails_is_told_and_the_rest_is_kept(project, monkeypatch):
    broken = Measured("missing", [], [], {"nothing": "x"})
    monkeypatch.setattr(bench, "SCRIPTS", (broken, FAKE))

    ended = bench.main("", "full", 1, "", [])

    (kept,) = read_history(bench.HISTORY)
    assert ended == 1 and kept.figures == {"speed of it": [2.0]}
    assert "missing" in kept.failures["missing"] and sys.executable in kept.failures["missing"]
