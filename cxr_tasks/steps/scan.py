"""The step ``scan``: list a source, hash its files, and read its tables."""

from __future__ import annotations

import logging
from pathlib import Path

from cxr_tasks.artifacts import RunContext, Scan
from cxr_tasks.errors import SettingsError
from cxr_tasks.pipeline import Made, load_settings, perform
from cxr_tasks.steps.common import key_mark, pseudonym_key
from cxr_tasks.store import artifact_ref, open_store

log = logging.getLogger(__name__)


def scan(run: RunContext, source: str) -> Scan:
    """List the source: every file of every class, its content hash, and what the tables say."""
    import pandas as pd

    from cxr_tasks.data.label_tables import lay_out_source
    from cxr_tasks.data.patients import with_pseudonyms
    from cxr_tasks.data.scan import known_hashes, listing_key, read_tables, scan_files, shard_numbers
    from cxr_tasks.data.sources import open_source

    settings, store = load_settings(run).data, open_store()
    if not source:
        raise SettingsError("No data source is given: name one in the field source, or set CXR_SOURCE.")
    opened = open_source(source)
    layout = lay_out_source(opened, settings, source)
    key = pseudonym_key()
    last_name = artifact_ref("scans", 2, {"source": source}, {})

    def fill(folder: Path) -> Made[Scan]:
        last = store.read_pointer(last_name)
        known: dict[tuple[str, str], str] = {}
        # The last scan may be the very artifact that is damaged and made anew here.
        if last and store.take(last):
            known = known_hashes(pd.read_parquet(store.fetch(last) / Scan.FILES))
        # First of all: a table that cannot be read is known before hours of hashing.
        tables = read_tables(opened, layout, settings.min_table_match)
        for warning in tables.warnings:
            log.warning("%s", warning)
        files = with_pseudonyms(scan_files(opened, layout, known, tables), key)
        files["shard"] = shard_numbers(files, settings.shard_images)
        files.to_parquet(folder / Scan.FILES, index=False)
        # A file that could not be read today may be read tomorrow without looking any different.
        unread = (files["fault"] != "") | ((files["mask"] != "") & (files["mask_sha256"] == ""))
        by_class = {label: int((files["label"] == label).sum()) for label in settings.classes}
        notes = [f"{t.path}: {t.matched(files):,} of {len(t.rows):,} rows name a file" for t in tables.read]
        scanned = Scan(
            source=source,
            shards=int(files["shard"].max()) + 1,
            files=by_class,
            warnings=tables.warnings,
            notes=(*layout.told, *notes, *(f"warning: {warning}" for warning in tables.warnings)),
        )
        return Made(scanned, {"files": len(files)}, volatile=bool(unread.any()))

    scanned = perform(
        run,
        Scan,
        fill,
        version=7,
        settings={
            "classes": list(settings.classes),
            "shard_images": settings.shard_images,
            "min_table_match": settings.min_table_match,
            "pseudonyms": key_mark(key),
        },
        inputs={"listing": listing_key(layout)},
    )
    store.write_pointer(last_name, scanned.ref)
    # As this run was given it: the same files may be reached by another address.
    return scanned.model_copy(update={"source": source})


def shards(run: RunContext, scanned: Scan) -> list[int]:
    """The numbers of the shards that the files are read in; the DAG maps over them."""
    return list(range(scanned.shards))
