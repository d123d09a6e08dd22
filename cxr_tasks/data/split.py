"""Which images train, validate and test. Groups are never divided; a split once given is kept.

The order in which groups are dealt comes from a hash, so that it depends on nothing but seed and name.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd

from cxr_tasks.config import SplitSettings

SPLITS = ("train", "validation", "test")


def assign(manifest: pd.DataFrame, settings: SplitSettings, seed: int, kept: dict[str, str] | None = None) -> pd.Series:
    """The split of each row of ``manifest``.

    Args:
        manifest: needs ``image_id``, ``label`` and ``group``.
        kept: splits that images had before, by ``image_id``; honoured by the method ``stable``.

    Returns:
        Text, aligned with the manifest's rows: ``train``, ``validation`` or ``test``.
    """
    if settings.method == "paper":
        return _plain_random(manifest, settings, seed)
    return _grouped(manifest, settings, seed, kept or {})


def _plain_random(manifest: pd.DataFrame, settings: SplitSettings, seed: int) -> pd.Series:
    # 15,153 images give the report's 12,122 / 1,515 / 1,516.
    total = len(manifest)
    train = round(total * (1 - settings.validation - settings.test))
    validation = round(total * settings.validation)
    order = np.random.default_rng([seed, 0x5B117]).permutation(total)
    splits = np.empty(total, object)
    for name, rows in zip(SPLITS, np.split(order, [train, train + validation]), strict=True):
        splits[rows] = name
    return pd.Series(splits, index=manifest.index, name="split")


def _grouped(manifest: pd.DataFrame, settings: SplitSettings, seed: int, kept: dict[str, str]) -> pd.Series:
    """Deal whole groups, class by class, to the split that is furthest below its quota."""
    before = manifest["image_id"].map(kept).map({name: i for i, name in enumerate(SPLITS)})
    # A group that was seen before goes on in its split, new images of it included. If it was divided then, because
    # patient numbers arrived later, it trains: what one model has trained on may not test another.
    first = before.groupby(manifest["group"]).min().dropna().astype(int)
    of_group = {group: SPLITS[i] for group, i in first.items()}
    groups = manifest.groupby("group").agg(size=("image_id", "size")).join(_commonest_label(manifest))
    fractions = {
        "test": settings.test,
        "validation": settings.validation,
        "train": 1 - settings.validation - settings.test,
    }
    for label, members in groups.groupby("label"):
        counts = dict.fromkeys(SPLITS, 0)
        for group, size in members["size"].items():
            if group in of_group:
                counts[of_group[group]] += size
        total = int(members["size"].sum())
        fresh = [group for group in members.index if group not in of_group]
        for group in sorted(fresh, key=lambda group: _rank(seed, str(label), group)):
            size = members.at[group, "size"]
            # Small quotas are filled first, and only by groups that fit; the training split takes the rest.
            open_to = [s for s in ("test", "validation") if counts[s] + size <= round(fractions[s] * total)]
            split = open_to[0] if open_to else "train"
            counts[split] += size
            of_group[group] = split
    return manifest["group"].map(of_group).rename("split")


def _commonest_label(manifest: pd.DataFrame) -> pd.Series:
    """The label that most images of a group have, by group; of equals the first by name."""
    counts = manifest.groupby(["group", "label"]).size().rename("images").reset_index()
    ranked = counts.sort_values(["images", "label"], ascending=[False, True])
    return ranked.drop_duplicates("group").set_index("group")["label"]


def _rank(seed: int, label: str, group: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{label}\0{group}".encode()).digest()
