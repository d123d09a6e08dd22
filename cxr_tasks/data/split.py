"""Which images train, validate and test. Groups are never divided; a split once given is kept.

The order in which groups are dealt comes from a hash. It depends on nothing but seed and name.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import DisjointSet

from cxr_tasks.config import SplitSettings
from cxr_tasks.data.duplicates import first_of_each, group_names, same_study
from cxr_tasks.data.given import TEST, kept_splits, sort_out
from cxr_tasks.data.ingest import SET_ASIDE, USED
from cxr_tasks.data.leave_source_out import as_given, prefer_sources, told_of_sources
from cxr_tasks.errors import DataError

SPLITS = ("train", "validation", "test")
BETWEEN = "of one patient, or one picture, with images that are in another split already"


def split_manifest(
    manifest: pd.DataFrame,
    settings: SplitSettings,
    seed: int,
    kept: dict[str, str] | None = None,
    near: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """A copy of ``manifest`` with the split and the group of each used image; see :func:`assign_splits`.

    Images that are left out are set aside, with the reason.

    Raises:
        DataError: The settings keep a given test set, and there is none.

    Args:
        manifest: Rows of files, of which some are used.
        settings: Method and shares.
        seed: Of the order in which groups are dealt.
        kept: Splits that images had before, by ``image_id``.
        near: Pairs of near-duplicates, image ids ``first`` and ``second``.
    """
    # Only the columns that change are copied.
    table = prefer_sources(manifest, settings.test_sources) if settings.by_source else manifest.copy(deep=False)
    used = table.index[table["status"] == USED]
    asked = [name for name in ("image_id", "label", "patient", "study", "given", "site") if name in table]
    given = assign_splits(table.loc[used, asked], settings, seed, kept, near)
    for column in ("split", "group"):
        table.loc[used, column] = given[column]
    left_out = given.index[given["reason"] != ""]
    table.loc[left_out, "status"] = SET_ASIDE
    table.loc[left_out, "reason"] = given.loc[left_out, "reason"]
    return table


def count_splits(manifest: pd.DataFrame, classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """How many images of each class each split has, by split and class."""
    dealt = manifest[manifest["split"] != ""]
    counts = dealt.groupby(["split", "label"]).size().unstack(fill_value=0)
    counts = counts.reindex(index=SPLITS, columns=classes, fill_value=0)
    return {name: {label: int(n) for label, n in row.items()} for name, row in counts.iterrows()}


def assign_splits(
    images: pd.DataFrame,
    settings: SplitSettings,
    seed: int,
    kept: dict[str, str] | None = None,
    near: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """The split and the group of each row of ``images``.

    With the method ``stable`` an image that had a split keeps it. This may divide a group: patient numbers arrived
    late, or a new image resembles one of training and one of test. Images are then left out and not moved, because
    what one model has trained on may not test another.

    Where ``settings.given`` keeps a split that the source gives, its images stay in it, and images that would leak
    into it are left out. With the method ``leave-source-out`` so do those of ``settings.test_sources`` in the test set.

    Args:
        images: ``image_id`` (each once), ``label``, ``patient`` ('' where unknown), ``study`` if it is known of any,
            and ``given``, if the source gives splits, or ``site``, if whole sources test.
        settings: Method and shares.
        seed: Of the order in which groups are dealt.
        kept: Splits that images had before, by ``image_id``.
        near: Pairs of near-duplicates, image ids ``first`` and ``second``.

    Returns:
        Aligned with the rows: ``split`` (``train``, ``validation``, ``test``, or '' for images left out), ``group``
        and ``reason`` (why an image is left out, or '').
    """
    pairs = _positions(images, near)
    group = group_names(images, pairs)
    if settings.method == "paper":
        return pd.DataFrame({"split": _plain_random(images, settings, seed), "group": group, "reason": ""})
    if settings.by_source:
        images = as_given(images, settings.test_sources)
    before = images["image_id"].map(kept or {})
    reason = pd.Series("", index=images.index)
    bound = _bound_splits(images, settings)
    if bound:
        before, reason = sort_out(images, group, before, bound)
        group = _regroup(images, group, reason != "", near)
        before = before.mask(reason != "")
    divided = before.groupby(group).transform("nunique") > 1
    if divided.any():
        reason.iloc[_left_out(images, before, pairs, np.flatnonzero(divided))] = BETWEEN
        group = _regroup(images, group, reason != "", near)
    if settings.by_source:
        reason = told_of_sources(reason)
    stay = reason == ""
    quotas = {
        name: 0.0 if name in bound else share
        for name, share in (("test", settings.test), ("validation", settings.validation))
    }
    split = pd.Series("", index=images.index, name="split")
    if settings.by_source:
        # Shares are those of the images that do not test.
        split[stay & (before == TEST)] = TEST
        stay &= before != TEST
    split[stay] = _deal(images[stay], group[stay], before[stay], quotas, seed)
    return pd.DataFrame({"split": split, "group": group, "reason": reason})


def _bound_splits(images: pd.DataFrame, settings: SplitSettings) -> frozenset[str]:
    """The given splits that stay as they are.

    Raises:
        DataError: The settings keep a given test set, and there is none.
    """
    if settings.by_source:
        return frozenset({TEST})
    if settings.given == "ignore":
        return frozenset()
    given = set(images.get("given", pd.Series(dtype=str)))
    if "test" not in given:
        raise DataError(
            f"data.split.given is {settings.given}, and no image lies in a folder for the test set: name the folder "
            "test, or set data.split.given to ignore."
        )
    return kept_splits(settings, given)


def _regroup(images: pd.DataFrame, group: pd.Series, out: pd.Series, near: pd.DataFrame | None) -> pd.Series:
    """The group of each image. Groups fall apart without the images that tied them together, which are ``out``."""
    if not out.any():
        return group
    stay = images[~out]
    return pd.concat([group_names(stay, _positions(stay, near)), images["image_id"][out]])[images.index].rename("group")


def _positions(images: pd.DataFrame, near: pd.DataFrame | None) -> np.ndarray:
    """(m, 2) positions of the near-duplicates among ``images``, and of images of one study."""
    of_studies = same_study(images) if "study" in images else np.empty((0, 2), np.int64)
    if near is None or near.empty:
        return of_studies
    index = pd.Index(images["image_id"])
    pairs = np.stack([index.get_indexer(near["first"]), index.get_indexer(near["second"])], axis=1)
    return np.concatenate([pairs[(pairs >= 0).all(axis=1)], of_studies])


def _plain_random(images: pd.DataFrame, settings: SplitSettings, seed: int) -> pd.Series:
    # 15,153 images give the report's 12,122 / 1,515 / 1,516.
    total = len(images)
    train = round(total * (1 - settings.validation - settings.test))
    validation = round(total * settings.validation)
    order = np.random.default_rng([seed, 0x5B117]).permutation(total)
    splits = np.empty(total, object)
    for name, rows in zip(SPLITS, np.split(order, [train, train + validation]), strict=True):
        splits[rows] = name
    return pd.Series(splits, index=images.index, name="split")


def _deal(
    images: pd.DataFrame, group: pd.Series, before: pd.Series, quotas: Mapping[str, float], seed: int
) -> pd.Series:
    """Deal whole groups, class by class, to the split that is below its quota; groups seen before go on in theirs."""
    # Groups are numbered: of a million images, dictionaries of their names would take gigabytes.
    codes = pd.factorize(group)[0]
    numbers = before.map({name: place for place, name in enumerate(SPLITS)}).to_numpy(np.float64)
    known = np.flatnonzero(~np.isnan(numbers))[::-1]
    split_of = np.full(codes.max(initial=-1) + 1, -1)
    # Written backwards, so that the first image of each group is what remains.
    split_of[codes[known]] = numbers[known]
    sizes = np.bincount(codes, minlength=len(split_of))
    # A group's name may be a pseudonym, which is another in each store: chance goes by the images in it.
    ids = images["image_id"].iloc[first_of_each(codes, images["image_id"])].array
    labels = _commonest_label(images, codes)
    for label, members in labels.groupby(labels).indices.items():
        counts = {name: int(sizes[members[split_of[members] == place]].sum()) for place, name in enumerate(SPLITS)}
        fresh, total = members[split_of[members] < 0].tolist(), int(sizes[members].sum())
        for code in sorted(fresh, key=lambda code: _rank(seed, str(label), ids[code])):
            # Small quotas are filled first, and only by groups that fit. The training split takes the rest.
            fits = [s for s, share in quotas.items() if counts[s] + sizes[code] <= round(share * total)]
            chosen = fits[0] if fits else "train"
            counts[chosen] += int(sizes[code])
            split_of[code] = SPLITS.index(chosen)
    return pd.Series(np.array(SPLITS)[split_of[codes]], images.index, dtype="str")


def _commonest_label(images: pd.DataFrame, codes: np.ndarray) -> pd.Series:
    """The label that most images of a group have, by the group's number. Of equals the first by name counts."""
    group = pd.Series(codes, images.index, name="group")
    counts = images.groupby([group, "label"]).size().rename("images").reset_index()
    ranked = counts.sort_values(["images", "label"], ascending=[False, True])
    return ranked.drop_duplicates("group").set_index("group")["label"].sort_index()


