"""Runs the data steps one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from cxr_tasks import steps
from cxr_tasks.artifacts import Artifact, RunContext, Scan, Shard
from cxr_tasks.data.ingest import MANIFEST
from tests.steps.handles import Prepared

SETTINGS: dict[str, Any] = {
    "data": {"min_images_per_class": 10, "shard_images": 50, "max_rejected_fraction": 0.1},
    "classifiers": {"image_size": 32},
    "gan": {"image_size": 32},
}
FORM: dict[str, Any] = {"profile": "quick", "settings": SETTINGS}


def read(run: RunContext, source: Path | str) -> tuple[Scan, list[Shard]]:
    """The scan, and its shards."""
    scanned = steps.scan(run, str(source))
    return scanned, [steps.ingest(run, scanned, shard) for shard in steps.shards(run, scanned)]


def prepare(run: RunContext, source: Path | str) -> Prepared:
    """All that is published of a source."""
    scanned, shards = read(run, source)
    joined = steps.manifest(run, scanned, shards)
    validated = steps.validate(run, joined)
    return Prepared(scanned, joined, validated, steps.split(run, joined, validated))


def rows_of(handle: Artifact) -> pd.DataFrame:
    """The manifest in an artifact, by path."""
    return pd.read_parquet(handle.folder() / MANIFEST).set_index("path")
