"""The step ``validate``: hold the manifest against the expectations."""

from __future__ import annotations

import logging
from pathlib import Path

from cxr_tasks import tracking
from cxr_tasks.artifacts import Manifest, RunContext, Validation
from cxr_tasks.errors import DataError
from cxr_tasks.pipeline import Made, load_settings, perform
from cxr_tasks.store import open_store

log = logging.getLogger(__name__)


def validate(run: RunContext, joined: Manifest) -> Validation:
    """Hold the manifest against the expectations; critical ones stop the run.

    Raises:
        DataError: With every critical expectation that was not met.
    """
    from cxr_tasks.data.expectations import CHECKED, DOCS_PAGE, check_manifest
    from cxr_tasks.data.ingest import REJECTED_FILES, REJECTS

    settings = load_settings(run).data

    def fill(folder: Path) -> Made[Validation]:
        outcome = check_manifest(joined.table(CHECKED), settings, folder)
        # Kept with the run before anything is raised: the page is most wanted when validation fails.
        tracking.log_folder(folder / "data-docs", "data-docs")
        docs = tracking.active_artifact_url(DOCS_PAGE)
        for warning in outcome.warnings:
            log.warning("Expectation not met (warning): %s", warning)
        if outcome.failures:
            place = open_store().where(joined.ref)
            raise DataError(
                f"The data do not pass validation: {'; '.join(outcome.failures)}. The rejected files are in "
                f"{place}/{REJECTED_FILES}, their reasons in {place}/{REJECTS}" + (f"; page: {docs}." if docs else ".")
            )
        validation = Validation(
            expectations=outcome.expectations,
            warnings=tuple(outcome.warnings),
            data_docs=docs,
            notes=tuple(f"warning: {warning}" for warning in outcome.warnings),
        )
        metrics = {"expectations": outcome.expectations, "expectation_warnings": len(outcome.warnings)}
        return Made(validation, metrics)

    unasked = {"split", "shard_images", "near_duplicates", "folders", "min_split_fraction", "min_table_match"}
    unasked |= {"resize", "window", "sources"}
    checked = settings.model_dump(mode="json", exclude=unasked)
    return perform(run, Validation, fill, version=5, settings=checked, inputs={"manifest": joined})
