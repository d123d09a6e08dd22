"""Which row of a table speaks of which file, where people wrote the names by hand.

A name finds a file by the first of several spellings that leaves no doubt. Nothing is guessed between two files.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import pandas as pd

from cxr_tasks.names import composed, normal_form

# Of an image, whatever its kind: letters first, so that the last number of 1.2.840.113 is none.
_ENDING = re.compile(r"\.[a-z][a-z0-9]{1,4}$", re.IGNORECASE)
# Names mostly come without an ending, and a dot in them is then no ending.
_KNOWN_ENDING = re.compile(r"\.(png|jpe?g)$", re.IGNORECASE)


@dataclass(frozen=True)
class Matches:
    """Which rows of a table speak of which images, a pair each.

    Attributes:
        rows: (m,) int64 positions of rows.
        images: (m,) int64 positions of images.
        of_rows: How many rows there are.
        of_images: How many images there are.
    """

    rows: np.ndarray
    images: np.ndarray
    of_rows: int
    of_images: int

    @classmethod
    def of_places(cls, places: np.ndarray, images: int) -> Matches:
        """Each row with the image at its place, which is -1 where it has none."""
        rows = np.flatnonzero(places >= 0)
        return cls(rows, places[rows], len(places), images)

    @property
    def lost(self) -> np.ndarray:
        """(rows,) bool, which rows speak of no image."""
        lost = np.ones(self.of_rows, bool)
        lost[self.rows] = False
        return lost

    @property
    def named(self) -> int:
        """How many images any row speaks of."""
        return len(np.unique(self.images))


def _path(name: str) -> str:
    """The name with its folders, in one spelling."""
    return composed(name).strip().replace("\\", "/").removeprefix("./").casefold()


def one_name(name: str) -> str:
    """What is one for names that differ in case or in the ending of a PNG or JPEG alone, as a table may have twice."""
    return _KNOWN_ENDING.sub("", _path(name)).strip()


def _last(name: str) -> str:
    return _path(name).rsplit("/", 1)[-1].strip()


def file_stem(path: str) -> str:
    """A file's name without folder and ending, in upper case."""
    return PurePosixPath(composed(path)).stem.upper()


def table_stem(name: str) -> str:
    """A name in a table without folder and the ending of a PNG or JPEG, in upper case."""
    return _KNOWN_ENDING.sub("", composed(name).strip().replace("\\", "/").rsplit("/", 1)[-1]).strip().upper()


def _bare(name: str) -> str:
    return _ENDING.sub("", _last(name)).strip()


# How a name in a table and the path of a file are spelt, the strictest first.
SPELLINGS: tuple[tuple[Callable[[str], str], Callable[[str], str]], ...] = (
    (_last, _last),
    (table_stem, file_stem),
    (_bare, _bare),
    (lambda name: normal_form(_bare(name), zeros=True), lambda path: normal_form(_bare(path), zeros=True)),
    (lambda name: normal_form(_bare(name)), lambda path: normal_form(_bare(path))),
)


def match_names(names: Sequence[str], paths: Sequence[str]) -> list[int]:
    """Find the file that each name means.

    A name that ends in folders as a file does means that file. Else the first spelling counts that one file has.
    Where two files have that spelling, or two different names beside it, the name means neither.

    Args:
        names: As a table has them: with folders and endings or without.
        paths: Of the files, POSIX.

    Returns:
        For each name the position of its file, or -1.
    """
    found = _by_folders(names, paths)
    same = [one_name(name) for name in names]
    ambiguous: set[int] = set()
    for of_name, of_path in SPELLINGS:
        if all(place >= 0 for place in found):
            break
        places: dict[str, set[int]] = defaultdict(set)
        spelt: dict[str, set[str]] = defaultdict(set)
        for place, path in enumerate(paths):
            places[of_path(path)].add(place)
        keys = [of_name(name) for name in names]
        for key, name in zip(keys, same, strict=True):
            spelt[key].add(name)
        for row, key in enumerate(keys):
            if found[row] >= 0 or row in ambiguous or not key or key not in places:
                continue
            if len(places[key]) == 1 and len(spelt[key]) == 1:
                found[row] = next(iter(places[key]))
            elif len(places[key]) > 1:
                # A looser spelling has no fewer files.
                ambiguous.add(row)
    return _without_strangers(found, same)


