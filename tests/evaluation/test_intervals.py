"""The statistics against scipy, statsmodels and slow plain references, and their laws."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.power import TTestPower

from cxr_tasks.errors import DataError
from cxr_tasks.evaluation.intervals import (
    Estimate,
    accuracy,
    balanced_accuracy,
    better_groups,
    disagreement_degrees,
    draw_weights,
    group_counts,
    macro_f1,
    paired_bootstrap,
    resampled,
    sign_test,
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


@given(st.floats(-0.5, 0.5), st.floats(1e-4, 0.3), st.floats(1, 300))
def test_the_p_value_of_one_variance_is_that_of_the_t_test(value: float, error: float, degrees: float) -> None:
    assert Estimate(value, (error**2,), (degrees,)).p_value() == pytest.approx(
        2 * scipy.stats.t.sf(abs(value) / error, degrees)
    )


@given(
    st.floats(0.001, 0.5),
    st.lists(st.tuples(st.floats(1e-3, 0.3), st.integers(1, 60)), min_size=1, max_size=3),
    st.floats(0.5, 0.999),
)
def test_an_interval_leaves_out_0_where_its_p_value_is_small(
    value: float, parts: list[tuple[float, int]], level: float
) -> None:
    """Verdicts and p-values cannot contradict each other, at any level."""
    estimate = Estimate(value, tuple(error**2 for error, _ in parts), tuple(degrees for _, degrees in parts))
    p_value = estimate.p_value()
    assert 0 < p_value <= 1
    # A probability that is nearer to 1 has too few digits left.
    if p_value > 1e-6:
        assert estimate.reach(1 - p_value / 2) == pytest.approx(value, rel=1e-6)
    if abs(p_value - (1 - level)) > 1e-6:
        assert (estimate.interval(level, -9)[0] > 0) == (p_value < 1 - level)


def test_what_has_no_error_is_certain() -> None:
    assert Estimate(0.0, (0.0,), (1,)).p_value() == 1
    assert Estimate(0.1, (0.0, 0.0), (1, 2)).p_value() == 0
    assert Estimate(0.0, (0.1,), (3,)).p_value() == 1
    # A part without variance adds nothing, as with seeds that all came out alike.
    assert Estimate(0.1, (0.01, 0.0), (5, 1)).p_value() == Estimate(0.1, (0.01,), (5,)).p_value()


@given(st.integers(0, 60), st.integers(0, 60))
def test_with_one_image_a_group_the_sign_test_is_mcnemars(b: int, c: int) -> None:
    reference = mcnemar([[5, b], [c, 5]], exact=True).pvalue if b + c else 1.0
    right = np.repeat([[True, False], [False, True], [True, True]], [b, c, 5], axis=0)

    better = better_groups(np.arange(b + c + 5).astype(str), *right.T)

    assert better == (b, c)
    assert sign_test(*better) == pytest.approx(min(1.0, reference))


images = st.lists(st.tuples(st.integers(0, 8), st.booleans(), st.booleans()), min_size=1, max_size=40)


@given(images, st.lists(st.integers(1, 6), min_size=9, max_size=9), st.randoms())
def test_copies_of_a_groups_images_change_nothing_in_the_sign_test(
    rows: list[tuple[int, bool, bool]], copies: list[int], random: object
) -> None:
    """Every image of a group as often as one likes, in any order: the same groups differ, and p is the same."""
    copied = [row for row in rows for _ in range(copies[row[0]])]
    random.shuffle(copied)  # type: ignore[attr-defined]

    once, again = (better_groups(*(np.array(column) for column in zip(*each, strict=True))) for each in (rows, copied))

    assert once == again and sign_test(*once) == sign_test(*again)


@given(images)
def test_the_sign_test_counts_each_group_once_by_the_arm_that_is_ahead(rows: list[tuple[int, bool, bool]]) -> None:
    net: dict[int, int] = {}
    for group, baseline, augmented in rows:
        net[group] = net.get(group, 0) + augmented - baseline

    groups, baseline, augmented = (np.array(column) for column in zip(*rows, strict=True))

    assert better_groups(groups, baseline, augmented) == (
        sum(value < 0 for value in net.values()),
        sum(value > 0 for value in net.values()),
    )
    assert better_groups(groups, augmented, baseline) == better_groups(groups, baseline, augmented)[::-1]


def test_the_sign_test_is_exact_where_images_of_a_group_go_together() -> None:
    """Arms are exchangeable, and all images of a group agree: false alarms stay below 5 %, by images they do not."""
    rng, by_groups, by_images = np.random.default_rng(0), [], []
    groups = np.repeat(np.arange(20).astype(str), 8)
    for _ in range(400):
        ahead = np.repeat(rng.random(20) < 0.5, 8)
        by_groups.append(sign_test(*better_groups(groups, ~ahead, ahead)))
        by_images.append(sign_test(int((~ahead).sum()), int(ahead.sum())))
    # Three standard errors of 400 draws above 5 %.
    assert np.mean(np.array(by_groups) <= 0.05) <= 0.083
    assert np.mean(np.array(by_images) <= 0.05) > 0.3
