"""Verdicts that hold together: what one run may claim, whatever it asked."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from cxr_tasks.evaluation.claims import Claim, claim, claims_of
from cxr_tasks.evaluation.comparison import verdict_of
from cxr_tasks.evaluation.intervals import Estimate
from cxr_tasks.evaluation.seeds import SeedsComparison


def summary(
    mean: float, error: float = 0.01, degrees: int = 50, name: str = "CNN", arm: str = "synthetic", beside: str = "none"
) -> SeedsComparison:
    estimate = Estimate(mean, (error**2,), (degrees,))
    low, high = estimate.interval(0.95)
    return SeedsComparison(
        name=name,
        baseline_arm=beside,
        augmented_arm=arm,
        seeds=[0],
        mean=mean,
        sd=None,
        least=mean,
        most=mean,
        low=low,
        high=high,
        detectable=estimate.detectable(0.95),
        p_value=estimate.p_value(),
        variances=estimate.variances,
        degrees=estimate.degrees,
        confidence=0.95,
        verdict=verdict_of(low, high),
        sentence="",
    )


def claimed(mean: float, control: float | None = None, claims: int = 1, **changes) -> Claim:
    second = None if control is None else summary(control, beside="oversample", **changes)
    return claim(summary(mean, **changes), second, control="oversample", claims=claims)


def test_one_claim_without_a_control_is_the_comparison_by_itself() -> None:
    alone, by_itself = claimed(0.03), summary(0.03)
    first = alone.against_baseline
    assert (first.low, first.high, first.p_value) == pytest.approx((by_itself.low, by_itself.high, by_itself.p_value))
    assert alone.detectable == pytest.approx(by_itself.detectable) and alone.verdict == by_itself.verdict == "helps"


def test_what_is_found_by_itself_may_not_be_found_among_many() -> None:
    verdicts = {m: claimed(0.023, claims=m).verdict for m in (1, 3, 15)}
    assert verdicts == {1: "helps", 3: "no detectable difference", 15: "no detectable difference"}
    assert claimed(0.05, claims=15).verdict == "helps" and claimed(-0.05, claims=15).verdict == "hurts"


@pytest.mark.parametrize(
    ("mean", "control", "verdict"),
    [
        (0.05, 0.05, "helps"),
        (0.05, None, "helps"),
        (0.05, 0.01, "better, not shown beyond the control"),
        (0.05, -0.05, "better, not shown beyond the control"),
        # Better than a control that does harm is no help.
        (-0.01, 0.05, "no detectable difference"),
        (-0.05, 0.05, "hurts"),
        (0.0, 0.05, "no detectable difference"),
    ],
)
def test_help_is_a_gain_over_the_baseline_and_beyond_the_control(
    mean: float, control: float | None, verdict: str
) -> None:
    assert claimed(mean, control).verdict == verdict


figures = st.floats(-0.2, 0.2), st.floats(0.001, 0.05), st.integers(1, 200), st.integers(1, 20)


@given(*figures)
def test_verdict_interval_p_and_detectable_say_the_same(mean: float, error: float, degrees: int, m: int) -> None:
    found = claimed(mean, claims=m, error=error, degrees=degrees)
    first, more = found.against_baseline, claimed(mean, claims=m + 1, error=error, degrees=degrees)
    if abs(first.p_value - 0.05) > 1e-6:
        assert (first.p_value < 0.05) == (first.low > 0 or first.high < 0) == (found.verdict in ("helps", "hurts"))
    # The adjusted p-value is that of the literature.
    reference = multipletests([summary(mean, error, degrees).p_value] + [1.0] * (m - 1), method="bonferroni")[1][0]
    assert first.p_value == pytest.approx(reference)
    # Whoever asks more finds no more.
    assert more.against_baseline.low <= first.low <= first.high <= more.against_baseline.high
    assert found.detectable is not None and more.detectable is not None and more.detectable >= found.detectable
    by_itself = summary(mean, error, degrees)
    assert found.verdict in (by_itself.verdict, "no detectable difference")


def test_claims_are_counted_as_they_were_asked_and_not_as_they_came_out() -> None:
    """A training that failed makes the correction of the others no weaker, and no stronger."""
    of = {"baseline": "none", "arms": ["synthetic"], "controls": {"synthetic": "oversample"}}
    whole = [summary(0.02, name=name) for name in ("CNN", "VGG16", "ResNet50")]
    control = [summary(0.04, name="CNN", beside="oversample"), summary(0.03, name="CNN", arm="oversample")]

    all_there = claims_of([*whole, *control], asked=3, **of)
    one_left = claims_of(whole[:1], asked=3, **of)

    assert [each.name for each in all_there] == ["CNN", "VGG16", "ResNet50"]
    assert all_there[0].against_control is not None and all_there[0].against_control.mean == 0.04
    assert [each.against_control for each in all_there[1:]] == [None, None]
    assert one_left[0].against_baseline == all_there[0].against_baseline and one_left[0].claims == 3
    # Never fewer than there are.
    assert claims_of(whole, asked=1, **of)[0].claims == 3


def test_controls_are_claimed_nothing_of_beside_a_treatment() -> None:
    both = [summary(0.09), summary(0.09, arm="oversample")]
    found = claims_of(both, baseline="none", arms=["synthetic"], controls={"synthetic": "oversample"}, asked=1)
    assert [each.arm for each in found] == ["synthetic"]


def test_a_run_is_false_somewhere_in_one_of_twenty_and_not_in_half() -> None:
    """Fifteen verdicts on one test set, whose differences go together, of which none is true."""
    rng, m, runs = np.random.default_rng(0), 15, 400
    shared, own = rng.normal(size=(runs, 1)), rng.normal(size=(runs, m))
    means = 0.01 * (0.3**0.5 * shared + 0.7**0.5 * own)

    corrected, by_itself = (
        np.mean([any(claimed(x, claims=asked, degrees=10**6).verdict != NOTHING for x in row) for row in means])
        for asked in (m, 1)
    )

    # Three standard errors of 400 runs above 5 %.
    assert corrected <= 0.083 and by_itself > 0.3


NOTHING = "no detectable difference"