def _by_folders(names: Sequence[str], paths: Sequence[str]) -> list[int]:
    """The file whose path ends as the name does, where the name has a folder and one file does; -1 elsewhere."""
    wholes = [_ENDING.sub("", _path(name)).strip("/") for name in names]
    counts = {whole.count("/") for whole in wholes if "/" in whole}
    place_of = _places_by_end([_ENDING.sub("", _path(path)) for path in paths], counts)
    return [max(place_of.get(whole, -1), -1) if "/" in whole else -1 for whole in wholes]


def _places_by_end(paths: Sequence[str], counts: Collection[int]) -> dict[str, int]:
    """The place of the path that ends in each text of as many slashes as ``counts`` has; -2 where several do."""
    place_of: dict[str, int] = {}
    for place, path in enumerate(paths):
        parts = path.split("/")
        for count in counts:
            if count < len(parts):
                end = "/".join(parts[-count - 1 :])
                place_of[end] = place if end not in place_of else -2
    return place_of


def match_paths(names: Sequence[str], paths: Sequence[str]) -> np.ndarray:
    """Find the file that each name means, where names may be paths of any depth and there are very many.

    What is spelt exactly as the end of one path means that file, then what differs in case, then in the ending. Folders
    that all names begin with and no path has, such as the name of a data set, are left out. What then finds nothing
    is looked for among the files that nothing has found, as :func:`match_names` does.

    Args:
        names: As a table has them; a name may be there more than once.
        paths: Of the files, POSIX.

    Returns:
        For each name the position of its file, or -1: (n,) int64.
    """
    codes, different = pd.factorize(np.array(names, object))
    texts = [composed(name).strip().replace("\\", "/").removeprefix("./").strip("/") for name in different]
    files = [composed(path) for path in paths]
    found = _match_ends(texts, files)
    shorter = texts
    while not (found >= 0).any() and _common_folder(shorter):
        shorter = [text.partition("/")[2] for text in shorter]
        found = _match_ends(shorter, files)
    taken = set(found.tolist())
    free = [place for place in range(len(files)) if place not in taken]
    lost = [row for row, text in enumerate(texts) if found[row] == -1 and text]
    if free and lost:
        loosely = match_names([texts[row] for row in lost], [paths[place] for place in free])
        found[lost] = [free[place] if place >= 0 else -1 for place in loosely]
    return np.where(codes >= 0, np.maximum(found, -1)[codes], -1) if len(different) else np.empty(0, np.int64)


def _common_folder(names: Sequence[str]) -> bool:
    """Whether all names begin with one folder; empty names do not count."""
    tops = {name.partition("/")[0] if "/" in name else "" for name in names if name}
    return len(tops) == 1 and "" not in tops


def _match_ends(names: Sequence[str], paths: Sequence[str]) -> np.ndarray:
    """The path that ends in each name; -1 where none does, -2 where several do: (n,) int64."""
    found = np.full(len(names), -1, np.int64)
    spellings: tuple[tuple[Callable[[str], str], Callable[[str], str]], ...] = (
        (str, str),
        (str.casefold, str.casefold),
        (str.casefold, lambda path: _ENDING.sub("", path.casefold())),
        (lambda name: _ENDING.sub("", name.casefold()), lambda path: _ENDING.sub("", path.casefold())),
    )
    for of_name, of_path in spellings:
        open_rows = [row for row in range(len(names)) if found[row] == -1 and names[row]]
        if not open_rows:
            break
        keys = [of_name(names[row]) for row in open_rows]
        place_of = _places_by_end([of_path(path) for path in paths], {key.count("/") for key in keys})
        found[open_rows] = [place_of.get(key, -1) for key in keys]
    return found


def _without_strangers(found: list[int], same: Sequence[str]) -> list[int]:
    """``found`` without files that a looser spelling gave to a second name; the rows that came first keep them."""
    owner: dict[int, str] = {}
    for row, place in enumerate(found):
        if place >= 0 and owner.setdefault(place, same[row]) != same[row]:
            found[row] = -1
    return found
