"""The whole run in one sentence: what each treatment did to each classifier, by how much, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cxr_tasks.arms import ARMS
from cxr_tasks.evaluation.comparison import join_words, points
from cxr_tasks.evaluation.seeds import SeedsComparison

# Above this many classifiers and treatments a list of names no longer reads as a sentence.
NAMED = 6

NOTHING = "No arm was compared with a baseline, so this run cannot say whether synthetic augmentation helps."


def treatment(baseline: str, arm: str) -> str:
    """What ``arm`` does that ``baseline`` does not, in words."""
    before, after = ARMS[baseline], ARMS[arm]  # type: ignore[index]
    if before.classical == after.classical and before.extra is None:
        extra = {
            "synthetic": "synthetic augmentation",
            "oversample": "showing real images over again",
            "real_resized": "adding real images at the GAN's resolution",
        }
        if after.extra is not None:
            return extra[after.extra]
    if before.extra == after.extra and after.classical:
        return "classical augmentation"
    if before.classical and not after.classical and before.extra is None and after.extra == "synthetic":
        return "synthetic in the place of classical augmentation"
    return f"the arm {arm} in the place of {baseline}"


def answer(summaries: Sequence[SeedsComparison], unconfirmed: Mapping[str, Sequence[str]]) -> str:
    """One sentence over all classifiers and arms that were compared.

    Args:
        summaries: one for each classifier and arm, over its seeds.
        unconfirmed: by arm, the names of those whose interval leaves out 0 and whose corrected test does not
            agree: with few disagreements the interval alone is too easily pleased.
    """
    if not summaries:
        return NOTHING
    arms = list(dict.fromkeys(summary.augmented_arm for summary in summaries))
    unit = " points of macro F1"
    clauses = []
    for arm in arms:
        of_arm = [summary for summary in summaries if summary.augmented_arm == arm]
        clause = f"{treatment(of_arm[0].baseline_arm, arm)} {_effects(of_arm, unit, named=len(summaries) <= NAMED)}"
        unit = ""
        if doubted := unconfirmed.get(arm):
            clause += (
                f" (McNemar's test, corrected for the number of pairs, does not confirm it for {join_words(doubted)})"
            )
        clauses.append(clause)
    seeds = len(summaries[0].seeds)
    over = f", over {seeds} seeds," if seeds > 1 else ""
    return f"On these test images{over} {'; '.join(clauses)}{_detectable(summaries)}."


def _effects(summaries: Sequence[SeedsComparison], unit: str, *, named: bool) -> str:
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


def _detectable(summaries: Sequence[SeedsComparison]) -> str:
    """How large an effect could have been found, where one was not."""
    limits = [
        s.detectable
        for s in summaries
        if s.verdict == "no detectable difference" and s.detectable is not None and s.detectable <= 1
    ]
    if not limits:
        return ""
    least, most = (f"{100 * limit:.1f}" for limit in (min(limits), max(limits)))
    span = least if least == most else f"{least} to {most}"
    return f"; a true difference of about {span} points would have been found in four of five such tests"
