"""The watch over new images: it keeps its promise on false alarms, it finds what has changed, and it may grow."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_tasks.errors import DataError
from cxr_tasks.monitoring.drift import SCORES, drift_findings, scores_of
from cxr_tasks.monitoring.martingale import conformal_p_values, mean_capital, simple_jumper


def images(number: int, seed: int, **shifts: float) -> pd.DataFrame:
    """Scores of images, each of a group of its own, and in standard deviations higher by ``shifts``."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({name: rng.normal(size=number) + shifts.get(name, 0.0) for name in SCORES})
    return table.assign(group=[f"{seed} {n}" for n in range(number)])


def watched(new: pd.DataFrame, reference: pd.DataFrame | None = None, false_alarms: float = 0.05):
    known = images(150, 999) if reference is None else reference
    return drift_findings(known, new, false_alarms=false_alarms, seed=0)


def test_p_values_of_like_scores_are_uniform_and_independent() -> None:
    rng = np.random.default_rng(0)
    found = [conformal_p_values(rng.normal(size=20), rng.normal(size=2), rng.random(2)) for _ in range(2000)]

    first, second = np.array(found).T
    for values in (first, second):
        assert abs(values.mean() - 0.5) < 0.03 and abs((values < 0.1).mean() - 0.1) < 0.03
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.07


@given(st.lists(st.floats(0, 1), max_size=30))
def test_the_capital_is_never_negative_and_begins_at_one(p_values: list[float]) -> None:
    path = simple_jumper(np.array(p_values))

    assert path[0] == 1 and len(path) == len(p_values) + 1 and (path > 0).all()


@given(st.lists(st.floats(0, 1), max_size=10))
def test_the_next_bet_is_fair(p_values: list[float]) -> None:
    """Over a uniform p-value, the capital is on average what it was."""
    grid = (np.arange(200) + 0.5) / 200
    after = np.mean([simple_jumper(np.array([*p_values, p]))[-1] for p in grid])

    assert after == pytest.approx(simple_jumper(np.array(p_values))[-1])


def test_false_alarms_over_years_stay_below_what_was_promised() -> None:
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(150):
        paths = [
            simple_jumper(conformal_p_values(rng.normal(size=100), rng.normal(size=300), rng.random(300)))
            for _ in range(2)
        ]
        alarms += mean_capital(paths).max() >= 10

    # 10 % are promised: of 150, more than 24 would come about in one case of a hundred.
    assert alarms <= 24


@pytest.mark.parametrize("score", SCORES)
def test_a_change_of_any_score_is_found_and_named(score: str) -> None:
    found = watched(images(120, 1, **{score: 1.5}))

    assert found.after is not None and found.after < 60
    assert found.words.startswith("120 new images differ from the 150 test images, most in " + SCORES[score])


def test_like_images_are_no_alarm() -> None:
    found = watched(images(200, 2))

    assert found.after is None and found.limit == 20
    assert found.words.startswith("200 new images are like the 150 test images as far as can be told (evidence ")


def test_what_was_reached_stays_when_more_images_come() -> None:
    new = images(100, 3, loss=1.0)

    early, late = watched(new.head(50)), watched(pd.concat([new, images(500, 4)]))

    assert early.after == late.after and late.highest >= early.highest


def test_several_images_of_a_patient_count_once() -> None:
    new = images(30, 5, gray=0.8)
    again = pd.concat([new] * 20, ignore_index=True)

    assert watched(again) == watched(new) and watched(again).images == 30


def test_without_new_images_there_is_no_alarm_and_without_test_images_a_sentence() -> None:
    assert watched(images(0, 6)).highest == 1.0
    with pytest.raises(DataError, match="no test image"):
        watched(images(3, 7), images(0, 8))


def test_scores_are_what_they_say() -> None:
    pixels = np.stack([np.full((4, 4), 100), np.tile([0, 200], (4, 2))]).astype(np.uint8)
    probabilities = np.array([[0.9, 0.1], [0.5, 0.5]])

    found = scores_of(pixels, np.array([0.5, 2.0]), probabilities, np.array([1, 0]))

    assert found["gray"].tolist() == [100, 100] and found["contrast"].tolist() == [0, 100]
    assert found["distance"].tolist() == [0.5, 2.0]
    assert found["confidence"].tolist() == [0.9, 0.5]
    assert found["loss"] == pytest.approx(-np.log([0.1, 0.5])) and list(found) == list(SCORES)
