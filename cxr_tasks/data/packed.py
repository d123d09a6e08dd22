"""Which archives inside a source are opened: those that lie where images are looked for, or without which some lack."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace

from cxr_tasks.data.layout import Layout
from cxr_tasks.data.sources import Entry, Source
from cxr_tasks.data.sources.archive_names import archive_of, without_suffix
from cxr_tasks.errors import DataError, shown
from cxr_tasks.progress import advance


def lay_out_with_archives(source: Source, lay: Callable[[Sequence[Entry]], Layout]) -> Layout:
    """Lay a source out, with the files in its archives where something is missing without them.

    An archive that cannot be read is left among the images where these are enough without it.

    Args:
        source: Where the files are.
        lay: Sorts files by class. It names archives to open in ``Layout.packed``.

    Raises:
        DataError: As ``lay`` raises it, or an archive cannot be read in which images lie that are missing.
    """
    entries = source.entries()
    archives = [entry for entry in entries if can_be_opened(entry)]
    try:
        layout = lay(entries)
        archives, enough = list(layout.packed), layout.said is None
    except DataError:
        if not archives:
            raise
        enough = False
    found, opened, notes = list[Entry](), list[str](), list[str]()
    for done, archive in enumerate(archives, start=1):
        try:
            found += source.inside(archive)
            opened.append(archive.path)
        except DataError as error:
            if not enough:
                raise
            notes.append(str(error).rstrip("."))
        advance("unpack archives", done, len(archives))
    if not archives:
        return layout
    left = set(opened)
    plain = [entry for entry in entries if entry.path not in left]
    found = _not_unpacked_beside(found, plain)
    layout = lay(sorted([*plain, *found], key=lambda entry: entry.path))
    told = layout.told
    if opened:
        more = f" and {len(opened) - 1:,} more" if len(opened) > 1 else ""
        told += (f"{shown(opened[0])}{more}: archives inside the source were unpacked, {len(found):,} files",)
    return replace(layout, told=told, notes=(*layout.notes, *notes))


def can_be_opened(entry: Entry) -> bool:
    """Whether a file is an archive of a kind that is unpacked."""
    return not entry.fault and bool(without_suffix(os.path.basename(entry.path)))


def _not_unpacked_beside(found: Sequence[Entry], plain: Sequence[Entry]) -> list[Entry]:
    """Files in archives without those that lie beside their archive already, where someone has unpacked it."""
    sizes = {entry.path: entry.size for entry in plain}
    return [entry for entry in found if not any(sizes.get(place) == entry.size for place in _places_beside(entry.path))]


def _places_beside(path: str) -> tuple[str, str]:
    """Where the file at ``path`` in an archive lies once that is unpacked beside it, or into a folder of its name."""
    archive = archive_of(path)
    above, name = os.path.split(archive)
    inside = path[len(archive) + 1 :]
    return os.path.join(above, inside), os.path.join(above, without_suffix(name), inside)
