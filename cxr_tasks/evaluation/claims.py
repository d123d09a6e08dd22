"""What a run may claim: verdicts that hold together, however many were asked.

A verdict at 95 % by itself is false in one of twenty cases where there is nothing to find. A run asks for one verdict
for each classifier and arm, and the first line of its report picks out those that found something. The verdicts here
are corrected for that. The chance that any of them is false is at most 1 - confidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from cxr_tasks.evaluation.seeds import SeedsComparison
from cxr_tasks.strict import Strict

Claimed = Literal["helps", "better, not shown beyond the control", "no detectable difference", "hurts"]


class Joint(Strict):
    """A difference with the interval that holds together with those of all other claims; fractions.

    Attributes:
        mean: The difference, over seeds.
        low: The lower end of the joint interval.
        high: The upper end.
        p_value: Of the difference, times the number of claims, at most 1.
    """

    mean: float
    low: float
    high: float
    p_value: float


class Claim(Strict):
    """The verdict on one arm of one classifier, corrected for the number of claims.

    Attributes:
        name: The classifier.
        arm: The arm.
        baseline: What the arm is held against.
        control: The arm that shows as many real images again; empty where none belongs to ``arm``.
        seeds: How many seeds each arm was trained with.
        against_baseline: The difference from the baseline.
        against_control: The difference from the control; None where that was not measured.
        detectable: The smallest true difference from the baseline whose joint interval leaves out 0 in four of five
            such runs; None without error.
        claims: How many claims the run makes.
        confidence: That none of them is false.
    """

    name: str
    arm: str
    baseline: str
    control: str
    seeds: int
    against_baseline: Joint
    against_control: Joint | None
    detectable: float | None
    claims: int
    confidence: float
    verdict: Claimed


def claim(
    against_baseline: SeedsComparison, against_control: SeedsComparison | None, *, control: str, claims: int
) -> Claim:
    """The verdict on one arm, corrected for ``claims`` of them.

    Intervals have confidence 1 - α/m, for m claims and α = 1 - confidence (Bonferroni's inequality; Dunn, "Multiple
    comparisons among means", JASA 56, 1961). This holds however the claims depend on each other, and they do: all share
    the test images, those of a classifier its baseline, and all synthetic arms the GAN. The verdict is where the joint
    interval lies, so that verdict, interval and detectable difference say the same. Holm's steps would find a little
    more, but have no intervals of their own to show, and no detectable difference.

    A claim rests on two comparisons in a fixed order. The first is against the baseline. Only where that finds a gain,
    the second asks whether the arm does better than its control too. The second then needs no correction of its own
    (Maurer, Hothorn and Lehmacher, "Multiple comparisons in drug clinical trials and preclinical assays: a-priori
    ordered hypotheses", 1995; Berger, "Multiparameter hypothesis testing and acceptance sampling", Technometrics 24,
    1982): a claim is false with probability α/m at most. Where the true gain over the baseline is 0 or less, only the
    first comparison can be false, since it must be passed. Where that gain is real, only the second can, or the first
    on the wrong side.

    Args:
        against_baseline: The arm beside its baseline, over seeds.
        against_control: The arm beside its control; None where that was not measured.
        control: The control's name; empty where no control belongs to the arm.
        claims: How many claims the run makes, whether or not each could be measured.
    """
    confidence = against_baseline.confidence
    level = 1 - (1 - confidence) / claims
    first = _joint(against_baseline, level, claims)
    second = None if against_control is None else _joint(against_control, level, claims)
    return Claim(
        name=against_baseline.name,
        arm=against_baseline.augmented_arm,
        baseline=against_baseline.baseline_arm,
        control=control,
        seeds=len(against_baseline.seeds),
        against_baseline=first,
        against_control=second,
        detectable=against_baseline.estimate.detectable(level),
        claims=claims,
        confidence=confidence,
        verdict=verdict_of_claim(first, second),
    )


def verdict_of_claim(against_baseline: Joint, against_control: Joint | None) -> Claimed:
    """The verdict of joint intervals: against the baseline, and where that is a gain against the control."""
    if against_baseline.high < 0:
        return "hurts"
    if against_baseline.low <= 0:
        return "no detectable difference"
    if against_control is not None and against_control.low <= 0:
        return "better, not shown beyond the control"
    return "helps"


def _joint(comparison: SeedsComparison, level: float, claims: int) -> Joint:
    low, high = comparison.estimate.interval(level)
    return Joint(mean=comparison.mean, low=low, high=high, p_value=min(1.0, claims * comparison.p_value))


def claims_of(
    summaries: Sequence[SeedsComparison], *, baseline: str, arms: Sequence[str], controls: dict[str, str], asked: int
) -> list[Claim]:
    """The claims of a run, in the order of ``summaries``.

    Args:
        summaries: Every comparison of the run, over its seeds.
        baseline: The arm that others are held against.
        arms: The arms that are claimed something of; controls are not among them where another arm is.
        controls: The control of each of these arms that has one.
        asked: How many claims the settings ask for. What could not be measured counts, or the correction would depend
            on what went wrong.
    """
    found = {(s.name, s.augmented_arm, s.baseline_arm): s for s in summaries}
    firsts = [s for s in summaries if s.baseline_arm == baseline and s.augmented_arm in arms]
    return [
        claim(
            first,
            found.get((first.name, first.augmented_arm, controls.get(first.augmented_arm, ""))),
            control=controls.get(first.augmented_arm, ""),
            claims=max(asked, len(firsts)),
        )
        for first in firsts
    ]
