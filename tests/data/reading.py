"""Reads a folder into a manifest as the steps do, without Airflow, MLflow or a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_tasks.config import DataSettings, resolve
from cxr_tasks.data.ingest import join_shards, read_shard
from cxr_tasks.data.label_tables import lay_out_source
from cxr_tasks.data.layout import Layout
from cxr_tasks.data.scan import entries_of, scan_files, shard_numbers
from cxr_tasks.data.sources import open_source
from cxr_tasks.data.split import split_manifest


@dataclass(frozen=True)
class Reading:
    """A folder that was read.

    Attributes:
        files: The scan.
        manifest: Still without splits.
        near: Pairs of near-duplicates.
        shards: Folders of the shards.
        folder: Of manifest and rejects.
    """

    files: pd.DataFrame
    manifest: pd.DataFrame
    near: pd.DataFrame
    shards: list[Path]
    folder: Path


def data_settings(**changed: Any) -> DataSettings:
    """The data settings of profile quick, with some ``changed``."""
    return resolve("quick", {"data": changed, "synthetic": {"counts": "balance"}}).data


def layout_of(source: Path | str, settings: DataSettings) -> Layout:
    return lay_out_source(open_source(str(source)), settings, str(source))


def scan_folder(
    source: Path | str, settings: DataSettings, known: Mapping[tuple[str, str], str] | None = None
) -> pd.DataFrame:
    """The files of ``source`` with their shards."""
    files = scan_files(open_source(str(source)), layout_of(source, settings), known or {})
    return files.assign(shard=shard_numbers(files, settings.shard_images))


def read_folder(source: Path | str, work: Path, settings: DataSettings, sizes: Sequence[int] = (32,)) -> Reading:
    """The manifest of ``source``, still without splits; shards and tables are written to the new folder ``work``."""
    files = scan_folder(source, settings)
    root = open_source(str(source)).fetch(entries_of(files))
    shards = []
    for number in range(files["shard"].max() + 1):
        shards.append(work / f"shard-{number}")
        shards[-1].mkdir(parents=True)
        rows = files[files["shard"] == number].reset_index(drop=True)
        read_shard(root, rows, sizes, shards[-1], correct=settings.inverted == "correct")
    folder = work / "manifest"
    folder.mkdir()
    manifest, near = join_shards(shards, files, settings.near_duplicates, folder)
    return Reading(files, manifest, near, shards, folder)


def split(reading: Reading, settings: DataSettings, seed: int = 0, kept: dict[str, str] | None = None) -> pd.DataFrame:
    """The manifest of ``reading`` with its splits."""
    return split_manifest(reading.manifest, settings.split, seed, kept, reading.near)
