"""Which images are the same picture: identical files, and near-duplicates that must not be divided between splits."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations, count

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cxr_tasks.config import NearDuplicateSettings
from cxr_tasks.data.neighbours import nearest_points
from cxr_tasks.data.overlay import SURROUNDINGS, overlaid, spectra
from cxr_tasks.data.stacks import drop_pages, on_disk

CLASH = "identical images carry different classes"
IDENTICAL = "identical to"
AT_ONCE = 4096
IN_CACHE = 256
# A generator may make one picture only. All pairs are near then, and those of this many images must fit in memory.
IMAGES_AT_ONCE = 1000


def identical(images: pd.DataFrame) -> pd.Series:
    """Which images must go because another has the same bytes.

    Of identical files in one class the first stays. Identical files in two classes all go, since nobody can say which
    class is right.

    Args:
        images: ``image_id``, ``label`` and ``path``, in the order that decides which is the first.

    Returns:
        Why each image must go; '' for those that stay.
    """
    reasons = pd.Series("", index=images.index)
    repeated = images[images["image_id"].duplicated(keep=False)]
    for _, same in repeated.groupby("image_id", sort=False):
        if same["label"].nunique() > 1:
            reasons[same.index] = f"{CLASH}: {', '.join(same['path'])}"
        else:
            reasons[same.index[1:]] = f"{IDENTICAL} {same['path'].iloc[0]}"
    return reasons


def near_duplicates(dhash: np.ndarray, thumbnails: np.ndarray, settings: NearDuplicateSettings) -> np.ndarray:
    """Pairs of images that show the same picture.

    Args:
        dhash: (n,) uint64 difference hashes.
        thumbnails: (n, S, S) uint8.
        settings: When two images are one picture.

    Returns:
        (pairs, 2) positions, the smaller first, in ascending order.
    """
    found = np.concatenate([encoded_again(dhash, thumbnails, settings), altered(thumbnails, settings)])
    return _each_once(found, len(thumbnails))


def encoded_again(dhash: np.ndarray, thumbnails: np.ndarray, settings: NearDuplicateSettings) -> np.ndarray:
    """The pairs of :func:`near_duplicates` that show their picture in the same place.

    The hashes propose pairs; the correlation of their thumbnails' details decides.
    """
    details = on_disk((len(thumbnails), math.prod(thumbnails.shape[1:])), np.float32)
    known = np.zeros(len(thumbnails), bool)
    found = [np.empty((0, 2), np.int64)]
    for proposed in _within(dhash, settings.hash_bits):
        asked = np.unique(proposed)
        asked = asked[~known[asked]]
        known[asked] = True
        for start in range(0, len(asked), AT_ONCE):
            some = asked[start : start + AT_ONCE]
            details[some] = _details(thumbnails[some])
        for start in range(0, len(proposed), AT_ONCE):
            some = proposed[start : start + AT_ONCE]
            alike = np.einsum("ij,ij->i", details[some[:, 0]], details[some[:, 1]]) > settings.correlation
            found.append(some[alike])
        drop_pages(details)
        drop_pages(thumbnails)
    return _each_once(np.concatenate(found), len(thumbnails))


def _each_once(pairs: np.ndarray, images: int) -> np.ndarray:
    """(m, 2) positions among ``images``, the smaller first, in ascending order."""
    codes = np.unique(pairs.min(axis=1) * np.int64(images) + pairs.max(axis=1)) if len(pairs) else pairs[:, 0]
    return np.stack(np.divmod(codes, np.int64(max(images, 1))), axis=1)


def encoded_again_among(
    dhash: np.ndarray,
    thumbnails: np.ndarray,
    known_dhash: np.ndarray,
    known: np.ndarray,
    settings: NearDuplicateSettings,
) -> np.ndarray:
    """As :func:`encoded_again`, with one image of a pair among others.

    Args:
        dhash: (n,) uint64 difference hashes.
        thumbnails: (n, S, S) uint8.
        known_dhash: (m,) uint64, of the others.
        known: (m, S, S) uint8.
        settings: When two images are one picture.

    Returns:
        (pairs, 2) positions in ``thumbnails`` and in ``known``.
    """
    found = [np.empty((0, 2), np.int64)]
    for start in range(0, len(dhash), IMAGES_AT_ONCE):
        part = slice(start, start + IMAGES_AT_ONCE)
        here = len(dhash[part])
        pairs = encoded_again(
            np.concatenate([dhash[part], known_dhash]), np.concatenate([thumbnails[part], known]), settings
        )
        across = pairs[(pairs[:, 0] < here) & (pairs[:, 1] >= here)]
        found.append(across + np.array([start, -here]))
    return np.concatenate(found)


def altered(thumbnails: np.ndarray, settings: NearDuplicateSettings, known: np.ndarray | None = None) -> np.ndarray:
    """Pairs that show the same picture also where one was cropped, turned, mirrored, inverted, framed or marked.

    Spectra propose pairs, a few for each image, so that the work grows with the number of images and not with that of
    pairs. The correlation of pictures that are laid over each other decides.

    Args:
        thumbnails: (n, S, S) uint8.
        settings: When two images are one picture.
        known: (m, S, S) uint8, among which copies of ``thumbnails`` are sought; else among themselves.

    Returns:
        (pairs, 2) positions in ``thumbnails`` and in ``known``, or twice in ``thumbnails``, each pair once.
    """
    alone = known is None
    known = thumbnails if known is None else known
    if not settings.neighbours or not len(thumbnails) or not len(known):
        return np.empty((0, 2), np.int64)
    points, queries = search_points(known, known[:0] if alone else thumbnails)
    queries = points if alone else queries
    proposed = nearest_points(queries, points, settings.neighbours + alone)
    if alone:
        proposed = _each_once(proposed[proposed[:, 0] != proposed[:, 1]], len(thumbnails))
    reached = _in_parts(lambda pairs: overlaid(thumbnails[pairs[:, 0]], known[pairs[:, 1]], settings.shifted), proposed)
    return proposed[reached > settings.overlaid]


def search_points(known: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points among which :func:`altered` seeks neighbours.

    Args:
        known: (m, S, S) uint8. Each frequency counts by how much these differ in it.
        others: (n, S, S) uint8.

    Returns:
        (m, F) and (n, F) float32, of length one.
    """
    points, queries = _in_parts(spectra, known), _in_parts(spectra, others)
    mean, spread = _mean_and_spread(points)
    for points_of in (points, queries):
        # In place: a million images have 400 MB of these.
        for start in range(0, len(points_of), AT_ONCE):
            some = points_of[start : start + AT_ONCE]
            some -= mean
            some /= spread.clip(1e-3)
            some /= np.linalg.norm(some, axis=1, keepdims=True).clip(1e-6)
            drop_pages(points_of)
    return points, queries


