"""What units of work cost is really measured, once, with the project's own networks."""

import json
import time

import pytest

from cxr_tasks.config import resolve
from cxr_tasks.errors import UserError
from cxr_tasks.estimate import ask, probe
from cxr_tasks.estimate.ask import known_forecast, measured_forecast
from cxr_tasks.estimate.rates import Rate, keep_rates, known_rates, rate_key
from cxr_tasks.estimate.work import A_STEP, A_TASK, ImageCounts, PlannedRun
from tests.small_runs import SETTINGS

SMALL = {**SETTINGS, "classifiers": {**SETTINGS["classifiers"], "names": ["cnn", "mobilenetv3"]}}
COUNTS = {"train": {"COVID": 20, "Normal": 20, "Viral Pneumonia": 20}, "validation": {"COVID": 9}, "test": {"COVID": 9}}
IMAGES = ImageCounts.of_splits(COUNTS)


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))
    return resolve("quick", SMALL)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_cost_is_measured_once_and_known_to_the_first_task_of_a_run(settings, monkeypatch):
    assert known_forecast(settings, COUNTS) is None
    monkeypatch.setattr(probe, "ENOUGH_SECONDS", 0.0)

    told = measured_forecast(settings, IMAGES)

    run = PlannedRun(settings, IMAGES)
    rates = known_rates(run.rates_needed(), settings, run.drawn)
    assert set(rates) == set(run.rates_needed())
    assert all(rate.each > 0 and rate.memory > 2**27 for rate in rates.values())
    assert rates["features mobilenetv3"].size > 0 and rates["whole cnn"].size > 2**16 < rates[A_STEP].size
    monkeypatch.setattr(ask, "probe", lambda *asked: pytest.fail(f"measured again: {asked}"))
    assert measured_forecast(settings, IMAGES) == told
    known = known_forecast(settings, COUNTS)
    # The images are read already.
    assert known is not None and 0 < known.seconds < told.seconds and "ingest" not in known.by_step


def test_what_was_measured_counts_for_what_costs_the_same_and_for_nothing_else(settings):
    keep_rates({A_STEP: Rate(1.5), A_TASK: Rate(4.0), "whole cnn": Rate(0.1)}, settings, 10)
    more = resolve("quick", {**SMALL, "gan": {**SMALL["gan"], "epochs": 99}, "seeds": {"gan": 3}})
    wider = resolve("quick", {**SMALL, "gan": {**SMALL["gan"], "width": 0.2}})

    assert known_rates([A_STEP, A_TASK], more, 10)[A_STEP].each == 1.5
    assert set(known_rates([A_STEP, A_TASK, "whole cnn"], wider, 10)) == {A_TASK, "whole cnn"}


def test_another_machine_measures_for_itself(settings, monkeypatch):
    key = rate_key(A_STEP, settings, 10)
    monkeypatch.setattr("cxr_tasks.estimate.rates.machine", lambda: {"processor": "another"})

    assert rate_key(A_STEP, settings, 10) != key


def test_a_file_of_measurements_that_cannot_be_read_is_written_anew(settings, tmp_path):
    folder = tmp_path / "cache" / "rates"
    folder.mkdir(parents=True)
    (folder / "rates.json").write_text("[1, 2")

    assert known_rates([A_STEP], settings, 10) == {}
    keep_rates({A_STEP: Rate(2.0)}, settings, 10)
    assert len(json.loads((folder / "rates.json").read_text())) == 1


def test_a_probe_that_fails_says_so_in_a_sentence(settings):
    broken = settings.model_copy(update={"profile": None})

    with pytest.raises(UserError, match=r"What a run costs on this machine could not be measured \(.*\)"):
        probe.probe([A_TASK], broken, 10)


def test_waiting_and_sleeping_are_told_apart():
    watch = probe.Stopwatch()
    time.sleep(0.2)
    slept = watch.seconds()
    watch = probe.Stopwatch()
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass

    # Who sleeps asks for no processor. What this process waited for one is taken off.
    assert slept >= 0.19 and 0.19 <= watch.seconds() < 0.5
    assert probe.waited_seconds() >= 0 and probe.waited_seconds("no process") == 0
