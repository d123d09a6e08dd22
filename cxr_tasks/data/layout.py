"""Which files of a source belong to which class, in the layouts of the COVID-19 Radiography Database.

Works on paths alone, so a folder, an archive and a bucket are read alike.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from cxr_tasks.data.decode import FORMATS
from cxr_tasks.data.sources import Entry
from cxr_tasks.errors import DataError

# Files that may lie beside images without being meant as one.
TEXT_SUFFIXES = {".csv", ".xlsx", ".txt", ".md", ".json", ".html", ".pdf"}
IMAGES, MASKS = "images", "masks"
METADATA_SUFFIXES = (".metadata.csv", ".metadata.xlsx")


@dataclass(frozen=True)
class Layout:
    """The files of a source that count.

    Attributes:
        images: Class and file of each image, ordered by class and path.
        metadata: Class and file of each class table.
        masks: The lung mask of each image that has one, by the image's path.
    """

    images: list[tuple[str, Entry]]
    metadata: list[tuple[str, Entry]]
    masks: dict[str, Entry]


def lay_out(entries: Sequence[Entry], classes: Sequence[str], folders: Mapping[str, str], address: str) -> Layout:
    """Sort the files of a source by class.

    Accepts ``<folder>/images/…`` and ``<folder>/…``, also below one more folder (an unpacked archive). A file in
    ``masks`` is never taken for an image. Other folders, such as a class that is not asked for, are left alone.

    Args:
        entries: The files.
        classes: The classes in their order.
        folders: The class of each further folder name.
        address: What messages call the source.

    Raises:
        DataError: A class has no folder or no file.
    """
    label_of = {name: label for name, label in folders.items() if label in classes} | {
        label: label for label in classes
    }
    depth = _depth([entry for entry in entries if not _is_masked(entry.path)], label_of)
    images: list[tuple[str, Entry]] = []
    metadata: list[tuple[str, Entry]] = []
    masks: list[Entry] = []
    there: set[str] = set()
    for entry in entries:
        parts = entry.path.split("/")[depth:]
        if len(parts) == 1 and parts[0].endswith(METADATA_SUFFIXES):
            if label := label_of.get(parts[0].rsplit(".metadata.", 1)[0]):
                metadata.append((label, entry))
        # A folder that cannot be read is listed as if it were a file.
        elif len(parts) > 1 or (entry.fault and parts and parts[0] in label_of):
            there.add(parts[0])
            label = label_of.get(parts[0])
            if label and _is_masked(entry.path):
                masks.append(entry)
            elif label and PurePosixPath(parts[-1]).suffix.lower() not in TEXT_SUFFIXES:
                images.append((label, entry))
    _check(images, classes, label_of, there, address)
    order = {label: i for i, label in enumerate(classes)}
    images.sort(key=lambda item: (order[item[0]], item[1].path))
    return Layout(images, metadata, _pair_masks((entry for _, entry in images), masks))


def _is_masked(path: str) -> bool:
    """Whether the file lies in a folder for masks, in capitals or not."""
    return MASKS in path.lower().split("/")


def _pair_masks(images: Iterable[Entry], masks: Iterable[Entry]) -> dict[str, Entry]:
    """The mask of each image that has one: of the same name, in ``masks`` beside ``images`` or beside the image."""
    found: dict[tuple[str, str], Entry] = {}
    for mask in masks:
        folder, name = os.path.split(mask.path)
        above, last = os.path.split(folder)
        stem, suffix = os.path.splitext(name)
        if last.lower() == MASKS and suffix.lower() in FORMATS:
            found.setdefault((above, stem), mask)
    if not found:
        return {}
    pairs = {}
    for image in images:
        folder, name = os.path.split(image.path)
        above, last = os.path.split(folder)
        place = above if last.lower() == IMAGES else folder
        if (key := (place, os.path.splitext(name)[0])) in found:
            pairs[image.path] = found[key]
    return pairs


def _depth(entries: Iterable[Entry], label_of: Mapping[str, str]) -> int:
    """How many single folders enclose the class folders."""
    paths = [entry.path.split("/") for entry in entries]
    depth = 0
    while True:
        # Files beside the one folder (a licence, say) end the search no more than the folder itself does.
        tops = {parts[depth] for parts in paths if len(parts) > depth + 1}
        if len(tops) != 1 or tops & set(label_of):
            # Where there is no class at all, the outermost folders are what a message should name.
            return depth if tops else 0
        depth += 1


def _check(
    images: Sequence[tuple[str, Entry]],
    classes: Sequence[str],
    label_of: Mapping[str, str],
    there: set[str],
    address: str,
) -> None:
    filled = {label for label, _ in images}
    for label in classes:
        names = [name for name, meant in label_of.items() if meant == label]
        if label in filled:
            continue
        if found := sorted(there & set(names)):
            raise DataError(
                f"Folder {found[0]!r} in {address} holds no image: put the images of class {label!r} there, "
                "or take the class out of data.classes."
            )
        # An empty folder cannot be told from none: archives and buckets have files only.
        raise DataError(
            f"Class {label!r} has no image: in {address} there are files below "
            f"{', '.join(map(repr, sorted(there))) or 'no folder'}. Put its images into the folder {label!r}, map the "
            "folder that holds them in data.folders, or take the class out of data.classes."
        )
