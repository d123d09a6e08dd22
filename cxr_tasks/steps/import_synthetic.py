"""The step ``import_synthetic``: read the synthetic images that others have made, in the place of a GAN's training."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cxr_tasks import tracking
from cxr_tasks.artifacts import Dataset, ImportedImages, RunContext
from cxr_tasks.config import Settings
from cxr_tasks.data.added import counts_to_add
from cxr_tasks.errors import DataError, shown
from cxr_tasks.pipeline import Made, load_settings, perform
from cxr_tasks.steps.common import NOTES, digest, pseudonym_key
from cxr_tasks.steps.ingest import how_read, read_as_they_are, read_files
from cxr_tasks.store import artifact_ref, open_store

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)


def import_synthetic(run: RunContext, dataset: Dataset) -> ImportedImages:
    """Read the synthetic images at the address of the settings, as real ones are read.

    Images whose content has not changed are taken as they are, wherever they lie.

    Raises:
        DataError: A class that images are asked of has no folder there, or too few images that can be used.
    """
    from cxr_tasks.data.layout import lay_out
    from cxr_tasks.data.packed import lay_out_with_archives
    from cxr_tasks.data.scan import Tables, entries_of, known_hashes, scan_files
    from cxr_tasks.data.sources import open_source

    settings, store = _resizing_as(load_settings(run), dataset), open_store()
    address, classes = settings.synthetic.source, settings.data.classes
    counts = counts_to_add(settings.synthetic, dataset.counts["train"])
    asked = [label for label in classes if counts.get(label)]
    source = open_source(address)
    layout = lay_out_with_archives(
        source, lambda entries: lay_out(entries, classes, settings.data.folders, address, needed=asked)
    )
    last_name = artifact_ref("imports", 1, {"source": address}, {})
    last, known = store.read_pointer(last_name), {}
    if last and store.record(last):
        import pandas as pd

        known = known_hashes(pd.read_parquet(store.fetch(last) / ImportedImages.FILES))
    # Synthetic images need no masks, and their tables say nothing that is asked of them.
    files = scan_files(source, replace(layout, masks={}), known, Tables([], ()))

    def imported(those: pd.DataFrame) -> ImportedImages:
        def fill(folder: Path) -> Made[ImportedImages]:
            from cxr_tasks.data.ingest import ROWS, USED, with_identical_aside

            read = read_files(settings, source.fetch(entries_of(those)), those, folder, pseudonym_key())
            rows = with_identical_aside(read)
            rows.to_parquet(folder / ROWS, index=False)
            those.to_parquet(folder / ImportedImages.FILES, index=False)
            aside, used = rows[rows["status"] != USED], rows[rows["status"] == USED]
            by_class = used["label"].value_counts()
            tracking.log_table(aside[["path", "label", "reason"]], "set-aside.json")
            warnings = (*layout.notes, *_warnings(aside, used, classes))
            images = ImportedImages(
                source=address,
                images={label: int(by_class.get(label, 0)) for label in classes},
                rejected=len(aside),
                warnings=warnings,
                notes=(
                    f"{len(used):,} images can be used",
                    *(f"set aside {row.path}: {row.reason}" for row in aside.head(NOTES).itertuples()),
                ),
            )
            return Made(images, {"imported_images": len(used), "imported_rejected": len(aside)})

        return perform(
            run,
            ImportedImages,
            fill,
            settings={**how_read(settings, pseudonym_key()), "classes": list(classes)},
            inputs={"files": digest(those[["path", "label", "sha256", "fault"]])},
        )

    read = read_as_they_are(files, imported)
    store.write_pointer(last_name, read.ref)
    _check_enough(read, asked)
    # As this run was given it: the same files may be reached by another address.
    return read.model_copy(update={"source": shown(address)})


def _resizing_as(settings: Settings, dataset: Dataset) -> Settings:
    """``settings`` that bring images to their sides as those of ``dataset`` were: else that alone tells them apart."""
    return settings.model_copy(update={"data": settings.data.model_copy(update={"resize": dataset.resize})})


def _warnings(aside: pd.DataFrame, used: pd.DataFrame, classes: Sequence[str]) -> Iterator[str]:
    from cxr_tasks.data.inverted import inverted_in_words

    if len(aside):
        first = aside.iloc[0]
        yield (
            f"{len(aside):,} of {len(aside) + len(used):,} files are set aside, such as {first['path']}: "
            f"{first['reason']}"
        )
    yield from inverted_in_words(used, classes).values()


def _check_enough(read: ImportedImages, asked: Sequence[str]) -> None:
    """Stop unless the judge can say something of each class that images are asked of.

    Raises:
        DataError: Naming the first class of which it cannot.
    """
    from cxr_tasks.gan.measuring import SMALLEST_SAMPLE

    for label in asked:
        if read.images[label] < SMALLEST_SAMPLE:
            aside = read.set_aside()
            aside = aside[aside["label"] == label]
            why = f" ({aside['path'].iloc[0]}, say: {aside['reason'].iloc[0]})" if len(aside) else ""
            raise DataError(
                f"Class {label!r}: {read.images[label]:,} of {read.images[label] + len(aside):,} synthetic images in "
                f"{shown(read.source)} can be used{why}, and the judge needs at least {SMALLEST_SAMPLE}: give more, or "
                "ask for none of this class in synthetic.counts."
            )
