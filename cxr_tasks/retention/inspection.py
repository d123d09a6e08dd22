"""Looks at every file of a store: what is damaged, what is gone, and what a person does about that."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from cxr_tasks import progress
from cxr_tasks.errors import SettingsError
from cxr_tasks.retention.clearing import VERSIONS
from cxr_tasks.retention.inventory import record_entries, recorded
from cxr_tasks.store import UNFINISHED, USES, RecordEntry, Store
from cxr_tasks.store.files import Care, make_again

ANEW = "The next run that works with the artifact makes it anew. If it is from an older run: "


class Fault(NamedTuple):
    """What is wrong with an artifact or a pointer, and what to do."""

    ref: str
    fault: str
    advice: str


def faults(store: Store, step: str = "") -> tuple[list[Fault], int]:
    """What is wrong in a store.

    Args:
        store: Where to look.
        step: Only artifacts of this step; '' for all, and for the pointers too.

    Returns:
        What is wrong, and how many artifacts were looked at.
    """
    refs = [ref for ref in recorded(store) if step in ("", ref.split("/")[0])]
    entries = record_entries(store, refs)
    found: list[Fault] = []
    for done, (ref, entry) in enumerate(entries.items(), start=1):
        if fault := _artifact_fault(store, ref, entry):
            found.append(Fault(ref, fault, ANEW + make_again(ref)))
        progress.advance("artifacts", done, len(refs))
    if not step:
        found += _lost(store, entries)
    return found, len(refs)


def _artifact_fault(store: Store, ref: str, entry: RecordEntry) -> str:
    if entry.content is None:
        # Half removed, it has no content either; that is no damage.
        return "its record cannot be read" if entry.tag is not None and not entry.is_removed else ""
    return store.fault(ref, entry.content, Care.ALL)


def _lost(store: Store, entries: dict[str, RecordEntry]) -> Iterator[Fault]:
    """Pointers that lead to nothing."""
    for name in store.pointers():
        if name.startswith(f"{USES}/"):
            # A use of what was made nowhere: its step has failed.
            continue
        try:
            value: Any = store.read_pointer(name)
        except SettingsError as error:
            yield Fault(f"pointers/{name}", "it cannot be read", str(error))
            continue
        told = value if name.startswith(VERSIONS) else value.get("dataset") if isinstance(value, dict) else None
        if isinstance(told, dict) and not name.startswith(UNFINISHED):
            for ref in (told.get("ref", ""), *told.get("shards", ())):
                if ref and ref not in entries:
                    yield Fault(
                        f"pointers/{name}", f"it names the artifact {ref}, which is gone", "Run cxr_data again."
                    )
