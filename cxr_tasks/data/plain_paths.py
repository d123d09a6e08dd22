"""The paths that files would have without the archives that they lie in."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence

from cxr_tasks.data.given import split_of_folder
from cxr_tasks.data.mask_names import is_mask_folder
from cxr_tasks.data.sources import Entry
from cxr_tasks.data.sources.archive_names import archive_of, without_suffix
from cxr_tasks.names import composed


def plain_paths(entries: Sequence[Entry], known: Collection[str]) -> dict[str, str]:
    """The path of each file in its composed form, as if archives had been unpacked.

    An archive that is called as a class, a split or masks is a folder of that name. Others are no folder: the parts of
    a data set (``part1.zip``, ``part2.zip``) hold the same folders.

    Args:
        entries: The files.
        known: Names of folders that mean a class.
    """
    return {entry.path: _without_archive(composed(entry.path), known) for entry in entries}


def _without_archive(path: str, known: Collection[str]) -> str:
    archive = archive_of(path)
    if not archive:
        return path
    above, name = os.path.split(archive)
    folder = without_suffix(name)
    says = folder in known or split_of_folder(folder) or is_mask_folder(folder)
    return "/".join(filter(None, (above, folder if says else "", path[len(archive) + 1 :])))
