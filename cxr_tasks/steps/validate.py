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
    from cxr_tasks.data.coincidences import coincidences, coincidences_told
    from cxr_tasks.data.data_docs import DOCS_FOLDER, DOCS_PAGE
    from cxr_tasks.data.expectations import CHECKED, check_manifest
    from cxr_tasks.data.ingest import REJECTED_FILES, REJECTS
    from cxr_tasks.data.subgroups import OF_SUBGROUPS

    settings, subgroups = load_settings(run).data, load_settings(run).evaluation.subgroups

    def fill(folder: Path) -> Made[Validation]:
        table = joined.table([*dict.fromkeys((*CHECKED, *OF_SUBGROUPS))])
        outcome = check_manifest(table, settings, folder)
        # Kept with the run before anything is raised: the page is most wanted when validation fails.
        tracking.log_folder(folder / DOCS_FOLDER, DOCS_FOLDER)
        docs = tracking.active_artifact_url(DOCS_PAGE)
        for warning in outcome.warnings:
            log.warning("Expectation not met (warning): %s", warning)
        if outcome.failures:
            place = open_store().where(joined.ref)
            raise DataError(
                f"The data do not pass validation: {'; '.join(outcome.failures)}. The rejected files are in "
                f"{place}/{REJECTED_FILES}, their reasons in {place}/{REJECTS}" + (f"; page: {docs}." if docs else ".")
            )
        # The report of a training tells of these by its own settings, so they are no warnings of the dataset.
        found = coincidences(table, settings.classes, subgroups)
        coinciding = coincidences_told(found)
        for sentence in coinciding:
            log.warning("%s", sentence)
        validation = Validation(
            expectations=outcome.expectations,
            warnings=tuple(outcome.warnings),
            data_docs=docs,
            notes=tuple(f"warning: {warning}" for warning in (*outcome.warnings, *coinciding)),
        )
        metrics = {"expectations": outcome.expectations, "expectation_warnings": len(outcome.warnings)}
        metrics["coincidences"] = len(found)
        return Made(validation, metrics)

    unasked = {"split", "shard_images", "near_duplicates", "folders", "min_split_fraction", "min_table_match"}
    unasked |= {"resize", "window", "sources"}
    checked = settings.model_dump(mode="json", exclude=unasked)
    checked["subgroups"] = subgroups.model_dump(mode="json")
    return perform(run, Validation, fill, version=6, settings=checked, inputs={"manifest": joined})
