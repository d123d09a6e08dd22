"""Which files of a source belong to which class, in the layouts of the COVID-19 Radiography Database.

Works on paths alone, so a folder, an archive and a bucket are read alike.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from operator import eq
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from cxr_tasks.data.found_tables import UNREADABLE, find_tables
from cxr_tasks.data.given import split_of_folder
from cxr_tasks.data.mask_names import image_stem, is_lung_mask_folder, is_mask_file, is_mask_folder
from cxr_tasks.data.plain_paths import plain_paths
from cxr_tasks.data.sources import Entry
from cxr_tasks.data.sources.archive_names import advice, is_archive_name, without_suffix
from cxr_tasks.errors import DataError, shown
from cxr_tasks.names import composed

if TYPE_CHECKING:
    import pandas as pd

# Files that may lie beside images without being meant as one.
TEXT_SUFFIXES = {".csv", ".tsv", ".xls", ".xlsx", ".txt", ".md", ".json", ".xml", ".yaml", ".yml", ".html", ".pdf"}
IMAGES = "images"


class ClassMissing(DataError):
    """A class has no image in a source."""


@dataclass(frozen=True)
class Layout:
    """The files of a source that count.

    Attributes:
        images: Class and file of each image, ordered by class and path.
        metadata: Class and file of each table whose name says that it is one; :data:`ANY_CLASS` for all classes.
        masks: The lung mask of each image that has one, by the image's path.
        notes: Sentences on masks that belong to no image, on archives, which are not read, on tables that cannot be
            read, and on images of no class.
        given: The split that a folder or a table of labels gives an image, by the image's path.
        maybe: Class and file of each further table, which counts if its columns name images.
        said: What a table of labels says of each image, in the order of ``images``: ``facts.SAID``. ``None`` where
            folders say the classes.
        told: Sentences on what was read, such as what a table of labels says.
        packed: Archives to open, since images of the classes may lie in them.
    """

    images: list[tuple[str, Entry]]
    metadata: list[tuple[str, Entry]]
    masks: dict[str, Entry]
    notes: tuple[str, ...] = ()
    given: dict[str, str] = field(default_factory=dict)
    maybe: list[tuple[str, Entry]] = field(default_factory=list)
    said: pd.DataFrame | None = None
    told: tuple[str, ...] = ()
    packed: tuple[Entry, ...] = ()


@dataclass(frozen=True)
class _Place:
    """Where a file lies: ``parts`` below what encloses the classes, how many of them lead to the class, its split."""

    parts: list[str]
    above: int
    label: str
    given: str

    @property
    def folder(self) -> str:
        """The folder of the class, for messages."""
        return "/".join(self.parts[: self.above])


def lay_out(
    entries: Sequence[Entry],
    classes: Sequence[str],
    folders: Mapping[str, str],
    address: str,
    needed: Collection[str] | None = None,
) -> Layout:
    """Sort the files of a source by class.

    Accepts ``<folder>/images/…`` and ``<folder>/…``, also below one more folder (an unpacked archive), and below or
    above folders for splits (``train``, ``test``). A mask is never taken for an image, whatever its folder or its file
    is called. Other folders, such as a class that is not asked for, are left alone. Names are compared in their
    composed form. An archive is a folder, see :func:`cxr_tasks.data.plain_paths.plain_paths`.

    Args:
        entries: The files.
        classes: The classes in their order.
        folders: The class of each further folder name.
        address: What messages call the source.
        needed: The classes that must have images; ``None`` stands for all.

    Raises:
        ClassMissing: A class that is needed has no folder or no file.
    """
    label_of = {composed(name): label for name, label in folders.items() if label in classes} | {
        composed(label): label for label in classes
    }
    plain = plain_paths(entries, label_of)
    above = enclosing(plain.values())
    masked = {path: mask for path, name in plain.items() if (mask := as_mask(name, above, label_of))}
    depth = _depth([name for path, name in plain.items() if path not in masked], label_of)
    images: list[tuple[str, Entry]] = []
    masks: list[Entry] = []
    inside: list[tuple[str, Entry]] = []
    beside: list[Entry] = []
    given: dict[str, str] = {}
    there: dict[str, str] = {}
    of_no_class: Counter[str] = Counter()
    for entry in entries:
        whole = plain[entry.path].split("/")
        parts = whole[depth:]
        # A folder that cannot be read is listed as if it were a file.
        if len(parts) < 2 and not (entry.fault and parts and parts[0] in label_of):
            beside.append(entry)
            continue
        place = _place(parts, label_of)
        suffix = PurePosixPath(parts[-1]).suffix.lower()
        if not place.label and len(parts) - place.above < 2 and place.above:
            beside.append(entry)
        if place.label or len(parts) - place.above > 1:
            there[place.folder if place.label else "/".join(parts[: place.above + 1])] = place.label
        if not place.label:
            # Where a split is told, or a folder further down is called like a class: someone meant these images.
            meant = place.given or any(part in label_of for part in parts[place.above : -1])
            of_no_class[place.folder or parts[0]] += bool(
                meant and suffix not in TEXT_SUFFIXES and entry.path not in masked
            )
        elif entry.path in masked:
            masks.append(entry)
        elif suffix in TEXT_SUFFIXES:
            inside.append((place.label, entry))
        else:
            images.append((place.label, entry))
            # A single folder for a split encloses the classes like any other.
            if split := place.given or next(filter(None, map(split_of_folder, whole[:depth])), ""):
                given[entry.path] = split
    archives = [entry.path for entry in entries if is_archive_name(entry.path)]
    wanted = [label for label in classes if needed is None or label in needed]
    _check(images, wanted, there, address, archives, len(masks))
    others = [name.rsplit("/", 1)[-1] for name, label in there.items() if not label]
    tables, unread = find_tables(beside, inside, label_of, others)
    order = {label: i for i, label in enumerate(classes)}
    images.sort(key=lambda item: (order[item[0]], item[1].path))
    pairs = pair_masks((entry for _, entry in images), masks, masked, plain)
    notes = (
        *on_masks(masks, pairs),
        *on_archives(archives),
        *(f"{entry.path} looks like a table and is not used: {UNREADABLE}" for entry in unread),
        *(
            f"{count:,} images in the folder {folder!r} lie in the folder of no class and are not used"
            for folder, count in of_no_class.items()
            if count
        ),
    )
    return Layout(
        images,
        [(table.label, table.entry) for table in tables if table.certain],
        pairs,
        notes,
        given,
        [(table.label, table.entry) for table in tables if not table.certain],
        packed=tuple(_to_open(entries, plain, depth, label_of)),
    )


def _to_open(
    entries: Sequence[Entry], plain: Mapping[str, str], depth: int, label_of: Mapping[str, str]
) -> Iterator[Entry]:
    """Archives in the folder of a class, and those that are called as one or as a split and lie there packed only."""
    for entry in entries:
        above, name = os.path.split(plain[entry.path])
        parts, stem = plain[entry.path].split("/")[depth:], without_suffix(name)
        if entry.fault or not stem:
            continue
        inside = parts and _place(parts, label_of).label
        folder = os.path.join(above, stem, "")
        if inside or (
            (stem in label_of or split_of_folder(stem)) and not any(path.startswith(folder) for path in plain.values())
        ):
            yield entry


def _place(parts: list[str], label_of: Mapping[str, str]) -> _Place:
    """Where a file lies whose path below the enclosing folders is ``parts``."""
    given, above = "", 0
    # A folder that cannot be read is a path of one part, and its name that of the class.
    most = max(1, len(parts) - 1)
    while True:
        # The longest path of folders counts, where settings name one.
        for length in range(most, above, -1):
            from_top, from_here = "/".join(parts[:length]), "/".join(parts[above:length])
            name = from_top if from_top in label_of else from_here
            if name in label_of:
                # Above the class, or else below.
                told = [*(parts[:length] if "/" in name else []), *parts[length:-1]]
                split = given or next(filter(None, map(split_of_folder, told)), "")
                return _Place(parts, length, label_of[name], split)
        if above >= most or not (split := split_of_folder(parts[above])):
            return _Place(parts, above, "", given)
        given, above = given or split, above + 1


@dataclass(frozen=True, slots=True)
class Mask:
    """A file that is a mask by its name: the folder and the name that its image has, and whether it may show lungs."""

    folder: str
    stem: str
    of_lungs: bool


def as_mask(path: str, above: int, label_of: Mapping[str, str]) -> Mask | None:
    """What a path says of a mask; ``None`` where it says nothing. Folders that enclose everything say nothing."""
    *folders, name = path.split("/")
    stem = os.path.splitext(name)[0]
    places = [
        place
        for place, folder in enumerate(folders)
        if place >= above and folder not in label_of and is_mask_folder(folder)
    ]
    # A folder that cannot be read is listed as if it were a file. ``labels.csv`` is a table, if not among masks.
    if not places and (not is_mask_file(stem) or PurePosixPath(name).suffix.lower() in TEXT_SUFFIXES):
        return None
    stem, of_lungs = image_stem(stem)
    of_lungs = of_lungs and all(is_lung_mask_folder(folders[place]) for place in places)
    return Mask("/".join(folder for place, folder in enumerate(folders) if place not in places), stem, of_lungs)


def enclosing(paths: Iterable[str]) -> int:
    """How many folders enclose every file that lies in a folder."""
    common: list[str] | None = None
    for path in paths:
        folders = path.split("/")[:-1]
        if common is None and folders:
            common = folders
        elif common is not None and folders and folders[: len(common)] != common:
            same = map(eq, common, folders)
            common = common[: sum(1 for _ in takewhile(bool, same))]
    return len(common or ())


def pair_masks(
    images: Iterable[Entry], masks: Sequence[Entry], masked: Mapping[str, Mask], plain: Mapping[str, str]
) -> dict[str, Entry]:
    """The lung mask of each image that has one: of the same name, beside the image or beside its folder ``images``.

    Args:
        images: The images.
        masks: Files that are masks by their names.
        masked: What the path of a mask says, by that path.
        plain: From :func:`cxr_tasks.data.plain_paths.plain_paths`.
    """
    found: dict[tuple[str, str], Entry] = {}
    for entry in masks:
        mask = masked[entry.path]
        if mask.of_lungs and PurePosixPath(entry.path).suffix.lower() not in TEXT_SUFFIXES:
            found.setdefault((mask.folder, mask.stem), entry)
    if not found:
        return {}
    pairs = {}
    for image in images:
        folder, name = os.path.split(plain[image.path])
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


def on_masks(masks: Sequence[Entry], pairs: Mapping[str, Entry]) -> Iterator[str]:
    """A sentence on masks that no image has."""
    paired = {entry.path for entry in pairs.values()}
    if left := [entry.path for entry in masks if entry.path not in paired]:
        yield (
            f"{len(left):,} of {len(masks):,} masks are not used, such as {shown(left[0])!r}: only masks of lungs are, "
            "which lie in 'masks' or 'lung masks' and have the name of their image"
        )


def on_archives(archives: Sequence[str]) -> Iterator[str]:
    """A sentence on archives among the files."""
    if archives:
        more = f" and {len(archives) - 1:,} more" if len(archives) > 1 else ""
        yield f"{shown(archives[0])!r}{more}: {advice(archives[0])}"


def _depth(names: Iterable[str], label_of: Mapping[str, str]) -> int:
    """How many single folders enclose the class folders or the folders for splits."""
    paths = [name.split("/") for name in names]
    known = {name.split("/")[0] for name in label_of}
    depth = 0
    while True:
        # Files beside the one folder (a licence, say) end the search no more than the folder itself does.
        tops = {parts[depth] for parts in paths if len(parts) > depth + 1}
        if len(tops) != 1 or tops & known:
            # Where there is no class at all, the outermost folders are what a message should name.
            return depth if tops else 0
        depth += 1


def _check(
    images: Sequence[tuple[str, Entry]],
    classes: Sequence[str],
    there: Mapping[str, str],
    address: str,
    archives: Sequence[str],
    masks: int,
) -> None:
    filled = {label for label, _ in images}
    packed = "".join(f" Note {sentence}." for sentence in on_archives(archives))
    for label in classes:
        if label in filled:
            continue
        if found := sorted(name for name, meant in there.items() if meant == label):
            only = f" beside masks ({masks:,})" if masks else ""
            raise ClassMissing(
                f"Folder {found[0]!r} in {address} holds no image{only}: put the images of class {label!r} there, "
                f"or take the class out of data.classes.{packed}"
            )
        # An empty folder cannot be told from none: archives and buckets have files only.
        raise ClassMissing(
            f"Class {label!r} has no image: in {address} there are files below "
            f"{', '.join(map(repr, sorted(there))) or 'no folder'}. Put its images into the folder {label!r}, map the "
            f"folder that holds them in data.folders, or take the class out of data.classes.{packed}"
        )
