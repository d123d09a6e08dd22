"""The tables of a report by subgroup, and what a reader must know of subgroups."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from cxr_tasks.artifacts import ExternalResults, TrainedArm
from cxr_tasks.config import Settings
from cxr_tasks.data.coincidences import association_of, coincidences, coincidences_told
from cxr_tasks.data.ingest import USED
from cxr_tasks.data.subgroups import members, subgroups_by_image, subgroups_of
from cxr_tasks.evaluation.comparison import join_words, points
from cxr_tasks.evaluation.external import SureFigure
from cxr_tasks.evaluation.subgroups import (
    AttributeFindings,
    SubgroupChange,
    SubgroupFindings,
    SubgroupGap,
    subgroup_changes,
    subgroup_findings,
)
from cxr_tasks.report.render import Table

TOO_FEW = "too few"


def subgroup_tables(
    manifest: pd.DataFrame, arms: Sequence[TrainedArm], settings: Settings
) -> tuple[list[Table], list[str], list[str]]:
    """What is known by subgroup.

    Args:
        manifest: Of the dataset.
        arms: The trained arms of the run.
        settings: Of the run.

    Returns:
        The tables; the sentences where a class and a subgroup coincide; and those on gaps that are certain.
    """
    classes, limits = list(settings.data.classes), settings.evaluation.subgroups
    told = [f"{sentence}." for sentence in coincidences_told(coincidences(manifest, classes, limits))]
    subgroups = subgroups_by_image(manifest, limits)
    predictions: dict[str, dict[tuple[str, int], pd.DataFrame]] = {}
    for arm in arms:
        of_arm = predictions.setdefault(arm.training.arm, {})
        of_arm[arm.training.classifier, arm.training.seed] = arm.model.predictions()
    found: dict[str, SubgroupFindings] = {}
    for name, of_arm in predictions.items():
        one = subgroup_findings(
            list(of_arm.values()),
            subgroups,
            classes,
            settings.evaluation,
            settings.seeds.bootstrap,
            told_together=len(predictions),
        )
        if one is not None:
            found[name] = one
    tables = [
        *_by_attribute(found, classes, limits.min_groups),
        *_changes(predictions, subgroups, settings),
        *_gaps(found),
    ]
    certain = [_gap_sentence(name, one.gap) for name, one in found.items() if one.gap and one.gap.is_certain]
    return [*_classes_table(manifest, classes, settings), *tables], told, certain


def _classes_table(manifest: pd.DataFrame, classes: Sequence[str], settings: Settings) -> list[Table]:
    """Images of each class in each subgroup, training images too."""
    limits = settings.evaluation.subgroups
    used = manifest[manifest["status"] == USED].reset_index(drop=True)
    rows, associated = [], []
    for attribute, subgroups in subgroups_of(used, limits).items():
        named = pd.Series("", index=used.index)
        for name, inside in members(used, subgroups, limits):
            named[inside.index] = name
            rows.append([f"{attribute} {name}", *_counts(inside, classes)])
        small = used[subgroups.notna() & (named == "")]
        rows += [[f"{attribute}: smaller ones together", *_counts(small, classes)]] if len(small) else []
        unknown = used[subgroups.isna()]
        rows += [[f"{attribute} unknown", *_counts(unknown, classes)]] if len(unknown) else []
        strength = association_of(named[named != ""], used["label"][named != ""])
        associated += [f"{attribute} {strength:.2f}"] if strength is not None else []
    if not rows:
        return []
    note = (
        "All images that are used, of training, validation and test. Where the shares of the classes differ between "
        "subgroups, a model can gain by the subgroup instead of the disease."
    )
    if associated:
        note += (
            f" Cramér's V is {join_words(associated)}: 0 where every subgroup has the same shares of the classes, 1 "
            "where the subgroup gives the class away."
        )
    return [Table(title="Classes by subgroup", note=note, columns=["Subgroup", *classes], rows=rows)]


def _counts(rows: pd.DataFrame, classes: Sequence[str]) -> list[str]:
    return [f"{int((rows['label'] == label).sum()):,}" for label in classes]


def external_subgroup_tables(results: Sequence[ExternalResults], settings: Settings) -> tuple[list[Table], list[str]]:
    """What is known by subgroup on external sets: tables of the run's own arms, and sentences on gaps that are certain.

    Args:
        results: Of the sets.
        settings: Of the run.
    """
    classes, chosen = list(settings.data.classes), settings.evaluation
    tables, certain = list[Table](), list[str]()
    for each in results:
        predictions: dict[str, list[pd.DataFrame]] = {}
        for test in each.tests:
            if test.training is not None:
                predictions.setdefault(test.training.arm, []).append(test.predictions())
        told = subgroups_by_image(each.external.table(), chosen.subgroups)
        found = {
            name: one
            for name, of_arm in predictions.items()
            if (
                one := subgroup_findings(
                    of_arm, told, classes, chosen, settings.seeds.bootstrap, told_together=len(predictions)
                )
            )
        }
        where = f"External test {each.external.name}: "
        tables += [*_by_attribute(found, classes, chosen.subgroups.min_groups, where), *_gaps(found, where)]
        certain += [
            f"On the external set {each.external.name}: {_gap_sentence(name, one.gap, where)}"
            for name, one in found.items()
            if one.gap and one.gap.is_certain
        ]
    return tables, certain


def tables_of_model(found: SubgroupFindings, who: str, external: str, least: int) -> list[Table]:
    """What one model does on the subgroups of one external set.

    Args:
        found: The figures.
        who: What the model is called.
        external: The set's name.
        least: How many groups a subgroup must have to be measured.
    """
    named, where = {who: found}, f"External test {external}: "
    return [*_by_attribute(named, list(found.whole.by_class), least, where), *_gaps(named, where)]


def _by_attribute(
    found: dict[str, SubgroupFindings], classes: Sequence[str], least: int, where: str = ""
) -> list[Table]:
    """A table for each attribute, with a column for each arm. ``where``: what titles begin with."""
    if not found:
        return []
    first = next(iter(found.values()))
    columns = ["Subgroup", "Test images", "Groups", *classes, *found]
    note = (
        f"Balanced accuracy in percent, with {100 * first.confidence:g} % intervals: the mean sensitivity of the "
        "classes that the subgroup has, and a mean over the networks and seeds of an arm. How many images of each "
        "class a subgroup has does not move this figure. Which classes it has does: compare subgroups that have the "
        "same. The columns of classes count test images. A group is one patient or one picture. Not measured, but "
        f"counted: subgroups of fewer than {least} groups, and images of which the attribute is not known."
    )
    tables: list[Table] = []
    for place, of_attribute in enumerate(first.attributes):
        rows = []
        for number, row in enumerate(of_attribute.rows):
            figures = [_percent(one.attributes[place].rows[number].balanced_accuracy) for one in found.values()]
            by_class = [f"{row.by_class[label]:,}" for label in classes]
            rows.append([row.subgroup, f"{row.images:,}", f"{row.groups:,}", *by_class, *figures])
        rows += _not_measured(of_attribute, len(classes), len(found))
        whole = [_percent(one.whole.balanced_accuracy) for one in found.values()]
        by_class = [f"{first.whole.by_class[label]:,}" for label in classes]
        rows.append(["all test images", f"{first.whole.images:,}", f"{first.whole.groups:,}", *by_class, *whole])
        name = of_attribute.attribute
        said = note if not tables else f"The same figures as in “{tables[0].title}”."
        tables.append(Table(title=_title(f"By {name}", where), note=said, columns=columns, rows=rows))
    return tables


def _not_measured(of_attribute: AttributeFindings, classes: int, arms: int) -> list[list[str]]:
    """Rows that count the images of small subgroups and of unknown ones."""
    told = {}
    if of_attribute.small:
        which = "1 smaller subgroup" if of_attribute.small == 1 else f"{of_attribute.small} smaller subgroups together"
        told[which] = of_attribute.small_images, TOO_FEW
    if of_attribute.unknown_images:
        told["unknown"] = of_attribute.unknown_images, "–"
    return [[name, f"{images:,}", *["–"] * (1 + classes), *[word] * arms] for name, (images, word) in told.items()]


def _changes(
    predictions: dict[str, dict[tuple[str, int], pd.DataFrame]], subgroups: pd.DataFrame, settings: Settings
) -> list[Table]:
    """What each arm changes from the baseline, on each subgroup."""
    baseline = predictions.get(settings.arms.baseline, {})
    changes: dict[str, list[SubgroupChange]] = {}
    for name, of_arm in predictions.items():
        both = [(baseline[training], table) for training, table in of_arm.items() if training in baseline]
        if name != settings.arms.baseline and both:
            changes[name] = subgroup_changes(
                both, subgroups, list(settings.data.classes), settings.evaluation, settings.seeds.bootstrap
            )
    if not changes or not next(iter(changes.values())):
        return []
    rows = [
        [f"{of_arm[0].attribute} {of_arm[0].subgroup}", *(_change(each.change) for each in of_arm)]
        for of_arm in zip(*changes.values(), strict=True)
    ]
    note = (
        f"Balanced accuracy in points, arm less {settings.arms.baseline}, on the same test images, with "
        f"{100 * settings.evaluation.confidence:g} % intervals. This is a look around and no test. "
        f"{len(rows) * len(changes)} intervals are not corrected for each other: about one in "
        f"{round(1 / (1 - settings.evaluation.confidence))} leaves out 0 by chance. “What this run may claim” is on "
        "all test images. “No disagreement”: the arms said the same of every image."
    )
    title = f"By subgroup: change from {settings.arms.baseline}"
    return [Table(title=title, note=note, columns=["Subgroup", *changes], rows=rows)]


def _gaps(found: dict[str, SubgroupFindings], where: str = "") -> list[Table]:
    """The largest gap between subgroups of each arm."""
    gaps = [(name, one.gap) for name, one in found.items() if one.gap is not None]
    if not gaps:
        return []
    rows = [
        [name, gap.attribute, gap.better, gap.worse, join_words(gap.classes), _change(gap.difference), _certainty(gap)]
        for name, gap in gaps
    ]
    note = (
        f"Of {gaps[0][1].pairs:,} comparisons between two subgroups by one attribute, the largest gap of each arm in "
        "balanced accuracy, over the classes that both subgroups have. Intervals hold together for all of these "
        f"comparisons with {100 * next(iter(found.values())).confidence:g} % (Bonferroni). A gap whose interval holds "
        "0 may be chance."
    )
    columns = ["Arm", "Attribute", "Better", "Worse", "Classes", "Gap, points", "Certain"]
    return [Table(title=_title("Largest gap between subgroups", where), note=note, columns=columns, rows=rows)]


def _certainty(gap: SubgroupGap) -> str:
    return "yes" if gap.is_certain else "no"


def _title(title: str, where: str) -> str:
    """A title behind ``where``, of which it goes on."""
    return where + title[0].lower() + title[1:] if where else title


def _gap_sentence(arm: str, gap: SubgroupGap, where: str = "") -> str:
    return (
        f"The arm {arm} does worse on {gap.attribute} {gap.worse} than on {gap.attribute} {gap.better}: balanced "
        f"accuracy is {100 * gap.difference.value:.1f} points lower (joint interval {100 * gap.difference.low:.1f} to "
        f"{100 * gap.difference.high:.1f}). See “{_title(f'By {gap.attribute}', where)}”."
    )


def _percent(figure: SureFigure) -> str:
    return _kept_together(figure.percent)


def _change(figure: SureFigure | None) -> str:
    if figure is None:
        return "no disagreement"
    return _kept_together(f"{points(figure.value)} ({points(figure.low)} to {points(figure.high)})")


def _kept_together(text: str) -> str:
    """A figure with its interval, which a narrow column breaks before the interval and nowhere else."""
    return text.replace(" to ", "\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}")
