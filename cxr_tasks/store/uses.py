"""Which artifacts each DAG run has made or taken: noted in the store, so that a step need not ask MLflow for that.

A note is a pointer, ``uses/<MLflow run of the DAG run>/<digits>``. It keeps no artifact by itself: who clears up says
which DAG runs are old.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from cxr_tasks.s3 import CONNECTIONS
from cxr_tasks.store.base import Store

USES = "uses"
DIGITS = 20


class Use(NamedTuple):
    """That a piece of work of a DAG run makes or takes an artifact.

    Attributes:
        dag_run: The MLflow run of the DAG run.
        work: What tells the work from its siblings, such as ``judge``.
        ref: The artifact.
        failed: Whether the last try has failed, and MLflow shows why.
    """

    dag_run: str
    work: str
    ref: str
    failed: bool = False

    @property
    def _name(self) -> str:
        digest = hashlib.sha256(f"{self.work} {self.ref}".encode()).hexdigest()[:DIGITS]
        return f"{USES}/{self.dag_run}/{digest}"

    def begin(self, store: Store) -> bool:
        """Note the use; returns whether an earlier try has failed."""
        before = store.read_pointer(self._name)
        if before is None:
            self.note(store)
        return bool(before and before.get("failed"))

    def note(self, store: Store) -> None:
        """Note the use as it is now."""
        store.write_pointer(self._name, {"work": self.work, "ref": self.ref, "failed": self.failed})


def noted_uses(store: Store) -> dict[str, Use]:
    """All notes by their pointers."""
    names = [name for name in store.pointers() if name.startswith(f"{USES}/")]
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        found = dict(zip(names, pool.map(store.read_pointer, names), strict=True))
    return {name: _use_of(name, told) for name, told in found.items() if told is not None}


def drop_uses(store: Store, of_old: Collection[str]) -> None:
    """Forget what old DAG runs have used of what is not there any more.

    Args:
        store: Where the uses are noted.
        of_old: These DAG runs. Any other may still make what it has noted.
    """
    uses = {name: use for name, use in noted_uses(store).items() if use.dag_run in of_old}
    refs = sorted({use.ref for use in uses.values()})
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        gone = {ref for ref, record in zip(refs, pool.map(store.record, refs), strict=True) if record is None}
    for name, use in uses.items():
        if use.ref in gone:
            store.remove_pointer(name)


def _use_of(name: str, told: dict[str, Any]) -> Use:
    return Use(name.split("/")[1], told["work"], told["ref"], bool(told.get("failed")))
