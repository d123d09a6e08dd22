"""What a dataset must look like before anything is trained on it: a Great Expectations suite on the manifest.

Critical expectations stop the run, warnings are shown. The whole suite, with its results, becomes a page for people
(Data Docs).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_tasks.config import DataSettings
from cxr_tasks.data.data_docs import expectation_in_words, validated
from cxr_tasks.data.duplicates import CLASH
from cxr_tasks.data.ingest import LEFT_OUT, USED
from cxr_tasks.data.inverted import CORRECTED, YES, count_inverted, inverted_in_words
from cxr_tasks.data.shared import copies_of_other_sources
from cxr_tasks.data.shares import group_faults, group_shares

# What the expectations look at.
CHECKED = (
    *("image_id", "site", "path", "label", "patient", "group", "width", "height", "mean", "contrast", "inverted"),
    *("provenance", "status", "reason"),
)
LARGEST_GROUP = "share of the largest group of"


@dataclass(frozen=True)
class ManifestCheck:
    """What came of the expectations.

    Attributes:
        failures: A sentence for each critical expectation that was not met.
        warnings: A sentence for each other expectation that was not met.
        expectations: How many there are.
    """

    failures: list[str]
    warnings: list[str]
    expectations: int


def check_manifest(manifest: pd.DataFrame, settings: DataSettings, folder: Path) -> ManifestCheck:
    """Hold a manifest against the expectations.

    Args:
        manifest: The whole manifest, with at least the columns ``CHECKED``. The suite sees the used rows, and the
            counts of all rows.
        settings: What is acceptable.
        folder: Where Data Docs are written, to ``data-docs``.
    """
    used = manifest[manifest["status"] == USED]
    groups, inverted = group_faults(used, settings), inverted_in_words(used, settings.classes)
    told = {_inverted(escape(label)): said for label, said in inverted.items()}
    manifest, settings = _for_pages(manifest, settings)
    used = manifest[manifest["status"] == USED]
    outcomes = validated(
        folder,
        {
            "manifest": (used.assign(pixels=used["width"] * used["height"]), _expectations(settings)),
            "counts": (_table_of_counts(manifest, settings), _count_expectations(settings, told)),
        },
    )
    failures: list[str] = []
    warnings: list[str] = []
    for config, result in outcomes:
        # Said below, with the name of the group.
        if result is not None and not config.kwargs["column"].startswith(LARGEST_GROUP):
            is_critical = str(getattr(config.severity, "value", config.severity)) == "critical"
            words = told.get(config.kwargs["column"]) or expectation_in_words(config, result)
            (failures if is_critical else warnings).append(words)
    return ManifestCheck(failures + groups, warnings, len(outcomes))


def _for_pages(manifest: pd.DataFrame, settings: DataSettings) -> tuple[pd.DataFrame, DataSettings]:
    """Both with the names of classes as HTML has them.

    Great Expectations puts the names of columns, and values that were not expected, into its pages as they are.
    """
    counts = settings.expected_counts and {escape(label): count for label, count in settings.expected_counts.items()}
    names = {"classes": tuple(map(escape, settings.classes)), "expected_counts": counts}
    return manifest.assign(label=manifest["label"].map(escape, na_action="ignore")), settings.model_copy(update=names)


def _table_of_counts(manifest: pd.DataFrame, settings: DataSettings) -> pd.DataFrame:
    """One row: how many files and usable images each class has, and what share was set aside."""
    manifest = manifest[manifest["status"] != LEFT_OUT]
    used = manifest["status"] == USED
    files, images = manifest["label"].value_counts(), manifest.loc[used, "label"].value_counts()
    row: dict[str, Any] = {f"files of {label}": int(files.get(label, 0)) for label in settings.classes}
    row |= {f"images of {label}": int(images.get(label, 0)) for label in settings.classes}
    inverted = count_inverted(manifest[used], settings.classes, YES, CORRECTED)
    row |= {_inverted(label): number for label, number in inverted.items()}
    shares = {label: images / total for label, (_, images, total) in group_shares(manifest[used]).items() if images > 1}
    row |= {f"{LARGEST_GROUP} {label}": shares.get(label, 0.0) for label in settings.classes}
    # What another source has as well is no fault of the files.
    alone = ~copies_of_other_sources(manifest)
    row["rejected fraction"] = float((~used[alone]).mean()) if alone.any() else 0.0
    row["images under two classes"] = int(manifest["reason"].str.startswith(CLASH).sum())
    return pd.DataFrame([row])


def _inverted(label: str) -> str:
    """The column of counts that says how many images of a class are inverted."""
    return f"inverted images of {label}"


def _expectations(settings: DataSettings) -> list[Any]:
    import great_expectations.expectations as gxe

    missing: list[Any] = [
        gxe.ExpectColumnValuesToNotBeNull(column=column, severity="critical")
        for column in ("image_id", "path", "label", "group", "width", "height")
    ]
    return [
        *missing,
        gxe.ExpectColumnValuesToBeUnique(column="image_id", severity="critical"),
        gxe.ExpectColumnValuesToBeInSet(column="label", value_set=list(settings.classes), severity="critical"),
        gxe.ExpectColumnValuesToBeInSet(column="provenance", value_set=["real"], severity="critical"),
        # Ingest sets such images aside by the same two settings. A manifest that holds one was not made by them.
        *(
            gxe.ExpectColumnValuesToBeBetween(column=side, min_value=settings.smallest_side, severity="critical")
            for side in ("width", "height")
        ),
        gxe.ExpectColumnValuesToBeBetween(column="pixels", max_value=settings.most_pixels, severity="critical"),
        # An exposure this far off, or this flat, is a blank or a burnt image and not a radiograph.
        gxe.ExpectColumnValuesToBeBetween(column="mean", min_value=10, max_value=245, severity="warning"),
        gxe.ExpectColumnValuesToBeBetween(column="contrast", min_value=8, severity="warning"),
    ]


def _count_expectations(settings: DataSettings, told: Mapping[str, str]) -> list[Any]:
    """Expectations of the table of counts; ``told`` holds a sentence by column for those that are known to fail."""
    import great_expectations.expectations as gxe

    checks: list[Any] = [
        gxe.ExpectColumnValuesToBeBetween(
            column=f"images of {label}", min_value=settings.min_images_per_class, severity="critical"
        )
        for label in settings.classes
    ]
    checks += [
        gxe.ExpectColumnValuesToBeBetween(
            column=f"{LARGEST_GROUP} {label}", max_value=settings.max_group_fraction, severity="critical"
        )
        for label in settings.classes
    ]
    checks.append(
        gxe.ExpectColumnValuesToBeBetween(
            column="rejected fraction", max_value=settings.max_rejected_fraction, severity="critical"
        )
    )
    checks.append(
        gxe.ExpectColumnValuesToBeBetween(column="images under two classes", max_value=0, severity="critical")
    )
    checks += [
        gxe.ExpectColumnValuesToBeBetween(
            column=_inverted(label), max_value=0, severity="warning", notes=told.get(_inverted(label))
        )
        for label in settings.classes
    ]
    checks += [
        gxe.ExpectColumnValuesToBeBetween(
            column=f"files of {label}", min_value=count, max_value=count, severity="critical"
        )
        for label, count in (settings.expected_counts or {}).items()
    ]
    return checks
