"""The step ``ingest``: decode the files of one shard."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from cxr_tasks.artifacts import RunContext, Scan, Shard
from cxr_tasks.pipeline import Made, load_settings, perform
from cxr_tasks.steps.common import digest

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)


def ingest(run: RunContext, scanned: Scan, shard: int) -> Shard:
    """Read the files of one shard: a row and packed pixels for each, or the reason why it cannot be used."""
    from cxr_tasks.data.ingest import FilesChanged, without_changed

    files = scanned.table()
    files = files[files["shard"] == shard].reset_index(drop=True)
    for _ in range(2 * len(files) + 1):
        try:
            return _ingest(run, scanned, shard, files)
        except FilesChanged as error:
            # What such a file was is gone: the image is set aside, the mask left out, under a key that says so.
            files = without_changed(files, error.faults)
            log.warning("%s: reading the shard again without them", error)
    raise AssertionError("each turn leaves out at least one file")


def _ingest(run: RunContext, scanned: Scan, shard: int, files: pd.DataFrame) -> Shard:
    from cxr_tasks.data.decode import HowToRead
    from cxr_tasks.data.ingest import SET_ASIDE, read_shard
    from cxr_tasks.data.scan import entries_of
    from cxr_tasks.data.sources import open_source

    settings = load_settings(run)
    sizes, data = settings.image_sizes, settings.data

    def fill(folder: Path) -> Made[Shard]:
        root = open_source(scanned.source).fetch(entries_of(files))
        rows = read_shard(root, files, sizes, folder, HowToRead.of(data), correct=data.inverted == "correct")
        aside, unusable = rows[rows["status"] == SET_ASIDE], rows[rows["mask_fault"] != ""]
        for row in aside.itertuples():
            log.warning("set aside %s: %s", row.path, row.reason)
        for row in unusable.itertuples():
            log.warning("the mask of %s is not used: %s", row.path, row.mask_fault)
        read = Shard(
            images=len(rows) - len(aside),
            rejected=len(aside),
            masks=int(rows["mask"].sum()),
            unusable_masks=len(unusable),
        )
        return Made(read, read.counts())

    return perform(
        run,
        Shard,
        fill,
        version=5,
        settings={
            "sizes": sizes,
            "smallest_side": data.smallest_side,
            "most_pixels": data.most_pixels,
            "inverted": data.inverted,
            "resize": data.resize,
            "window": data.window.model_dump(mode="json"),
        },
        inputs={"files": digest(files[["path", "label", "sha256", "fault", "mask_sha256"]])},
        after=[scanned],
        label=f"shard {shard + 1} of {scanned.shards}",
    )
