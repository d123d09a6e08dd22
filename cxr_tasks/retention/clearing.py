"""Clears up a store: which artifacts are old and belong to nothing that people rely on, and how they go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cxr_tasks import tracking
from cxr_tasks.artifacts import Challenge, Promotion
from cxr_tasks.errors import UserError
from cxr_tasks.registry.champions import TAG_KEEP, TAG_SINCE
from cxr_tasks.retention.inventory import Stored
from cxr_tasks.retention.leftovers import Leftover
from cxr_tasks.store import UNFINISHED, USES, LeaseHeld, Store
from cxr_tasks.store.base import MARKED_SECONDS
from cxr_tasks.store.garbage import Graph, clearance, lineage, references

# Pointers to datasets by their version: they go with their datasets, and keep none.
VERSIONS = "dataset-versions/"
# Pointers that keep nothing by themselves.
KEEP_NOTHING = (VERSIONS, f"{USES}/")


@dataclass(frozen=True)
class OldArtifacts:
    """What goes.

    Attributes:
        going: An artifact stands before those that it refers to.
        graph: What each artifact of the store refers to.
        unused_since: An artifact that was used later stays.
    """

    going: tuple[Stored, ...]
    graph: Graph
    unused_since: datetime


def old_artifacts(
    store: Store,
    found: Iterable[Stored],
    before: datetime,
    versions: Iterable[tracking.RegisteredVersion],
    left: Iterable[Leftover],
    kept: Iterable[str] = (),
) -> OldArtifacts:
    """The artifacts that were not used since ``before`` and that nothing needs which stays.

    With all that they refer to stay: what a pointer names, what was used since then, what a training that goes on
    works from, and registered versions that have an alias or were champion. Other registered versions keep what their
    tags name alone.

    Args:
        store: Where to look.
        found: All artifacts of the store.
        before: What was used later is young.
        versions: Of the registered models.
        left: What is left over, and so keeps nothing.
        kept: References of what stays all the same.
    """
    # A use is noted up to an hour late.
    unused_since = before - timedelta(seconds=MARKED_SECONDS)
    stored = {each.ref: each for each in found}
    graph = {ref: references(each.record, stored.keys()) - {ref} for ref, each in stored.items()}
    dropped = {each.lease for each in left if each.kind == UNFINISHED}
    roots = {ref for ref, each in stored.items() if each.used > unused_since} | (set(kept) & stored.keys())
    for name in store.pointers():
        if not name.startswith(KEEP_NOTHING) and name not in dropped:
            roots |= references(store.read_pointer(name), stored.keys())
    alone: set[str] = set()
    for version in versions:
        # A champion of before is a way back.
        relied_on = version.aliases or {TAG_SINCE, TAG_KEEP} & set(version.tags)
        (roots if relied_on else alone).update(references(version.tags, stored.keys()))
    going = clearance(graph, roots, alone).going
    return OldArtifacts(tuple(stored[ref] for ref in going), graph, unused_since)


def check_registry(found: Sequence[Stored], versions: Sequence[tracking.RegisteredVersion]) -> None:
    """See that the models are those that were registered from the store whose artifacts are ``found``.

    Raises:
        UserError: They are not. Another server would let the lineage of every champion go.
    """
    refs = {each.ref for each in found}
    promoted = [each for each in found if each.step in (Challenge.step, Promotion.step) and _decisions(each)]
    if promoted and not any(references(version.tags, refs) for version in versions):
        name = _decisions(promoted[0])[0].get("name", "")
        raise UserError(
            f"MLflow has no version of a model that was registered from this store, such as {name}: give the address "
            "of the server that has them (MLFLOW_TRACKING_URI, or --mlflow of cxr store gc). Where all of them were "
            "deleted on purpose, give --mlflow none there."
        )


def _decisions(promoted: Stored) -> list[dict[str, Any]]:
    return promoted.record.get("made", {}).get("decisions", [])


def remove_artifacts(store: Store, old: OldArtifacts) -> Iterator[Stored]:
    """Remove what goes; yields each artifact that is gone.

    An artifact that a run has taken meanwhile stays, and so does all that it refers to.
    """
    taken: set[str] = set()
    for each in old.going:
        if each.ref not in taken:
            if _is_removed(store, each.ref, old.unused_since):
                yield each
            else:
                taken |= lineage([each.ref], old.graph)
    drop_versions(store)


def _is_removed(store: Store, ref: str, unused_since: datetime) -> bool:
    try:
        with store.lease(f"artifact/{ref}", f"artifact {ref}", wait=False):
            return store.remove(ref, unused_since)
    except LeaseHeld:
        return False


def drop_versions(store: Store) -> None:
    """Forget the versions of datasets whose artifacts are gone: nobody can train on them any more."""
    for name in store.pointers():
        if name.startswith(VERSIONS):
            told = store.read_pointer(name) or {}
            if not all(store.record(ref) for ref in (told.get("ref", ""), *told.get("shards", ())) if ref):
                store.remove_pointer(name)
