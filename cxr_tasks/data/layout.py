"""Which files of a source belong to which class, in the layouts of the COVID-19 Radiography Database.

Works on paths alone, so a folder, an archive and a bucket are read alike.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from operator import eq
from pathlib import PurePosixPath

from cxr_tasks.data.mask_names import image_stem, is_lung_mask_folder, is_mask_file, is_mask_folder
from cxr_tasks.data.sources import Entry
from cxr_tasks.data.sources.archive_names import advice, is_archive_name
from cxr_tasks.errors import DataError, shown

# Files that may lie beside images without being meant as one.
TEXT_SUFFIXES = {".csv", ".tsv", ".xls", ".xlsx", ".txt", ".md", ".json", ".xml", ".yaml", ".yml", ".html", ".pdf"}
IMAGES = "images"
METADATA_SUFFIXES = (".metadata.csv", ".metadata.xlsx")


@dataclass(frozen=True)
class Layout:
    """The files of a source that count.

    Attributes:
        images: Class and file of each image, ordered by class and path.
        metadata: Class and file of each class table.
        masks: The lung mask of each image that has one, by the image's path.
        notes: Sentences on masks that belong to no image, and on archives, which are not read.
    """

    images: list[tuple[str, Entry]]
    metadata: list[tuple[str, Entry]]
    masks: dict[str, Entry]
    notes: tuple[str, ...] = ()


def lay_out(entries: Sequence[Entry], classes: Sequence[str], folders: Mapping[str, str], address: str) -> Layout:
    """Sort the files of a source by class.

    Accepts ``<folder>/images/…`` and ``<folder>/…``, also below one more folder (an unpacked archive). A mask is never
    taken for an image, whatever its folder or its file is called. Other folders, such as a class that is not asked for,
    are left alone.

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
    above = _enclosing(entries)
    masked = {entry.path: mask for entry in entries if (mask := _as_mask(entry.path, above, label_of))}
    depth = _depth([entry for entry in entries if entry.path not in masked], label_of)
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
            if label and entry.path in masked:
                masks.append(entry)
            elif label and PurePosixPath(parts[-1]).suffix.lower() not in TEXT_SUFFIXES:
                images.append((label, entry))
    archives = [entry.path for entry in entries if is_archive_name(entry.path)]
    _check(images, classes, label_of, there, address, archives)
    order = {label: i for i, label in enumerate(classes)}
    images.sort(key=lambda item: (order[item[0]], item[1].path))
    pairs = _pair_masks((entry for _, entry in images), masks, masked)
    return Layout(images, metadata, pairs, (*_on_masks(masks, pairs), *_on_archives(archives)))


@dataclass(frozen=True, slots=True)
class _Mask:
    """A file that is a mask by its name: the folder and the name that its image has, and whether it may show lungs."""

    folder: str
    stem: str
    of_lungs: bool


def _as_mask(path: str, above: int, label_of: Mapping[str, str]) -> _Mask | None:
    """What a path says of a mask; ``None`` where it says nothing. Folders that enclose everything say nothing."""
    *folders, name = path.split("/")
    stem = os.path.splitext(name)[0]
    places = [
        place
        for place, folder in enumerate(folders)
        if place >= above and folder not in label_of and is_mask_folder(folder)
    ]
    # A folder that cannot be read is listed as if it were a file.
    if not places and not is_mask_file(stem):
        return None
    stem, of_lungs = image_stem(stem)
    of_lungs = of_lungs and all(is_lung_mask_folder(folders[place]) for place in places)
    return _Mask("/".join(folder for place, folder in enumerate(folders) if place not in places), stem, of_lungs)


def _enclosing(entries: Sequence[Entry]) -> int:
    """How many folders enclose every file that lies in a folder."""
    common: list[str] | None = None
    for entry in entries:
        folders = entry.path.split("/")[:-1]
        if common is None and folders:
            common = folders
        elif common is not None and folders and folders[: len(common)] != common:
            same = map(eq, common, folders)
            common = common[: sum(1 for _ in takewhile(bool, same))]
    return len(common or ())


def _pair_masks(images: Iterable[Entry], masks: Sequence[Entry], masked: Mapping[str, _Mask]) -> dict[str, Entry]:
    """The lung mask of each image that has one: of the same name, beside the image or beside its folder ``images``."""
    found: dict[tuple[str, str], Entry] = {}
    for entry in masks:
        mask = masked[entry.path]
        if mask.of_lungs and PurePosixPath(entry.path).suffix.lower() not in TEXT_SUFFIXES:
            found.setdefault((mask.folder, mask.stem), entry)
    if not found:
        return {}
    pairs = {}
    for image in images:
        folder, name = os.path.split(image.path)
        stem = os.path.splitext(name)[0]
        for place in (_without_images(folder), folder):
            if (place, stem) in found:
                pairs[image.path] = found[place, stem]
                break
    return pairs


def _without_images(folder: str) -> str:
    """The folder without its last part that is called ``images``."""
    parts = folder.split("/")
    for place in reversed(range(len(parts))):
        if parts[place].lower() == IMAGES:
            return "/".join(parts[:place] + parts[place + 1 :])
    return folder


def _on_masks(masks: Sequence[Entry], pairs: Mapping[str, Entry]) -> Iterator[str]:
    """A sentence on masks that no image has."""
    paired = {entry.path for entry in pairs.values()}
    if left := [entry.path for entry in masks if entry.path not in paired]:
        yield (
            f"{len(left):,} of {len(masks):,} masks are not used, such as {shown(left[0])!r}: only masks of lungs are, "
            "which lie in 'masks' or 'lung masks' and have the name of their image"
        )


def _on_archives(archives: Sequence[str]) -> Iterator[str]:
    """A sentence on archives among the files."""
    if archives:
        more = f" and {len(archives) - 1:,} more" if len(archives) > 1 else ""
        yield f"{shown(archives[0])!r}{more}: {advice(archives[0])}"


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
    archives: Sequence[str],
) -> None:
    filled = {label for label, _ in images}
    packed = "".join(f" Note {sentence}." for sentence in _on_archives(archives))
    for label in classes:
        names = [name for name, meant in label_of.items() if meant == label]
        if label in filled:
            continue
        if found := sorted(there & set(names)):
            raise DataError(
                f"Folder {found[0]!r} in {address} holds no image: put the images of class {label!r} there, "
                f"or take the class out of data.classes.{packed}"
            )
        # An empty folder cannot be told from none: archives and buckets have files only.
        raise DataError(
            f"Class {label!r} has no image: in {address} there are files below "
            f"{', '.join(map(repr, sorted(there))) or 'no folder'}. Put its images into the folder {label!r}, map the "
            f"folder that holds them in data.folders, or take the class out of data.classes.{packed}"
        )
