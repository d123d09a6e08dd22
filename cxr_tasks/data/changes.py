"""What is different between two datasets, in words and as a table."""

from __future__ import annotations

import pandas as pd

KINDS = ("added", "removed", "relabelled", "replaced")


def changes(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """Compare the used images of two manifests.

    An image is known by its content. Moved or renamed, it is unchanged. A file that holds another image now is
    ``replaced``.

    Args:
        before: The older manifest.
        after: The newer manifest.

    Returns:
        A row per change: ``kind``, ``path``, ``label``, and ``label_before`` where the class changed.
    """
    old, new = (
        table[table["split"] != ""].drop_duplicates("image_id").set_index("image_id")[["path", "label"]]
        for table in (before, after)
    )
    added, removed = new[~new.index.isin(old.index)], old[~old.index.isin(new.index)]
    both = old.join(new, how="inner", lsuffix="_before")
    relabelled = both[both["label"] != both["label_before"]][["path", "label", "label_before"]]
    same_place = set(added["path"]) & set(removed["path"])
    replaced = added[added["path"].isin(same_place)].merge(
        removed.rename(columns={"label": "label_before"}), on="path", how="left"
    )
    parts = (
        added[~added["path"].isin(same_place)],
        removed[~removed["path"].isin(same_place)],
        relabelled,
        replaced,
    )
    tables = [table.assign(kind=kind) for kind, table in zip(KINDS, parts, strict=True)]
    found = pd.concat(tables, ignore_index=True).reindex(columns=["kind", "path", "label", "label_before"])
    return found.fillna({"label_before": ""})


def change_counts(found: pd.DataFrame) -> dict[str, int]:
    """How many changes there are of each kind."""
    return {kind: int((found["kind"] == kind).sum()) for kind in KINDS}


def changes_in_words(found: pd.DataFrame) -> str:
    """``3 added (COVID 2, Normal 1), 1 removed (Normal 1)``."""
    parts = []
    for kind in KINDS:
        labels = found["label"][found["kind"] == kind].value_counts().sort_index()
        if len(labels):
            detail = ", ".join(f"{label} {count:,}" for label, count in labels.items())
            parts.append(f"{labels.sum():,} {kind} ({detail})")
    return ", ".join(parts) or "other groups, splits or masks of the same images"
