"""The gate: whether a challenger becomes champion.

Validation images decide, and the test set is never asked. The first champion passes by floors. A later one must also be
better than the present champion on the same validation images, beyond what chance explains.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from cxr_tasks.config import Settings
from cxr_tasks.errors import DataError
from cxr_tasks.evaluation.comparison import aligned
from cxr_tasks.evaluation.intervals import Estimate, group_counts, paired_bootstrap
from cxr_tasks.evaluation.metrics import classification_metrics, encode
from cxr_tasks.gate_settings import GateSettings
from cxr_tasks.names import slug
from cxr_tasks.registry.champions import CHAMPION, Candidate, Condition, Standing, stays

FIRST = "First champion: it meets every floor, and there was none to beat."


@dataclass(frozen=True)
class Evidence:
    """What a challenger has to show.

    Attributes:
        predictions: The validation rows of its prediction table.
        picked_from: How many candidates it is the best of.
        size_mb: Of its file, in megabytes.
        latency_ms: For one image alone, in milliseconds; ``None`` where it was not measured.
        rolled_back: When and why the same model was rolled back; empty where it never was.
        external_drops: The drop of macro F1 from the validation images to each external set; ``None`` where it is not
            known.
    """

    predictions: pd.DataFrame
    picked_from: int = 1
    size_mb: float | None = None
    latency_ms: float | None = None
    rolled_back: str = ""
    external_drops: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Ruling:
    """What the gate says of a challenger.

    Attributes:
        passed: Whether it may become champion.
        words: Why, for people.
        conditions: Every condition that was looked at.
    """

    passed: bool
    words: str
    conditions: tuple[Condition, ...]


@dataclass(frozen=True)
class Gate:
    """The gate of a run.

    Attributes:
        settings: What is asked.
        classes: The classes in their order.
        bootstrap_samples: How often groups are drawn again.
        seed: Of the bootstrap.
    """

    settings: GateSettings
    classes: list[str]
    bootstrap_samples: int
    seed: int

    @classmethod
    def of(cls, settings: Settings) -> Gate:
        """The gate that the settings of a run ask for."""
        samples, seed = settings.evaluation.bootstrap_samples, settings.seeds.bootstrap
        return cls(settings.gate, list(settings.data.classes), samples, seed)

    def rule(
        self, candidate: Candidate, evidence: Evidence, champion_version: str, standing: Standing | None
    ) -> Ruling:
        """Whether a challenger becomes champion.

        Args:
            candidate: The challenger.
            evidence: What it has to show.
            champion_version: The version that is champion; empty where there is none.
            standing: How that does on the same validation images; ``None`` where there is no champion.
        """
        conditions = self.floors(evidence)
        if standing is not None and champion_version:
            conditions = [self.against(candidate, evidence, f"champion {champion_version}", standing), *conditions]
        refused = [condition.words for condition in conditions if not condition.passed]
        if refused:
            return Ruling(False, " ".join([*refused, stays(champion_version)]), tuple(conditions))
        return Ruling(True, conditions[0].words if champion_version else FIRST, tuple(conditions))

    def floors(self, evidence: Evidence) -> list[Condition]:
        """The conditions that do not depend on a champion."""
        asked, metrics = self.settings, classification_metrics(evidence.predictions, self.classes)
        conditions = []
        if evidence.rolled_back:
            words = f"The same model was champion, and was rolled back ({evidence.rolled_back}): a person decides."
            conditions.append(Condition(about="rollback", passed=False, words=words))
        if asked.min_macro_f1 is not None:
            conditions.append(_at_least("macro F1", "Macro F1", metrics["macro_f1"], asked.min_macro_f1))
        for name, floor in asked.recall_floors(self.classes).items():
            if metrics[f"support_{slug(name)}"]:
                what = f"recall of {name}"
                conditions.append(_at_least(what, f"The {what}", metrics[f"recall_{slug(name)}"], floor))
        if asked.max_ece is not None:
            what = "The expected calibration error"
            conditions.append(_at_most("calibration", what, metrics["ece"], asked.max_ece, "{:.3f}"))
        if asked.max_latency_ms is not None and evidence.latency_ms is not None:
            what = "The time for one image"
            conditions.append(_at_most("latency", what, evidence.latency_ms, asked.max_latency_ms, "{:,.0f} ms"))
        if asked.max_size_mb is not None and evidence.size_mb is not None:
            conditions.append(_at_most("size", "The model's size", evidence.size_mb, asked.max_size_mb, "{:,.0f} MB"))
        if asked.max_external_drop is not None:
            drops = evidence.external_drops.items()
            conditions += [_external(name, drop, asked.max_external_drop) for name, drop in drops]
        return conditions

    def against(self, candidate: Candidate, evidence: Evidence, champion: str, standing: Standing) -> Condition:
        """Whether a challenger is better than the present champion.

        A champion whose training images are not known any more may have been trained on the images that it is scored
        on. Its figure is then the best that it can have. So a challenger that beats it takes its place, and one that
        does not leaves the question open. A champion that cannot be loaded can serve nobody. It gives way to a
        challenger that is at least as good as the figure that the champion was registered with, on whatever images.
        """
        if standing.is_lost:
            return _without_champion(candidate, champion, standing)
        if standing.score is None:
            words = f"{champion.capitalize()} {standing.remark}, so the two are not compared."
            return Condition(about="champion", passed=False, words=words)
        own, margin = candidate.validation_macro_f1, self.settings.margin
        remark = f", {standing.remark}" if standing.remark else ""
        words = (
            f"Macro F1 is {own:.3f}, and that of {champion} {standing.score:.3f} on the same validation images{remark}"
        )
        if standing.predictions is None:
            passed = own > standing.score + margin
            more = f"{'more' if passed else 'not more'} than {_in_points(margin)} points above it"
            words = f"{words}. It is {more}, and no interval is known."
        else:
            try:
                gain = self.gain(evidence.predictions, standing.predictions)
            except DataError as error:
                return Condition(about="champion", passed=False, words=f"{words}, which cannot be compared: {error}")
            confidence = 1 - (1 - self.settings.confidence) / evidence.picked_from
            low, high = gain.interval(confidence)
            passed = low > margin
            of_many = f", as the best of {evidence.picked_from} candidates" if evidence.picked_from > 1 else ""
            words = (
                f"{words}: {100 * gain.value:+.1f} points, {100 * confidence:.4g} % interval {100 * low:+.1f} to "
                f"{100 * high:+.1f}{of_many}."
            )
            if not passed:
                words = f"{words} Chance may explain that, for the interval does not begin above {_in_points(margin)}."
        if not passed and not standing.is_clean:
            words = f"{words} The comparison is unfair and decides nothing: a person decides."
        return Condition(about="champion", passed=passed, words=words)

    def gain(self, challenger: pd.DataFrame, champion: pd.DataFrame) -> Estimate:
        """How much larger the challenger's macro F1 is on the same validation images, by the paired bootstrap.

        Raises:
            DataError: The tables are not of the same images, or these are all of one group.
        """
        own, other = aligned(challenger, champion, self.classes)
        groups = own["group"].to_numpy(dtype=str)
        counts = []
        for table in (other, own):
            y_true, y_pred, _ = encode(table, self.classes)
            counts.append(group_counts(groups, y_true, y_pred, len(self.classes)))
        return paired_bootstrap(*counts, samples=self.bootstrap_samples, seed=self.seed)[0]


def _without_champion(candidate: Candidate, champion: str, standing: Standing) -> Condition:
    """The condition where the champion cannot be loaded and nothing is known of it on these images."""
    broken, own = (
        f"{champion.capitalize()} could not be scored: {standing.remark}.",
        f"{candidate.validation_macro_f1:.3f}",
    )
    if standing.recorded is None:
        words = f"{broken} No figure of it is known either, and it can serve nobody: it is replaced (macro F1 {own})."
        return Condition(about="champion", passed=True, words=words)
    then = f"It had macro F1 {standing.recorded:.3f} on the validation images of its own dataset"
    if candidate.validation_macro_f1 >= standing.recorded:
        words = f"{broken} {then}, and the challenger has {own} on its own: it is replaced."
        return Condition(about="champion", passed=True, words=words)
    words = (
        f"{broken} {then}, and the challenger has only {own} on its own: no decision. To replace it all the same, give "
        f"the alias {CHAMPION} to this version in MLflow."
    )
    return Condition(about="champion", passed=False, words=words)


def _external(name: str, drop: float | None, limit: float) -> Condition:
    about, what = f"external set {name}", f"drop of macro F1 on the external set {name}"
    if drop is None:
        return Condition(about=about, passed=False, words=f"The {what} is not known, and a limit is set.")
    return _at_most(about, f"The {what}", drop, limit, "{:.3f}")


def _at_least(about: str, what: str, value: float, floor: float) -> Condition:
    passed = value >= floor
    words = f"{what} is {value:.3f}, {'at or above' if passed else 'below'} the floor of {floor:.3f}."
    return Condition(about=about, passed=passed, words=words)


def _at_most(about: str, what: str, value: float, limit: float, form: str) -> Condition:
    passed = value <= limit
    place = "at or below" if passed else "above"
    words = f"{what} is {form.format(value)}, {place} the limit of {form.format(limit)}."
    return Condition(about=about, passed=passed, words=words)


def _in_points(share: float) -> str:
    return f"{100 * share:g}"


def latency_ms(predict: Callable[[np.ndarray], object], image: np.ndarray, times: int = 20) -> float:
    """The median time that ``predict`` needs for one image alone, in milliseconds, once it is warm.

    Args:
        predict: The model.
        image: (1, S, S, 1) what it is given.
        times: How often it is asked.
    """
    spent = []
    for turn in range(times + 3):
        began = time.perf_counter()
        predict(image)
        if turn >= 3:
            spent.append(time.perf_counter() - began)
    return 1000 * float(np.median(spent))
