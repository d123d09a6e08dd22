"""``cxr estimate``: what it prints. What it measures is tested with its code."""

import json

import pytest

from cxr_tasks.data.phantoms import write_phantoms
from cxr_tasks.estimate import ask
from cxr_tasks.estimate.rates import Rate


@pytest.fixture(autouse=True)
def known(monkeypatch, tmp_path):
    """Costs of a machine that is slow at training GANs."""
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))
    asked = []

    def probe(names, settings, drawn):
        asked.append(names)
        return {name: Rate(100.0 if name == "gan" else 0.001, 1.0, 2**30, 1000) for name in names}

    monkeypatch.setattr(ask, "probe", probe)
    return asked


def test_it_says_how_long_what_it_needs_and_which_steps_take_most(cxr, known):
    done = cxr("estimate", "--set", "gan.epochs=3")

    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["step", "tasks", "time", "share"] and lines[1].split()[:2] == ["train_gan", "1"]
    # 90 steps of 100 seconds.
    assert "About 150 min" in done.stdout or "About 2 h" in done.stdout
    assert "for 600 images" in done.stdout and "GiB of memory" in done.stdout and "GPU" not in done.stdout
    assert cxr("estimate", "--set", "gan.epochs=3").exit_code == 0 and len(known) == 1


def test_a_long_run_is_told_to_be_made_shorter(cxr):
    done = cxr("estimate", "--profile", "paper", "--set", "gan.epochs=1500")

    assert "more than 8 hours: use a GPU, the profile quick, or less of gan.epochs, since train_gan takes most." in (
        " ".join(done.stdout.split())
    )


def test_the_images_of_a_source_are_counted(cxr, tmp_path):
    write_phantoms(tmp_path / "images", {"COVID": 10, "Normal": 20, "Viral Pneumonia": 10}, image_size=64)

    done = cxr("estimate", "images", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)

    assert told["images"] == {"train": {"COVID": 8, "Normal": 16, "Viral Pneumonia": 8}, "validation": 4, "test": 4}
    assert told["sentence"].startswith("About ") and told["by_step"]["train_gan"] > 0 and told["machine"]["cores"]


def test_what_cannot_be_estimated_is_an_error_of_one_sentence(cxr):
    done = cxr("estimate", "nowhere")

    assert done.exit_code == 2 and "The data source nowhere does not exist" in " ".join(done.stderr.split())
