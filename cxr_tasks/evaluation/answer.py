"""The answer of a whole run: what each treatment did to each classifier, by how much, and how sure that is.

The answer uses the verdicts of ``claims`` alone, which are corrected for how many were asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cxr_tasks.arms import ARMS
from cxr_tasks.evaluation.claims import Claim, Joint
from cxr_tasks.evaluation.comparison import detectable_text, join_words, points

# A list of more names than this no longer reads as a sentence.
NAMED = 6

NOTHING = "No arm was compared with a baseline. This run cannot say whether synthetic augmentation helps."


def treatment(baseline: str, arm: str) -> str:
    """What ``arm`` does that ``baseline`` does not, in words."""
    before, after = ARMS[baseline], ARMS[arm]
    if before.classical == after.classical and before.extra is None and after.extra is not None:
        return after.treatment
    if before.extra == after.extra and after.classical:
        return "classical augmentation"
    if before.classical and not after.classical and before.extra is None and after.extra == "synthetic":
        return "synthetic in the place of classical augmentation"
    return f"the arm {arm} in the place of {baseline}"


def answer(claims: Sequence[Claim], unconfirmed: Mapping[str, Sequence[str]]) -> str:
    """The answer over all classifiers and arms that were compared, in short sentences.

    Args:
        claims: One for each classifier and arm.
        unconfirmed: By arm, the classifiers whose verdict the exact test, corrected alike, does not confirm. Where two
            arms rarely disagree, the interval alone is too easily pleased.

    Returns:
        Sentences that end with full stops.
    """
    if not claims:
        return NOTHING
    fewest, most = (of(claim.seeds for claim in claims) for of in (min, max))
    over = f"{most} seeds" if fewest == most else f"{fewest} to {most} seeds"
    opening = f"On these test images, {f'over {over}' if most > 1 else 'with each arm trained once'},"
    unit = " points of macro F1"
    sentences = []
    for arm in dict.fromkeys(claim.arm for claim in claims):
        of_arm = [claim for claim in claims if claim.arm == arm]
        what = treatment(of_arm[0].baseline, arm)
        for effect in _effects(of_arm, unit, named=len(claims) <= NAMED):
            sentences.append(f"{opening} {what} {effect}." if opening else f"{what[0].upper()}{what[1:]} {effect}.")
            opening, unit = "", ""
        sentences += _control(of_arm, what)
        if doubted := unconfirmed.get(arm):
            sentences.append(
                f"The exact sign test, corrected alike, does not confirm the verdict for {join_words(doubted)}."
            )
    return " ".join([*sentences, corrected(claims), *_detectable(claims)])


def corrected(claims: Sequence[Claim]) -> str:
    """For how many comparisons the verdicts of a run are corrected, how, and what that makes sure of."""
    claim = claims[0]
    chance = f"{100 * (1 - claim.confidence):.3g} %"
    once = list(dict.fromkeys(claim.name for claim in claims if claim.seeds == 1))
    several = any(claim.seeds > 1 for claim in claims)
    about = f" (of {join_words(once)}: about the models that were trained)" if once and several else ""
    about = about if several else " about these trained models"
    if claim.claims == 1:
        return f"One comparison was asked. The verdict{about} is false with a chance of at most {chance}."
    return (
        f"{claim.claims} comparisons were asked. The verdicts and intervals are corrected for all of them "
        f"(Bonferroni): the chance that any verdict{about} is false is at most {chance}."
    )


def _effects(claims: Sequence[Claim], unit: str, *, named: bool) -> list[str]:
    """What one arm did, verdict by verdict. ``unit`` follows the first figure; ``named`` writes out the names."""
    again = "showing real images over again"
    parts = []
    for verdict, verb, more in (
        ("helps", "helps", ""),
        (
            "better, not shown beyond the control",
            f"does better than the arm {claims[0].baseline} on",
            f", but not detectably better than {again} does",
        ),
        ("hurts", "hurts", ""),
        ("no detectable difference", "makes no detectable difference to", ""),
    ):
        members = [claim for claim in claims if claim.verdict == verdict]
        if not members:
            continue
        if named:
            words = []
            for member in members:
                words.append(f"{member.name} ({_figure(member.against_baseline, unit)}{_beyond(member)})")
                unit = ""
            parts.append(f"{verb} {join_words(words)}{more}")
        else:
            mean = sum(member.against_baseline.mean for member in members) / len(members)
            of = f"{len(members)} of {len(claims)} classifiers"
            parts.append(f"{verb} {of} ({points(mean)}{unit} on average){more}")
            unit = ""
    return parts


def _figure(difference: Joint, unit: str) -> str:
    """A difference and its interval, such as ``+3.0, +1.0 to +5.0``."""
    return f"{points(difference.mean)}{unit}, {'interval ' if unit else ''}{_span(difference)}"


def _span(difference: Joint) -> str:
    return f"{points(difference.low)} to {points(difference.high)}"


def _beyond(claim: Claim) -> str:
    """What the arm does beyond its control, where the verdict rests on that."""
    if claim.against_control is None or claim.verdict in ("hurts", "no detectable difference"):
        return ""
    beyond = claim.against_control
    return f"; beyond {claim.control} {points(beyond.mean)}, {_span(beyond)}"


def _control(claims: Sequence[Claim], what: str) -> list[str]:
    """What the word “helps” means for one arm: one sentence, or nothing where no control belongs to the arm."""
    control, measured = claims[0].control, [claim.against_control is not None for claim in claims]
    if not control:
        return []
    if not any(measured):
        return [
            f"This run did not train the control {control}. So the run cannot tell whether {what} does more than "
            "showing as many real images over again."
        ]
    helped = [claim for claim in claims if claim.verdict == "helps"]
    shown = [claim for claim in helped if claim.against_control is not None]
    unknown = [claim.name for claim in helped if claim.against_control is None]
    sentences = []
    if shown:
        whom = f"for {join_words([claim.name for claim in shown])} " if unknown else ""
        sentences.append(
            f"“Helps” {whom}means: better than the arm {claims[0].baseline}, and better than the arm {control}, which "
            "shows as many real images over again."
        )
    if unknown:
        sentences.append(
            f"For {join_words(unknown)} the control {control} is missing: whether {what} does more there than showing "
            "as many real images over again is not known."
        )
    return sentences


def _detectable(claims: Sequence[Claim]) -> list[str]:
    """How large a difference the tests would have found, where they found none: one sentence or nothing."""
    limits = [
        claim.detectable
        for claim in claims
        if claim.verdict == "no detectable difference" and claim.detectable is not None and claim.detectable <= 1
    ]
    return [detectable_text(min(limits), max(limits))] if limits else []
