"""Sources with a table of labels, for tests: tiny files, and their rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_tasks.config import DataSettings, resolve
from cxr_tasks.data.label_tables import lay_out_source
from cxr_tasks.data.layout import Layout
from cxr_tasks.data.scan import scan_files
from cxr_tasks.data.sources import open_source


def table_settings(classes: Iterable[str] = ("COVID", "Normal"), **table: Any) -> DataSettings:
    """The data settings of profile quick with a table of labels."""
    table = {"file": "labels.csv", "path": "file", "label": "label", **table}
    if "findings" in table:
        del table["label"]
    data = {"classes": list(classes), "table": table}
    return resolve("quick", {"data": data, "synthetic": {"counts": "balance"}}).data


def layout_settings(layout: str, **data: Any) -> DataSettings:
    """The data settings of profile quick for a public layout."""
    return resolve("quick", {"data": {"layout": layout, **data}}).data


def write(folder: Path, files: Iterable[str] = (), tables: Mapping[str, str] | None = None) -> Path:
    """Write ``files``, whose content is their path, and ``tables`` by their paths."""
    for path, text in [*((path, path) for path in files), *(tables or {}).items()]:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    return folder


def layout_in(folder: Path, settings: DataSettings) -> Layout:
    return lay_out_source(open_source(str(folder)), settings, "/data/xrays")


def classes_in(folder: Path, settings: DataSettings) -> dict[str, str]:
    """The class of each image that has one, by its path."""
    return {entry.path: label for label, entry in layout_in(folder, settings).images}


def scanned(folder: Path, settings: DataSettings) -> pd.DataFrame:
    """The rows of the scan, by path."""
    return scan_files(open_source(str(folder)), layout_in(folder, settings), {}).set_index("path")
