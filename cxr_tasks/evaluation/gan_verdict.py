"""Whether generated images are good enough to train with, by the thresholds of the profile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from cxr_tasks.config import JudgeSettings
from cxr_tasks.evaluation.gan_quality import OVERALL, Figure, GanQuality

Kind = Literal["good enough", "memorised", "not good enough", "repetitive", "not judged"]


class Verdict(BaseModel):
    """Whether generated images are good enough to train with.

    ``reasons``: a sentence for each threshold that was missed. ``not_judged``: a sentence for each that could not be
    compared in a class, which by itself fails nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    passed: bool
    kind: Kind
    reasons: list[str]
    not_judged: list[str]
    sentence: str


@dataclass(frozen=True)
class _Threshold:
    setting: str
    figure: str
    largest: bool
    kind: Kind
    per_class: bool
    words: str


# In the order of what to say first where several are missed.
_THRESHOLDS = (
    _Threshold(
        "max_memorised",
        "memorised",
        True,
        "memorised",
        True,
        "{share} are nearer to one training image than nearly all held-out images",
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

_SUMMARY: dict[Kind, str] = {
    "good enough": "The generated images are good enough to train with",
    "memorised": "The generator copies its training images",
    "not good enough": "The generated images are not good enough to train with",
    "repetitive": "The generator repeats itself",
    "not judged": "Whether the generated images are good enough could not be judged",
}


def verdict(quality: GanQuality, settings: JudgeSettings) -> Verdict:
    """Compare every figure with its threshold, over all images and in every class.

    It passes if no threshold is missed and each one could be compared at least over all images. Of several
    kinds, ``memorised`` goes first: whatever else is said of copies, the other figures praise them.
    """
    missed: list[tuple[Kind, str]] = []
    unknown: list[tuple[str, str]] = []
    for threshold in _THRESHOLDS:
        limit = getattr(settings, threshold.setting)
        if limit is None:
            continue
        for row in (quality.overall, *(quality.classes if threshold.per_class else ())):
            figure: Figure = getattr(row, threshold.figure)
            where = "Over all classes" if row is quality.overall else row.name
            if figure.value is None:
                unknown.append((row.name, f"{where}: {threshold.figure} could not be measured ({figure.reason})."))
            elif figure.value > limit if threshold.largest else figure.value < limit:
                words = threshold.words.format(value=figure.value, share=_percent(figure.value))
                bound = f"{'at most' if threshold.largest else 'at least'} {limit:g} is asked"
                missed.append((threshold.kind, f"{where}: {words}; {bound} ({threshold.setting})."))
    not_judged = [sentence for _, sentence in unknown]
    kind: Kind = "good enough"
    if missed:
        kind = missed[0][0]
    elif any(name == OVERALL for name, _ in unknown):
        kind = "not judged"
    reasons = [sentence for _, sentence in missed]
    said = reasons or (not_judged if kind == "not judged" else [])
    because = f": {said[0].replace('Over all', 'over all', 1).rstrip('.')}" if said else ""
    more = f", and {len(said) - 1} more" if len(said) > 1 else ""
    sentence = f"{_SUMMARY[kind]}{because}{more} (features of {quality.extractor})."
    return Verdict(passed=kind == "good enough", kind=kind, reasons=reasons, not_judged=not_judged, sentence=sentence)


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"
