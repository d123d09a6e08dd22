"""The step ``ingest``: decode the files of one shard."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr_tasks.artifacts import Kind, RunContext, Scan, Shard
from cxr_tasks.config import Settings
from cxr_tasks.pipeline import Made, load_settings, perform
from cxr_tasks.steps.common import digest, key_mark, pseudonym_key

if TYPE_CHECKING:
    import pandas as pd

    from cxr_tasks.data.sites import SourcePart

log = logging.getLogger(__name__)


def ingest(run: RunContext, scanned: Scan, shard: int) -> Shard:
    """Read the files of one shard: a row and packed pixels for each, or the reason why it cannot be used."""
    from cxr_tasks.data.sites import files_of_site, source_parts

    site = scanned.site_of_shard[shard]
    files = files_of_site(scanned.of_shard(shard), site)
    parts = source_parts(load_settings(run).data, scanned.source, pseudonym_key())
    part = next(each for each in parts if each.site == site)
    return read_as_they_are(files, lambda those: _ingest(run, scanned, shard, those, part))


def read_as_they_are(files: pd.DataFrame, read: Callable[[pd.DataFrame], Kind]) -> Kind:
    """What ``read`` makes of the rows of a scan, without those that have changed since.

    Args:
        files: The rows.
        read: Raises :class:`cxr_tasks.data.ingest.FilesChanged` where files are not those that were scanned.
    """
    from cxr_tasks.data.ingest import FilesChanged, without_changed

    for _ in range(2 * len(files) + 1):
        try:
            return read(files)
        except FilesChanged as error:
            # What such a file was is gone: the image is set aside, the mask left out, under a key that says so.
            files = without_changed(files, error.faults)
            log.warning("%s: reading again without them", error)
    raise AssertionError("each turn leaves out at least one file")


def read_files(settings: Settings, root: Path, files: pd.DataFrame, folder: Path, key: bytes) -> pd.DataFrame:
    """Decode files of a scan as the settings say; the rest is as for :func:`cxr_tasks.data.ingest.read_shard`.

    ``key`` makes the pseudonyms of patients.
    """
    from cxr_tasks.data.decode import HowToRead
    from cxr_tasks.data.ingest import read_shard

    data, how = settings.data, HowToRead.of(settings.data, key)
    return read_shard(root, files, settings.image_sizes, folder, how, correct=data.inverted == "correct")


def how_read(settings: Settings, key: bytes) -> dict[str, Any]:
    """The settings that :func:`read_files` depends on."""
    shaping = ("smallest_side", "most_pixels", "inverted", "resize")
    told = {name: getattr(settings.data, name) for name in shaping}
    told |= {name: getattr(settings.data, name).model_dump(mode="json") for name in ("window", "dicom")}
    return {"sizes": settings.image_sizes, **told, "pseudonyms": key_mark(key)}


def _ingest(run: RunContext, scanned: Scan, shard: int, files: pd.DataFrame, part: SourcePart) -> Shard:
    from cxr_tasks.data.ingest import SET_ASIDE, USED
    from cxr_tasks.data.scan import entries_of
    from cxr_tasks.data.sources import open_source

    settings = load_settings(run)

    def fill(folder: Path) -> Made[Shard]:
        root = open_source(part.address).fetch(entries_of(files))
        rows = read_files(settings, root, files, folder, part.key)
        aside, unusable = rows[rows["status"] == SET_ASIDE], rows[rows["mask_fault"] != ""]
        for row in aside.itertuples():
            log.warning("set aside %s: %s", row.path, row.reason)
        for row in unusable.itertuples():
            log.warning("the mask of %s is not used: %s", row.path, row.mask_fault)
        used = rows[rows["status"] == USED]
        read = Shard(
            images=len(used),
            left_out=len(rows) - len(used) - len(aside),
            unsaid={what: int(number) for what, number in used["unsaid"].value_counts().items() if what},
            burnt_in=int(used["burnt_in"].sum()),
            rejected=len(aside),
            masks=int(rows["mask"].sum()),
            unusable_masks=len(unusable),
        )
        return Made(read, read.counts())

    return perform(
        run,
        Shard,
        fill,
        version=7,
        settings=how_read(settings, part.key),
        inputs={"files": digest(files[["path", "label", "sha256", "fault", "mask_sha256"]])},
        after=[scanned],
        label=f"shard {shard + 1} of {scanned.shards}",
    )
