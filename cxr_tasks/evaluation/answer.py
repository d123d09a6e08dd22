"""The answer of a whole run: what each treatment did to each classifier, by how much, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cxr_tasks.arms import ARMS
from cxr_tasks.evaluation.comparison import detectable_text, join_words, points
from cxr_tasks.evaluation.seeds import SeedsComparison

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


def answer(summaries: Sequence[SeedsComparison], unconfirmed: Mapping[str, Sequence[str]]) -> str:
    """The answer over all classifiers and arms that were compared, one sentence an arm.

    Args:
        summaries: One for each classifier and arm, over its seeds.
        unconfirmed: By arm, the classifiers whose interval leaves out 0 while the corrected test does not agree.
            Where two arms rarely disagree, the interval alone is too easily pleased.

    Returns:
        Sentences that end with full stops.
    """
    if not summaries:
        return NOTHING
    seeds = len(summaries[0].seeds)
    opening = f"On these test images, over {seeds} seeds," if seeds > 1 else "On these test images"
    unit = " points of macro F1"
    sentences = []
    for arm in dict.fromkeys(summary.augmented_arm for summary in summaries):
        of_arm = [summary for summary in summaries if summary.augmented_arm == arm]
        effects = _effects(of_arm, unit, named=len(summaries) <= NAMED)
        sentences.append(f"{opening} {treatment(of_arm[0].baseline_arm, arm)} {effects}.")
        opening, unit = "On the same images", ""
        if doubted := unconfirmed.get(arm):
            sentences.append(
                "McNemar's test, corrected for the number of pairs, does not confirm the verdict for "
                f"{join_words(doubted)}."
            )
    return " ".join([*sentences, *_detectable(summaries)])


def _effects(summaries: Sequence[SeedsComparison], unit: str, *, named: bool) -> str:
    """What one arm did, verdict by verdict. ``unit`` follows the first figure; ``named`` writes out the names."""
    parts = []
    for verdict, verb in (
        ("helps", "helps"),
        ("hurts", "hurts"),
        ("no detectable difference", "makes no detectable difference to"),
    ):
        members = [summary for summary in summaries if summary.verdict == verdict]
        if members and named:
            words = []
            for member in members:
                interval = f"{points(member.low)} to {points(member.high)}"
                if unit:
                    interval = f"{member.confidence * 100:g} % interval {interval}"
                words.append(f"{member.name} ({points(member.mean)}{unit}, {interval})")
                unit = ""
            parts.append(f"{verb} {join_words(words)}")
        elif members:
            parts.append(f"{verb} {len(members)} of {len(summaries)} classifiers")
    if named:
        return join_words(parts)
    mean = sum(summary.mean for summary in summaries) / len(summaries)
    return f"{join_words(parts)} ({points(mean)}{unit} on average)"


def _detectable(summaries: Sequence[SeedsComparison]) -> list[str]:
    """How large a difference the tests would have found, where they found none: one sentence or nothing."""
    limits = [
        s.detectable
        for s in summaries
        if s.verdict == "no detectable difference" and s.detectable is not None and s.detectable <= 1
    ]
    return [detectable_text(min(limits), max(limits))] if limits else []
