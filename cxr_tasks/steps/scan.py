"""The step ``scan``: list a source, or each of several, hash its files, and read its tables."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from cxr_tasks.artifacts import RunContext, Scan, SiteShards
from cxr_tasks.config import DataSettings
from cxr_tasks.errors import UserError
from cxr_tasks.form import SOURCE_FIELD
from cxr_tasks.pipeline import Made, load_settings, perform
from cxr_tasks.steps.common import digest, key_mark, pseudonym_key
from cxr_tasks.store import artifact_ref, open_store

if TYPE_CHECKING:
    from cxr_tasks.data.sites import SourcePart

log = logging.getLogger(__name__)


def scan(run: RunContext, source: str) -> Scan:
    """List every file of every class, with its content hash and what the tables say.

    Args:
        run: The DAG run.
        source: The address of the one source; empty where the settings list several. What the form holds at first
            (``CXR_SOURCE``) does not count beside such a list.

    Raises:
        DataError: A source cannot be read, or is not laid out as the settings say.
        SettingsError: There is no source, or one beside the list of the settings.
    """
    from cxr_tasks.data.sites import source_parts

    settings = load_settings(run).data
    if settings.sources and source == SOURCE_FIELD.default:
        source = ""
    address = settings.one_source(source)
    parts = source_parts(settings, address, pseudonym_key())
    if not settings.sources:
        return _scan_one(run, parts[0])
    return _scan_of_all(run, settings, {part.site: _scan_named(run, part) for part in parts})


def shards(run: RunContext, scanned: Scan) -> list[int]:
    """The numbers of the shards that the files are read in; the DAG maps over them."""
    return list(range(scanned.shards))


def _scan_named(run: RunContext, part: SourcePart) -> Scan:
    """The scan of one of several sources, which errors name."""
    from cxr_tasks.data.sites import source_error

    try:
        return _scan_one(run, part)
    except UserError as error:
        raise source_error(part.site, error) from error


def _scan_one(run: RunContext, part: SourcePart) -> Scan:
    import pandas as pd

    from cxr_tasks.data.label_tables import lay_out_source
    from cxr_tasks.data.patients import with_pseudonyms
    from cxr_tasks.data.scan import (
        known_hashes,
        listing_key,
        read_tables,
        scan_files,
        shard_numbers,
        write_by_shard,
    )
    from cxr_tasks.data.sources import open_source

    source, settings, key, store = part.address, part.settings, part.key, open_store()
    opened = open_source(source)
    layout = lay_out_source(opened, settings, source)
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
        write_by_shard(files, folder / Scan.FILES)
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
        version=8,
        settings={
            "classes": list(settings.classes),
            "shard_images": settings.shard_images,
            "min_table_match": settings.min_table_match,
            "pseudonyms": key_mark(key),
        },
        inputs={"listing": listing_key(layout)},
        label=part.site,
    )
    store.write_pointer(last_name, scanned.ref)
    # As this run was given it: the same files may be reached by another address.
    return scanned.model_copy(update={"source": source})


def _scan_of_all(run: RunContext, settings: DataSettings, scanned: dict[str, Scan]) -> Scan:
    """The scan of several sources as one, in which each shard is of one source."""
    from cxr_tasks.data.scan import write_by_shard
    from cxr_tasks.data.sites import join_scans

    tables = {site: each.table() for site, each in scanned.items()}

    def fill(folder: Path) -> Made[Scan]:
        files, numbers = join_scans(tables, settings.shard_images)
        write_by_shard(files, folder / Scan.FILES)
        joined = Scan(
            source=", ".join(scanned),
            shards=sum(numbers.values()),
            files={label: int((files["label"] == label).sum()) for label in settings.classes},
            warnings=tuple(f"{site}: {warning}" for site, each in scanned.items() for warning in each.warnings),
            sites=tuple(SiteShards(site=site, shards=number) for site, number in numbers.items()),
            notes=tuple(f"{site}: {note}" for site, each in scanned.items() for note in each.notes),
        )
        return Made(joined, {"files": len(files)})

    # By what the scans hold: one with files that could not be read is made anew under the same reference.
    return perform(
        run,
        Scan,
        fill,
        settings={"classes": list(settings.classes), "shard_images": settings.shard_images, "sites": list(scanned)},
        inputs={f"files of {site}": digest(table) for site, table in tables.items()},
        after=list(scanned.values()),
        label="of all sources",
    )
