"""The nearest of many points, without comparing all with all."""

from __future__ import annotations

import numpy as np
from sklearn.cluster import MiniBatchKMeans
from sklearn.neighbors import NearestNeighbors

from cxr_tasks.data.stacks import on_disk

CELL_POINTS = 5_000  # points that are nearest to one centre, roughly
REACH = 4  # centres of whose cells a point is a member
FITTED = 100_000  # points that the centres are fitted to, at most


def nearest_points(queries: np.ndarray, known: np.ndarray, number: int) -> np.ndarray:
    """Which known points lie nearest to each query.

    Many points are divided into cells. Each is a member of the cells of its ``REACH`` nearest centres, and a query is
    compared with the members of the cell that it lies in. So a neighbour across a border is found too, mostly.

    Args:
        queries: (q, F) float32.
        known: (n, F) float32.
        number: How many to find.

    Returns:
        (m, 2) positions of queries and of known points; ``number`` rows a query, or as many as there are.
    """
    if not len(queries) or not len(known):
        return np.empty((0, 2), np.int64)
    if len(known) <= 2 * CELL_POINTS:
        return _compared(queries, known, number)
    chosen = known[:: -(-len(known) // FITTED)]
    fitted = on_disk(chosen.shape, np.float32)
    fitted[:] = chosen
    centres = MiniBatchKMeans(len(known) // CELL_POINTS, random_state=0, n_init=1).fit(fitted).cluster_centers_
    centres = centres.astype(np.float32)
    lies_in, belongs_to = _compared(queries, centres, 1)[:, 1], _compared(known, centres, REACH)
    found = []
    for cell in range(len(centres)):
        asking, members = np.flatnonzero(lies_in == cell), belongs_to[belongs_to[:, 1] == cell, 0]
        if len(asking) and len(members):
            pairs = _compared(queries[asking], known[members], number)
            found.append(np.stack([asking[pairs[:, 0]], members[pairs[:, 1]]], axis=1))
    return np.concatenate(found)


def _compared(queries: np.ndarray, known: np.ndarray, number: int) -> np.ndarray:
    """:func:`nearest_points` among all known points."""
    number = min(number, len(known))
    model = NearestNeighbors(n_neighbors=number, algorithm="brute").fit(known)
    places = model.kneighbors(queries, return_distance=False)
    return np.stack([np.repeat(np.arange(len(queries)), number), places.ravel()], axis=1)
