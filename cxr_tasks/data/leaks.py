"""What people must know of the splits that a source gives: whether they are kept, and whether they leak."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

from cxr_tasks.config import SplitSettings
from cxr_tasks.data.duplicates import IDENTICAL
from cxr_tasks.data.given import SACRED, TEST, TRAIN, VALIDATION, kept_splits
from cxr_tasks.data.ingest import USED

LEAKS_SHOWN = 2


def tell_given(manifest: pd.DataFrame, settings: SplitSettings) -> list[str]:
    """What people must know of the splits that a source gives; nothing where it gives none.

    Args:
        manifest: Before it is divided: ``group`` ties together whatever is of one patient or one picture.
        settings: Which of the given splits are kept.
    """
    counts = manifest["given"].value_counts()
    if not counts.drop("", errors="ignore").sum():
        return []
    listed = ", ".join(f"{split} {int(counts[split]):,}" for split in (TRAIN, VALIDATION, TEST) if split in counts)
    if TEST not in counts and VALIDATION not in counts:
        return []
    kept = kept_splits(settings, list(counts.index))
    told = []
    if settings.given == "ignore":
        # Another method has no use for them, and would refuse to keep them.
        remedy = ": set data.split.given to test or all to keep them" if settings.method == "stable" else ""
        told.append(f"The source has folders for splits ({listed} files). They are merged and divided anew{remedy}")
    elif "" in counts or TRAIN in counts:
        anew = [split for split in (TRAIN, VALIDATION) if split not in kept]
        drawn = f"; {' and '.join(anew)} are drawn anew from the rest" if anew else ""
        told.append(f"The source's {' and '.join(sorted(kept, key=SACRED.__getitem__))} set is kept ({listed}){drawn}")
    return told + _leaks(manifest, kept)


def _leaks(manifest: pd.DataFrame, kept: Collection[str]) -> list[str]:
    """A sentence for each pair of given splits that share a file, a patient or a picture."""
    told = []
    # The copies that are set aside as identical to another file count, damaged files do not.
    read = manifest[(manifest["status"] == USED) | manifest["reason"].str.startswith(IDENTICAL)]
    for first, second in ((TEST, TRAIN), (TEST, VALIDATION), (VALIDATION, TRAIN)):
        clean, other = (read[read["given"] == split] for split in (first, second))
        same_file = other["image_id"].isin(clean["image_id"])
        tied = other["group"].isin(clean["group"])
        leaks = other[same_file | tied]
        if leaks.empty:
            continue
        what = (
            f"{len(leaks):,} of {len(other):,} {second} images are also in the {first} set, {int(same_file.sum()):,} "
            f"of them as the same file, others as another image of one patient or picture, {_examples(leaks, clean)}"
        )
        done = f". They are left out, and the {first} set is clean" if first in kept else ""
        told.append(f"The split that the source gives leaks: {what}{done}")
    return told


def _examples(leaks: pd.DataFrame, clean: pd.DataFrame) -> str:
    by_file = clean.drop_duplicates("image_id").set_index("image_id")["path"]
    by_group = clean.drop_duplicates("group").set_index("group")["path"]
    shown = [
        (row.path, by_file.get(row.image_id) or by_group[row.group]) for row in leaks.head(LEAKS_SHOWN).itertuples()
    ]
    return "for example " + " and ".join(f"{path} ({other})" for path, other in shown)
