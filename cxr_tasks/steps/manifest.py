"""The step ``manifest``: join the shards into one table."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from cxr_tasks import tracking
from cxr_tasks.artifacts import Manifest, RunContext, Scan, Shard
from cxr_tasks.pipeline import Made, load_settings, perform
from cxr_tasks.steps.common import NOTES, digest, log_without_patients


def manifest(run: RunContext, scanned: Scan, ingested: list[Shard]) -> Manifest:
    """Join the shards into the manifest: duplicates set aside, near-duplicates grouped, rejects listed."""
    from cxr_tasks.data.contradictions import tell_contradictions
    from cxr_tasks.data.facts import SAID
    from cxr_tasks.data.ingest import (
        LEFT_OUT,
        MANIFEST,
        NEAR,
        REJECTS,
        SET_ASIDE,
        USED,
        join_shards,
        rows_of_shards,
    )
    from cxr_tasks.data.inverted import CORRECTED, UNSURE, YES
    from cxr_tasks.data.shared import tell_sources

    settings, files = load_settings(run).data, scanned.table(["path", "given", *SAID])

    def fill(folder: Path) -> Made[Manifest]:
        folders, near = [shard.folder() for shard in ingested], settings.near_duplicates
        table, pairs = join_shards(folders, files, near, folder, scanned.site_of_shard)
        aside = table.loc[table["status"] == SET_ASIDE, ["path", "reason"]]
        used = table.loc[table["status"] == USED, ["label", "inverted", "mask"]]
        notes = [f"set aside {row.path}: {row.reason}" for row in aside.head(NOTES).itertuples()]
        if len(aside) > NOTES:
            notes.append(f"and {len(aside) - NOTES:,} more, listed in {REJECTS}")
        inverted, unsure = int(used["inverted"].isin([YES, CORRECTED]).sum()), int((used["inverted"] == UNSURE).sum())
        if unsure:
            notes.append(f"{unsure:,} images may be inverted or not: see the column inverted of {MANIFEST}")
        left_out = table.loc[table["status"] == LEFT_OUT, "reason"].value_counts()
        notes += [f"left out {number:,} files: {reason}" for reason, number in left_out.items()]
        warnings = [
            *_tell_headers(ingested),
            *tell_contradictions(rows_of_shards(folders, scanned.site_of_shard), files),
            *tell_sources(table, pairs),
        ]
        notes += [f"warning: {warning}" for warning in warnings]
        by_class = used["label"].value_counts()
        log_without_patients(table, MANIFEST)
        log_without_patients(table.loc[table["status"] != USED, ["image_id", "label", "reason"]], REJECTS)
        tracking.log_file(folder / NEAR)
        joined = Manifest(
            images={label: int(by_class.get(label, 0)) for label in settings.classes},
            shards=tuple(shard.ref for shard in ingested),
            rejected=len(aside),
            near_duplicates=len(pairs),
            masks=int(used["mask"].sum()),
            inverted=inverted,
            unsure_inverted=unsure,
            resize=settings.resize,
            warnings=tuple(warnings),
            notes=tuple(notes),
        )
        counts = {"rejected": joined.rejected, "near_duplicates": joined.near_duplicates, "masks": joined.masks}
        counts |= {"inverted": joined.inverted, "unsure_inverted": joined.unsure_inverted}
        return Made(joined, {"images": len(used), **counts})

    return perform(
        run,
        Manifest,
        fill,
        version=12,
        settings=settings.near_duplicates.model_dump(mode="json"),
        inputs={
            "metadata": digest(files[["path", "given", *SAID]]),
            **{f"shard {i + 1}": shard for i, shard in enumerate(ingested)},
        },
        after=[scanned],
    )


def _tell_headers(ingested: list[Shard]) -> list[str]:
    """What people must know of the headers of DICOM files."""
    told, unsaid = [], Counter[str]()
    if burnt_in := sum(shard.burnt_in for shard in ingested):
        told.append(
            f"{burnt_in:,} DICOM files say that text is burnt into their pixels (BurnedInAnnotation): it may name the "
            "patient, and a model may know a class by it. Look at them, or take them away"
        )
    for shard in ingested:
        unsaid.update(shard.unsaid)
    for what, number in unsaid.most_common():
        told.append(f"{number:,} DICOM files do not say their {what}, and are used: look whether they are chest X-rays")
    return told
