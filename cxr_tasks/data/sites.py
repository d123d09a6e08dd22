"""Several sources in one dataset: what each is read with, and whose file a path means.

A path of such a dataset begins with the name of its source, its site: ``hospital-a/COVID/1.png``. Where there is one
source without a name, the site is '' and paths are as the source has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from cxr_tasks.config import DataSettings
from cxr_tasks.data.layout import ClassMissing
from cxr_tasks.data.patients import own_key
from cxr_tasks.data.scan import MOST_SHARDS, shard_numbers
from cxr_tasks.errors import DataError, UserError


@dataclass(frozen=True)
class SourcePart:
    """One source of a dataset.

    Attributes:
        site: Its name; '' where there is one source without a name.
        address: Where it is.
        settings: How its files are laid out.
        key: Makes the pseudonyms of its patients.
    """

    site: str
    address: str
    settings: DataSettings
    key: bytes = field(repr=False)


def source_parts(settings: DataSettings, address: str, key: bytes) -> list[SourcePart]:
    """The sources of a dataset: those of ``data.sources``, or the one at ``address``.

    Args:
        settings: Of the dataset.
        address: Of the one source; it does not count where the settings list several.
        key: Makes the pseudonyms of patients.
    """
    if not settings.sources:
        return [SourcePart("", address, settings, key)]
    return [
        SourcePart(
            each.name,
            each.source,
            settings.of_source(each),
            own_key(key, each.name) if each.patients == "own" else key,
        )
        for each in settings.sources
    ]


def source_error(site: str, error: UserError) -> DataError:
    """What is wrong with one of several sources, in a sentence that names it."""
    advice = " A source that has some of the classes lists them in its own classes."
    return DataError(f"The source {site!r} cannot be used. {error}{advice if isinstance(error, ClassMissing) else ''}")


def with_site(rows: pd.DataFrame, site: str) -> pd.DataFrame:
    """Rows of one source, with the column ``site``, and its name before each path."""
    named = rows.assign(site=site)
    return named.assign(path=f"{site}/" + named["path"]) if site else named


def files_of_site(files: pd.DataFrame, site: str) -> pd.DataFrame:
    """Rows of :func:`join_scans` that are of one source, with paths as the source itself has them."""
    own = files[files["site"] == site] if site else files
    return own.assign(path=own["path"].str.removeprefix(f"{site}/")).reset_index(drop=True) if site else own


def join_scans(scanned: Mapping[str, pd.DataFrame], shard_images: int) -> tuple[pd.DataFrame, dict[str, int]]:
    """Join the scans of several sources.

    Args:
        scanned: Rows of each scan, by the name of its source.
        shard_images: Files that a shard should have at most.

    Returns:
        The rows of all, as :func:`with_site` has them, with the column ``shard``: each shard is of one source. And how
        many shards each source has, in their order. Masks keep the paths that their source has.
    """
    tables, shards, first = [], {}, 0
    # Twice MOST_SHARDS is what Airflow maps a task over.
    most = max(1, min(MOST_SHARDS, 2 * MOST_SHARDS // len(scanned)))
    for site, files in scanned.items():
        numbers = shard_numbers(files, shard_images, most)
        shards[site] = int(numbers.max()) + 1
        tables.append(with_site(files, site).assign(shard=numbers + first))
        first += shards[site]
    return pd.concat(tables, ignore_index=True), shards
