"""The step ``split``: give every image its split, once and for all."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from cxr_tasks.artifacts import Manifest, RunContext, Split, Validation
from cxr_tasks.config import Settings
from cxr_tasks.errors import DataError
from cxr_tasks.image_settings import FIRST_RESIZE
from cxr_tasks.pipeline import Made, load_settings, perform
from cxr_tasks.steps.common import NOTES, digest, log_without_patients
from cxr_tasks.store import Lease, artifact_ref, open_store

log = logging.getLogger(__name__)


def split(run: RunContext, joined: Manifest, validated: Validation) -> Split:
    """Give every image its split; the split does not depend on ``validated``, which must be there before it.

    Raises:
        DataError: A split has none, or far too few, of the images of a class; or the settings keep a given test set,
            and there is none. No split is given then.
    """
    settings, store = load_settings(run), open_store()
    how = {**settings.data.split.model_dump(mode="json"), "seed": settings.seeds.split}
    if settings.data.split.given == "ignore":
        # As long as there was no such setting, splits were given without it.
        del how["given"]
    if not settings.data.split.by_source:
        del how["test_sources"]
    # Found by these very settings for ever: splits that were given before are kept.
    ledger = artifact_ref("splits", 1, how, {})
    # Of two runs that read the ledger before either writes it, one would take back what the other gave.
    with store.lease(ledger, "the assignment of splits") as lease:
        return _split(run, joined, settings, how, lease)


def _split(run: RunContext, joined: Manifest, settings: Settings, how: dict[str, Any], lease: Lease) -> Split:
    """Split a manifest, and note the splits in the pointer that ``lease`` names. ``how``: the settings of the split."""
    from cxr_tasks.data.given import GIVEN_REASONS, kept_splits
    from cxr_tasks.data.ingest import MANIFEST
    from cxr_tasks.data.inverted import CORRECTED
    from cxr_tasks.data.leaks import tell_given
    from cxr_tasks.data.leave_source_out import TIED, TRAINED_ON, tell_left_out
    from cxr_tasks.data.shares import split_faults
    from cxr_tasks.data.split import BETWEEN, count_splits, split_manifest

    store = open_store()
    before: dict[str, str] = store.read_pointer(lease.name) or {}
    whole = joined.table()
    table = split_manifest(whole, settings.data.split, settings.seeds.split, before, joined.near())
    told_of = ["image_id", "label", "group", "split", "mask_id", "inverted", "window"]
    dealt = table.loc[table["split"] != "", told_of]
    why = [BETWEEN, TIED, TRAINED_ON, *GIVEN_REASONS]
    left_out = table.loc[table["reason"].isin(why), ["path", "reason"]]
    counts = count_splits(table, settings.data.classes)
    given = kept_splits(settings.data.split, set(whole["given"]))
    if faults := split_faults(counts, table, settings.data, given):
        raise DataError(f"The splits lack images: {'; '.join(faults)}.")
    told = dealt[["image_id", "label", "group", "split", "mask_id"]]
    if (corrected := dealt["inverted"] == CORRECTED).any():
        # The same files hold other pixels then.
        told = told.assign(corrected=corrected)
    if (dealt["window"] != "").any():
        told = told.assign(window=dealt["window"])
    if joined.resize != FIRST_RESIZE:
        told = told.assign(resize=joined.resize)
    version = digest(told, ["image_id"])

    def fill(folder: Path) -> Made[Split]:
        table.to_parquet(folder / MANIFEST, index=False)
        log_without_patients(table, MANIFEST)
        notes = tuple(f"left out {row.path}: {row.reason}" for row in left_out.head(NOTES).itertuples())
        warnings = [*tell_given(whole, settings.data.split), *tell_left_out(table, settings.data.split)]
        for warning in warnings:
            log.warning("%s", warning)
        notes += tuple(f"warning: {warning}" for warning in warnings)
        artifact = Split(version=version, counts=counts, warnings=tuple(warnings), notes=notes)
        return Made(artifact, {f"{name}_images": sum(of_class.values()) for name, of_class in counts.items()})

    # The assignment is cheap to make and depends on what was assigned before, so it is itself the key:
    # the same images in the same splits are the same dataset.
    done = perform(run, Split, fill, version=4, settings=how, inputs={"manifest": joined, "assignment": version})
    assigned = dict(zip(dealt["image_id"], dealt["split"], strict=True))
    if settings.data.split.method != "paper" and not assigned.items() <= before.items():
        lease.check()
        store.write_pointer(lease.name, before | assigned)
    return done
