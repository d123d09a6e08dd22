"""Whether generated images are good enough to train with, by the thresholds of the profile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from cxr_tasks.config import JudgeSettings
from cxr_tasks.gan.quality import ALL_CLASSES, GanQuality, Measurement
from cxr_tasks.strict import Strict

VerdictKind = Literal["good enough", "memorised", "not good enough", "repetitive", "not judged"]


class GanVerdict(Strict):
    """Whether generated images are good enough to train with.

    Attributes:
        passed: Whether they are.
        kind: The verdict in two words.
        reasons: A sentence for each threshold that was missed.
        not_judged: A sentence for each threshold that could not be compared in a class. These alone fail nothing.
        sentence: The verdict and its first reason.
    """

    passed: bool
    kind: VerdictKind
    reasons: list[str]
    not_judged: list[str]
    sentence: str


@dataclass(frozen=True)
class _Threshold:
    """A limit on one figure.

    Attributes:
        setting: Where the limit stands in the settings.
        figure: The name of the figure.
        largest: Whether the limit is an upper one.
        kind: The verdict where the limit is missed.
        per_class: Whether every class is held to the limit too.
        words: What to say of a figure that misses it.
    """

    setting: str
    figure: str
    largest: bool
    kind: VerdictKind
    per_class: bool
    words: str

    def is_missed_by(self, value: float, limit: float) -> bool:
        """Whether ``value`` lies on the wrong side of ``limit``."""
        return value > limit if self.largest else value < limit


# In the order of what to say first where several are missed.
_THRESHOLDS = (
    _Threshold(
        "max_memorised",
        "memorised",
        True,
        "memorised",
        True,
        "{share} copy a training image, or are nearer to one than nearly all held-out images",
    ),
    _Threshold(
        "max_kid_ratio",
        "kid_ratio",
        True,
        "not good enough",
        True,
        "their KID is {value:.2f} of an untrained generator's",
    ),
    _Threshold(
        "min_coverage",
        "coverage",
        False,
        "not good enough",
        True,
        "they cover {share} of the real images' neighbourhoods",
    ),
    _Threshold(
        "min_accuracy_score",
        "accuracy_score",
        False,
        "not good enough",
        False,
        "a model trained on them alone has a balanced accuracy of {value:.2f} on real images",
    ),
    _Threshold("max_repeated", "repeated", True, "repetitive", True, "{share} show the same picture as another one"),
)

_SUMMARY: dict[VerdictKind, str] = {
    "good enough": "The generated images are good enough to train with",
    "memorised": "The generated images copy real ones",
    "not good enough": "The generated images are not good enough to train with",
    "repetitive": "The generated images repeat one another",
    "not judged": "Whether the generated images are good enough could not be judged",
}


def gan_verdict(quality: GanQuality, settings: JudgeSettings) -> GanVerdict:
    """Compare every figure with its threshold, over all images and in every class.

    The verdict passes if no threshold is missed and each one could be compared at least over all images. Of several
    kinds, ``memorised`` goes first, because copies look good in all other figures.
    """
    missed: list[tuple[VerdictKind, str]] = []
    unknown: list[tuple[str, str]] = []
    for threshold, limit, name, figure in _comparisons(quality, settings):
        where = "Over all classes" if name == ALL_CLASSES else name
        if figure.value is None:
            unknown.append((name, f"{where}: {threshold.figure} could not be measured ({figure.reason})."))
        elif threshold.is_missed_by(figure.value, limit):
            words = threshold.words.format(value=figure.value, share=f"{figure.value * 100:.0f} %")
            bound = f"{'at most' if threshold.largest else 'at least'} {limit:g} is asked"
            missed.append((threshold.kind, f"{where}: {words}; {bound} ({threshold.setting})."))
    kind: VerdictKind = "good enough"
    if missed:
        kind = missed[0][0]
    elif any(name == ALL_CLASSES for name, _ in unknown):
        kind = "not judged"
    reasons, not_judged = [sentence for _, sentence in missed], [sentence for _, sentence in unknown]
    said = reasons or (not_judged if kind == "not judged" else [])
    return GanVerdict(
        passed=kind == "good enough",
        kind=kind,
        reasons=reasons,
        not_judged=not_judged,
        sentence=_in_a_sentence(kind, said, f"features of {quality.extractor}"),
    )


def with_copies(verdict: GanVerdict, copied: Sequence[str]) -> GanVerdict:
    """``verdict``, or one that speaks of copies of held-out images first.

    Args:
        verdict: On the images that are left without such copies.
        copied: A sentence for each class of which too few are left.
    """
    if not copied:
        return verdict
    reasons = [*copied, *verdict.reasons]
    sentence = _in_a_sentence("memorised", reasons, "same picture, or same file")
    return GanVerdict(passed=False, kind="memorised", reasons=reasons, not_judged=verdict.not_judged, sentence=sentence)


def _comparisons(quality: GanQuality, settings: JudgeSettings) -> Iterator[tuple[_Threshold, float, str, Measurement]]:
    """Each threshold that is asked, its limit, and the name and figure of each row that is held to it."""
    for threshold in _THRESHOLDS:
        limit = getattr(settings, threshold.setting)
        if limit is None:
            continue
        # A class that nobody gave images of is not held to anything.
        classes = [row for row in quality.classes if row.synthetic]
        rows = [quality.overall, *classes] if threshold.per_class else [quality.overall]
        for row in rows:
            yield threshold, limit, row.name, getattr(row, threshold.figure)


def _in_a_sentence(kind: VerdictKind, said: list[str], by: str) -> str:
    """The verdict, the first of the sentences ``said``, how many more there are, and what it rests on."""
    because = f": {said[0].replace('Over all', 'over all', 1).rstrip('.')}" if said else ""
    more = f", and {len(said) - 1} more" if len(said) > 1 else ""
    return f"{_SUMMARY[kind]}{because}{more} ({by})."
