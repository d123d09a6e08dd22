"""The step ``read_external``: read a source that models are tested on, and leave out what they may have seen."""

from __future__ import annotations

import logging
from pathlib import Path

from cxr_tasks.artifacts import Artifact, Dataset, ExternalSet, Manifest, RunContext, Scan
from cxr_tasks.config import Settings
from cxr_tasks.data_settings import ExternalSettings
from cxr_tasks.errors import DataError, UserError
from cxr_tasks.pipeline import Made, load_settings, perform
from cxr_tasks.steps.common import log_without_patients
from cxr_tasks.steps.configure import keep_settings
from cxr_tasks.steps.ingest import ingest
from cxr_tasks.steps.manifest import manifest
from cxr_tasks.steps.scan import scan, shards

log = logging.getLogger(__name__)

UNCHECKED = "leaks into it could not be looked for, because the images that the model was trained on are not known"


def external_sets(run: RunContext) -> list[str]:
    """The names of the run's external sets; the DAG maps over them."""
    return [each.name for each in load_settings(run).data.external]


def read_external(run: RunContext, dataset: Dataset, name: str) -> ExternalSet:
    """Read an external set as the dataset was read, and leave out what leaks from its training and validation images.

    Args:
        run: The DAG run.
        dataset: What the run trains on.
        name: One of :func:`external_sets`.

    Raises:
        DataError: The set cannot be read, or nothing of it is left.
    """
    settings = load_settings(run)
    external = next(each for each in settings.data.external if each.name == name)
    data = settings.data.model_copy(update={"resize": dataset.resize})
    return read_set(run, settings.model_copy(update={"data": data}), external, dataset)


def read_set(run: RunContext, settings: Settings, external: ExternalSettings, dataset: Dataset | None) -> ExternalSet:
    """Read an external set, by the steps that read a dataset.

    Args:
        run: The DAG run, or one by hand.
        settings: Say which classes there are, and how images are read.
        external: The set.
        dataset: What the models were trained on; ``None`` where that is not known.

    Raises:
        DataError: The set cannot be read, or nothing of it is left.
    """
    try:
        inner = run.model_copy(update={"settings": _kept(settings, external)})
        scanned = scan(inner, external.source)
        read = [ingest(inner, scanned, shard) for shard in shards(inner, scanned)]
        joined = manifest(inner, scanned, read)
        return _without_leaks(run, settings, external, scanned, joined, dataset)
    except UserError as error:
        raise DataError(f"The external set {external.name!r} cannot be used. {error}") from error


def _kept(settings: Settings, external: ExternalSettings) -> str:
    """The reference of the settings that the set is read with."""
    # What is added to training images says nothing here, and may name classes that the set does not have.
    synthetic = settings.synthetic.model_copy(update={"counts": 0})
    data = settings.data.of_source(external)
    return keep_settings(settings.model_copy(update={"data": data, "synthetic": synthetic}))


def _without_leaks(
    run: RunContext,
    settings: Settings,
    external: ExternalSettings,
    scanned: Scan,
    joined: Manifest,
    dataset: Dataset | None,
) -> ExternalSet:
    from cxr_tasks.data.external import LEAK_COLUMNS, find_leaks, leaks_in_words, seen_in_training
    from cxr_tasks.data.ingest import USED, thumbnails_of
    from cxr_tasks.store import open_store

    def fill(folder: Path) -> Made[ExternalSet]:
        import pandas as pd

        rows = joined.table()
        rows = rows[rows["status"] == USED].reset_index(drop=True)
        leaks = pd.DataFrame(columns=LEAK_COLUMNS, dtype=str)
        if dataset is not None:
            seen = seen_in_training(dataset.manifest())
            store = open_store()
            thumbnails = thumbnails_of([store.fetch(ref) for ref in joined.shards], rows)
            known = seen, dataset.thumbnails(seen), settings.data.near_duplicates
            leaks = find_leaks(rows, thumbnails, *known, own_patients=external.patients == "own")
        kept = rows[~rows["image_id"].isin(leaks["image_id"])].reset_index(drop=True)
        kept.to_parquet(folder / ExternalSet.ROWS, index=False)
        leaks.to_parquet(folder / ExternalSet.LEAKS, index=False)
        log_without_patients(leaks.drop(columns="known_path"), ExternalSet.LEAKS)
        warnings = leaks_in_words(leaks, len(rows), external.name)
        for warning in warnings:
            log.warning("%s", warning)
        counts = kept["label"].value_counts()
        if len(counts) < 2:
            raise DataError(
                f"Of its {len(rows):,} images {len(leaks):,} leak, and what is left is of {len(counts)} class: give "
                "a source with images of two classes that no training has seen."
            )
        by_kind = leaks["leak"].value_counts()
        found = ExternalSet(
            name=external.name,
            source=external.source,
            images={label: int(counts.get(label, 0)) for label in settings.data.classes},
            leaks={str(kind): int(number) for kind, number in by_kind.items()},
            checked=dataset is not None,
            shards=joined.shards,
            rejected=joined.rejected,
            warnings=tuple(warnings),
            notes=(f"{external.name}: {len(kept):,} images test, {len(leaks):,} leak and are left out", *warnings),
        )
        return Made(found, {"images": len(kept), "leaks": len(leaks), "rejected": joined.rejected})

    inputs: dict[str, Artifact | str] = {"manifest": joined}
    if dataset is not None:
        inputs["dataset"] = dataset
    read = perform(
        run,
        ExternalSet,
        fill,
        settings={
            "name": external.name,
            "classes": list(settings.data.classes),
            "near_duplicates": settings.data.near_duplicates.model_dump(mode="json"),
            **({"patients": "own"} if external.patients == "own" else {}),
        },
        inputs=inputs,
        label=external.name,
    )
    # As this run was given it: the same files may be reached by another address.
    told = (*read.warnings, *scanned.warnings, *joined.warnings)
    return read.model_copy(update={"source": external.source, "warnings": told})
