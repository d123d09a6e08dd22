"""Which row of a table speaks of which file, where people wrote the names by hand.

A name finds a file by the first of several spellings that leaves no doubt. Nothing is guessed between two files.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

from cxr_tasks.names import composed, normal_form

# Of an image, whatever its kind: letters first, so that the last number of 1.2.840.113 is none.
_ENDING = re.compile(r"\.[a-z][a-z0-9]{1,4}$", re.IGNORECASE)
# Names mostly come without an ending, and a dot in them is then no ending.
_KNOWN_ENDING = re.compile(r"\.(png|jpe?g)$", re.IGNORECASE)


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
    by_last: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for place, path in enumerate(paths):
        by_last[_bare(path)].append((place, "/" + _ENDING.sub("", _path(path))))
    found = []
    for name in names:
        whole = _ENDING.sub("", _path(name)).strip("/")
        ends = [place for place, path in by_last[_bare(name)] if path.endswith("/" + whole)] if "/" in whole else []
        found.append(ends[0] if len(ends) == 1 else -1)
    return found


def _without_strangers(found: list[int], same: Sequence[str]) -> list[int]:
    """``found`` without files that a looser spelling gave to a second name; the rows that came first keep them."""
    owner: dict[int, str] = {}
    for row, place in enumerate(found):
        if place >= 0 and owner.setdefault(place, same[row]) != same[row]:
            found[row] = -1
    return found