def _rank(seed: int, label: str, image_id: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{label}\0{image_id}".encode()).digest()


def _left_out(images: pd.DataFrame, before: pd.Series, pairs: np.ndarray, rows: np.ndarray) -> list[int]:
    """Positions, among ``rows``, of the images that cannot stay without two splits sharing a group.

    Images with a split come first, those of training before those held out. Then new images join, as long as they do
    not tie two splits together.
    """
    linked: dict[int, list[int]] = defaultdict(list)
    for a, b in pairs.tolist():
        linked[a].append(b)
        linked[b].append(a)
    of_patient: dict[str, int] = {}
    stay = DisjointSet()
    # By the root of each set.
    split_of: dict[int, str | None] = {}
    ids, patients, had = (column.to_numpy() for column in (images["image_id"], images["patient"], before))
    order = {name: i for i, name in enumerate(SPLITS)}
    out = []
    for i in sorted(rows.tolist(), key=lambda i: (order.get(had[i], len(SPLITS)), ids[i])):
        neighbours = {*linked[i], of_patient.get(patients[i], i)}
        roots = {stay[j] for j in neighbours if j in stay}
        splits = {split_of[r] for r in roots} | {had[i] if had[i] in order else None}
        splits.discard(None)
        if len(splits) > 1:
            out.append(i)
            continue
        stay.add(i)
        for r in roots:
            stay.merge(i, r)
        split_of[stay[i]] = next(iter(splits), None)
        if patients[i]:
            of_patient.setdefault(patients[i], i)
    return out
