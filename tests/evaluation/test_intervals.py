"""The statistics against scipy, statsmodels and slow plain references, and their laws."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from cxr_tasks.errors import DataError
from cxr_tasks.evaluation.intervals import (
    Estimate,
    accuracy,
    balanced_accuracy,
    disagreement_degrees,
    draw_weights,
    group_counts,
    holm,
    macro_f1,
    mcnemar_exact,
    paired_bootstrap,
    resampled,
)


def arms(n: int, seed: int) -> tuple[np.ndarray, ...]:
    """Groups, true classes and two arms' predictions that are right three times in four."""
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=n)
    guesses = (np.where(rng.random(n) < 0.75, y, rng.integers(3, size=n)) for _ in range(2))
    return np.array([f"patient-{i}" for i in rng.integers(n // 2, size=n)]), y, *guesses


def test_resamples_equal_plain_ones_on_the_same_draws() -> None:
    groups, y, base, _ = arms(40, 2)
    names = np.unique(groups)
    draws = np.random.default_rng(0).integers(len(names), size=(60, len(names)))
    counts = group_counts(groups, y, base, 3)

    totals = (draw_weights(draws) @ counts.reshape(len(names), -1)).reshape(-1, 3, 3)

    for draw, total in zip(draws, totals, strict=True):
        rows = np.concatenate([np.flatnonzero(groups == names[i]) for i in draw])
        true, predicted = y[rows], base[rows]
        macro = f1_score(true, predicted, labels=[0, 1, 2], average="macro", zero_division=0)
        assert macro_f1(total) == pytest.approx(macro)
        assert accuracy(total) == pytest.approx(accuracy_score(true, predicted))
        assert balanced_accuracy(total) == pytest.approx(balanced_accuracy_score(true, predicted))


def test_balanced_accuracy_leaves_absent_classes_out() -> None:
    assert balanced_accuracy(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])) == pytest.approx(0.875)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_standard_error_and_interval_are_scipys() -> None:
    groups, y, base, aug = arms(120, 3)
    rows = [np.flatnonzero(groups == name) for name in np.unique(groups)]

    def difference(chosen: np.ndarray) -> float:
        drawn = np.concatenate([rows[i] for i in chosen])
        return f1_score(y[drawn], aug[drawn], average="macro") - f1_score(y[drawn], base[drawn], average="macro")

    reference = scipy.stats.bootstrap(
        (np.arange(len(rows)),), difference, n_resamples=2000, vectorized=False, method="percentile", rng=1
    )
    counts = [group_counts(groups, y, predicted, 3) for predicted in (base, aug)]
    macro, accurate = paired_bootstrap(*counts, samples=4000, seed=0)

    assert macro.value == pytest.approx(difference(np.arange(len(rows))))
    # Two thousand resamples know a standard error within about 1.6 %.
    assert macro.standard_error == pytest.approx(reference.standard_error, rel=0.06)
    assert macro.interval(0.95) == pytest.approx(
        scipy.stats.t.interval(0.95, macro.degrees[0], macro.value, macro.standard_error)
    )
    # Wider than the percentile interval, but by what t adds to it.
    low, high = macro.interval(0.95)
    assert (high - low) / np.ptp(reference.confidence_interval) == pytest.approx(1.0, abs=0.12)
    assert accurate.value == pytest.approx((aug == y).mean() - (base == y).mean())


def test_degrees_count_the_groups_that_tell_the_arms_apart() -> None:
    groups, y, base, aug = arms(60, 4)
    counts = [group_counts(groups, y, predicted, 3) for predicted in (base, aug)]
    differing = sum(
        sorted(zip(y[groups == g], base[groups == g], strict=True))
        != sorted(zip(y[groups == g], aug[groups == g], strict=True))
        for g in np.unique(groups)
    )
    assert disagreement_degrees(*counts) == differing - 1 > 1
    assert disagreement_degrees(counts[0], counts[0]) == 1


def test_images_of_one_group_do_not_narrow_the_interval() -> None:
    """The same images five times over, each with its copies in its group, are no new evidence."""
    rng = np.random.default_rng(3)
    y, base, aug = (rng.integers(3, size=50) for _ in range(3))
    groups = np.arange(50).astype(str)
    once = [group_counts(groups, y, predicted, 3) for predicted in (base, aug)]
    five = [
        group_counts(np.repeat(groups, 5), np.repeat(y, 5), np.repeat(predicted, 5), 3) for predicted in (base, aug)
    ]
    intervals = [paired_bootstrap(*counts, samples=200, seed=0)[0].interval(0.9) for counts in (once, five)]
    assert intervals[0] == pytest.approx(intervals[1])
    with pytest.raises(DataError, match="all of one group"):
        resampled(once[0][:1], samples=5, seed=0)


@given(st.floats(-0.5, 0.5), st.floats(0.001, 0.5), st.floats(1, 500), st.floats(0.5, 0.99))
def test_an_interval_is_symmetric_within_its_bounds(value: float, error: float, degrees: float, level: float) -> None:
    low, high = Estimate(value, (error,), (degrees,)).interval(level)
    assert -1 <= low <= value <= high <= 1
    assert Estimate(-value, (error,), (degrees,)).interval(level) == pytest.approx((-high, -low))
    wider = Estimate(value, (error,), (degrees,)).interval(0.995)
    assert wider[0] <= low and high <= wider[1]


@pytest.mark.parametrize("degrees", [10, 40, 400])
def test_the_detectable_effect_is_found_four_times_in_five(degrees: int) -> None:
    """The exact power comes from the noncentral t distribution, which the formula approximates."""
    detectable = Estimate(0.0, (0.01**2,), (degrees,)).detectable(0.95)
    assert detectable is not None
    exact = TTestPower().power(detectable / 0.01 / np.sqrt(degrees + 1), nobs=degrees + 1, alpha=0.05)
    assert exact == pytest.approx(0.8, abs=0.02)
    assert Estimate(0.0, (0.0,), (degrees,)).detectable(0.95) is None


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_statsmodels(b: int, c: int) -> None:
    reference = mcnemar([[5, b], [c, 5]], exact=True).pvalue if b + c else 1.0
    assert mcnemar_exact(b, c) == pytest.approx(min(1.0, reference))


# The reference needs a twentieth of a second for each call.
@settings(max_examples=15)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_statsmodels(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_holm_of_nothing_and_of_nonsense() -> None:
    assert holm([]) == []
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.5, float("nan")])