def _mean_and_spread(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (F,) of (n, F) float32, added row by row as NumPy adds them, some at a time."""
    total = np.zeros((2, points.shape[1]), np.float32)
    for square in (0, 1):
        mean = total[0] / np.float32(len(points))
        for start in range(0, len(points), AT_ONCE):
            some = points[start : start + AT_ONCE]
            rows = (some - mean) ** 2 if square else some
            total[square] = np.add.reduce(np.concatenate([total[square][None], rows]), axis=0)
            drop_pages(points)
    return mean, np.sqrt(total[1] / np.float32(len(points)))


def _in_parts(work: Callable[[np.ndarray], np.ndarray], rows: np.ndarray) -> np.ndarray:
    """What ``work`` makes of ``rows``, a few at a time, so that they stay in the processor's cache."""
    # Without rows too, one part says what shape the results have.
    first = work(rows[:IN_CACHE])
    found = on_disk((len(rows), *first.shape[1:]), first.dtype)
    found[:IN_CACHE] = first

    def fill(start: int) -> None:
        found[start : start + IN_CACHE] = work(rows[start : start + IN_CACHE])
        drop_pages(found)
        drop_pages(rows)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        for _ in threads.map(fill, range(IN_CACHE, len(rows), IN_CACHE)):
            pass
    return found


def _details(thumbnails: np.ndarray) -> np.ndarray:
    """(n, S, S) uint8 → (n, S²) float32: what stands out from its surroundings, of zero mean and length one.

    The broad shape of a chest is alike in everybody. Whole thumbnails of unrelated patients correlate up to 0.98.
    Without their local means they correlate up to 0.86, and a re-encoded, resized or brightened copy above 0.98.
    """
    rows = thumbnails.astype(np.float32)
    rows -= ndimage.uniform_filter(rows, (0, SURROUNDINGS, SURROUNDINGS))
    rows = rows.reshape(len(rows), -1)
    rows -= rows.mean(axis=1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


def _within(dhash: np.ndarray, bits: int) -> Iterator[np.ndarray]:
    """All pairs (m, 2) of hashes that differ in at most ``bits`` bits, each once, some at a time.

    The hashes are cut into bits + 3 bands. At least three bands of such a pair are equal, so only images that share
    three bands are compared. n² comparisons would take days for a million images.
    """
    bands = np.array_split(np.arange(64, dtype=np.uint64), bits + 3)
    masks = [np.bitwise_or.reduce(np.uint64(1) << band) for band in bands]
    n = len(dhash)
    earlier: list[np.uint64] = []
    for chosen in combinations(masks, 3):
        mask = np.bitwise_or.reduce(np.array(chosen))
        keys = dhash & mask
        order = np.argsort(keys, kind="stable")
        keys, hashes = keys[order], dhash[order]
        left = np.arange(n)
        for distance in count(1):
            # Those whose neighbour this far down the order still has the same key.
            left = left[left < n - distance]
            left = left[keys[left] == keys[left + distance]]
            if not len(left):
                break
            differing = hashes[left] ^ hashes[left + distance]
            near = np.bitwise_count(differing) <= bits
            # Those that share three earlier bands have been there.
            for other in earlier:
                near &= (differing & other) != 0
            a, b = order[left[near]], order[left[near] + distance]
            yield np.stack([np.minimum(a, b), np.maximum(a, b)], axis=1)
        earlier.append(mask)


def components(n: int, pairs: np.ndarray) -> np.ndarray:
    """Connected components.

    Args:
        n: Number of things.
        pairs: (m, 2) positions of things that belong together.

    Returns:
        (n,) number of the component of each thing.
    """
    ones = np.ones(len(pairs), bool)
    graph = coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    return connected_components(graph, directed=False)[1]


def same_patient(patients: pd.Series) -> np.ndarray:
    """Link the images of each patient.

    Args:
        patients: (n,) of each image, '' where unknown.

    Returns:
        (m, 2) positions: the first image of a patient, and each further one.
    """
    known = np.flatnonzero(patients.to_numpy() != "")
    codes, _ = pd.factorize(patients.to_numpy()[known])
    first = np.full(codes.max(initial=-1) + 1, -1)
    # Written backwards, so that the first image of each patient is what remains.
    first[codes[::-1]] = known[::-1]
    pairs = np.stack([first[codes], known], axis=1)
    return pairs[pairs[:, 0] != pairs[:, 1]]


def same_study(images: pd.DataFrame) -> np.ndarray:
    """Link the images of each study whose patient nobody names: a study is of one patient.

    Args:
        images: ``patient`` and ``study`` of (n,) images, '' where unknown.

    Returns:
        (m, 2) positions, as :func:`same_patient` gives them.
    """
    return same_patient(images["study"].where(images["patient"] == "", ""))


def group_names(images: pd.DataFrame, pairs: np.ndarray) -> pd.Series:
    """The name of each image's group: of its patient where known, else the smallest image id in the group.

    Shared patients and ``pairs`` tie images together.

    Args:
        images: ``image_id`` and ``patient``.
        pairs: (m, 2) positions of near-duplicates, and of images of one study.
    """
    component = components(len(images), np.concatenate([pairs, same_patient(images["patient"])]))
    unknown = images["patient"] == ""
    names = images["patient"].mask(unknown, images["image_id"])
    # Patients sort before image ids, whatever they are called.
    smallest = first_of_each(component, unknown, names)
    return names.iloc[smallest[component]].set_axis(images.index).rename("group")


def first_of_each(codes: np.ndarray, *keys: pd.Series) -> np.ndarray:
    """Which of those that share a code sorts first. No text becomes an object of Python, which takes twice its room.

    Args:
        codes: (n,) of things; each from 0 to the largest is there.
        keys: (n,) each, by which things are sorted: by the first, and where that is equal by the next.

    Returns:
        (codes,) position of the first thing of each code.
    """
    table = pa.table({str(place): pa.array(key) for place, key in enumerate(keys)})
    order = pc.sort_indices(table, [(name, "ascending") for name in table.column_names]).to_numpy()
    return order[np.unique(codes[order], return_index=True)[1]]
