"""What a dataset must look like before anything is trained on it: a Great Expectations suite on the manifest.

Critical expectations stop the run, warnings are shown. The whole suite, with its results, becomes a page for people
(Data Docs).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape, unescape
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_tasks.config import DataSettings
from cxr_tasks.data.duplicates import CLASH
from cxr_tasks.data.ingest import LEFT_OUT, USED
from cxr_tasks.data.inverted import CORRECTED, YES, count_inverted, inverted_in_words
from cxr_tasks.data.shared import copies_of_other_sources
from cxr_tasks.data.shares import group_faults, group_shares

DOCS_PAGE = "data-docs/index.html"
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
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    # Where Airflow has set up logging before, GX would log every docstring that it decorates.
    logging.getLogger("great_expectations._docs_decorators").setLevel(logging.WARNING)
    import great_expectations as gx
    from great_expectations.checkpoint import UpdateDataDocsAction

    context = gx.get_context(mode="file", project_root_dir=folder / "gx")
    context.variables.progress_bars = {"globally": False}
    docs = {
        "class_name": "SiteBuilder",
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        "store_backend": {
            "class_name": "TupleFilesystemStoreBackend",
            "base_directory": str((folder / "data-docs").absolute()),
        },
    }
    context.update_data_docs_site("local_site", docs)
    used = manifest[manifest["status"] == USED]
    groups, inverted = group_faults(used, settings), inverted_in_words(used, settings.classes)
    told = {_inverted(escape(label)): said for label, said in inverted.items()}
    manifest, settings = _for_pages(manifest, settings)
    suite = context.suites.add_or_update(gx.ExpectationSuite("dataset", _expectations(settings)))
    used = manifest[manifest["status"] == USED]
    tables = {
        "manifest": used.assign(pixels=used["width"] * used["height"]),
        "counts": _table_of_counts(manifest, settings),
    }
    batches = {}
    for name in ("manifest", "counts"):
        asset = context.data_sources.add_or_update_pandas(name).add_dataframe_asset(name)
        batches[name] = asset.add_batch_definition_whole_dataframe("whole")
    count_suite = context.suites.add_or_update(gx.ExpectationSuite("counts", _count_expectations(settings, told)))

    failures: list[str] = []
    warnings: list[str] = []
    total = 0
    for name, checks in (("manifest", suite), ("counts", count_suite)):
        definition = context.validation_definitions.add_or_update(
            gx.ValidationDefinition(name=name, data=batches[name], suite=checks)
        )
        checkpoint = context.checkpoints.add_or_update(
            gx.Checkpoint(
                name=name,
                validation_definitions=[definition],
                actions=[UpdateDataDocsAction(name="docs", site_names=["local_site"])],
            )
        )
        outcome = checkpoint.run(batch_parameters={"dataframe": tables[name]})
        for result in next(iter(outcome.run_results.values())).results:
            total += 1
            config = result.expectation_config
            # Said below, with the name of the group.
            if not result.success and not config.kwargs["column"].startswith(LARGEST_GROUP):
                is_critical = str(getattr(config.severity, "value", config.severity)) == "critical"
                (failures if is_critical else warnings).append(
                    told.get(config.kwargs["column"]) or unescape(_sentence(config, result.result))
                )
    return ManifestCheck(failures + groups, warnings, total)


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


def _sentence(config: Any, result: dict[str, Any]) -> str:
    """What was expected and what was found, in words."""
    kwargs = config.kwargs
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    if low is not None and low == high:
        wanted = _value_in_words(low)
    elif low is not None and high is not None:
        wanted = f"{_value_in_words(low)} to {_value_in_words(high)}"
    elif low is not None:
        wanted = f"at least {_value_in_words(low)}"
    elif high is not None:
        wanted = f"at most {_value_in_words(high)}"
    elif "value_set" in kwargs:
        wanted = f"one of {', '.join(map(str, kwargs['value_set']))}"
    else:
        wanted = "no missing value" if "not_be_null" in config.type else "no value twice"
    found = [value for value in result.get("partial_unexpected_list") or [] if not pd.isna(value)]
    shown = ", ".join(_value_in_words(value) for value in found[:3]) or "missing values"
    total = result.get("element_count", 1)
    # The table of counts has one row: "1 of 1" would say nothing.
    times = f" ({result.get('unexpected_count', len(found))} of {total})" if total > 1 else ""
    return f"{kwargs['column']}: expected {wanted}, found {shown}{times}"


def _value_in_words(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
