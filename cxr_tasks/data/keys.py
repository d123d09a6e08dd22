"""Which images a row of a table speaks of, where the row names a study and no file.

Identifiers are compared in memory and nowhere else. No message quotes one: a row is called by its number.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_tasks.data.dicom.header import read_element
from cxr_tasks.data.matching import Matches
from cxr_tasks.data.sources import Entry, Source
from cxr_tasks.data.threads import in_blocks
from cxr_tasks.data_settings import KeySettings, cell_text
from cxr_tasks.progress import advance

FOLDER = "folder"


def match_keys(names: Sequence[str], images: Sequence[Entry], source: Source, key: KeySettings) -> Matches:
    """Find the images of each row.

    Args:
        names: The key of each row.
        images: Files that may be images.
        source: Where the files are.
        key: Says what an image has of the key.
    """
    if key.matches == FOLDER:
        return pair_keys(names, [Path(entry.path).parts[:-1] for entry in images])
    opened = [entry for entry in images if not entry.fault]
    root, found = source.fetch(opened), list[str]()
    for block in in_blocks(lambda entry: read_element(root / entry.path, key.matches), opened):
        found += block
        advance("read headers", len(found), len(opened))
    told = dict(zip((entry.path for entry in opened), found, strict=True))
    return pair_keys(names, [[told.get(entry.path, "")] for entry in images])


def pair_keys(names: Sequence[str], keys: Sequence[Iterable[str]]) -> Matches:
    """Pair rows with the images that have their key: as it is written, or else without the zeros that it begins with.

    A key that two keys of rows, or two of images, come down to without zeros is nobody's.

    Args:
        names: The key of each row; '' pairs with nothing.
        keys: What each image has that may be the key.
    """
    rows = pd.Series([_spelling(name) for name in names], dtype=object)
    of_key: dict[str, list[int]] = defaultdict(list)
    for place, several in enumerate(keys):
        for text in {_spelling(one) for one in several} - {""}:
            of_key[text].append(place)
    wanted = set(rows) - {""}
    exact = {text: text for text in wanted if text in of_key}
    looser = _unmistakable(wanted - set(exact)), _unmistakable(set(of_key) - set(exact))
    exact |= {text: looser[1][short] for short, text in looser[0].items() if short in looser[1]}
    pairs = [(row, place) for row, text in enumerate(rows) if text in exact for place in of_key[exact[text]]]
    both = np.array(pairs, np.int64).reshape(-1, 2)
    return Matches(both[:, 0], both[:, 1], len(names), len(keys))


def _unmistakable(texts: Iterable[str]) -> dict[str, str]:
    """Each text by itself without zeros at its beginning, where no other text is the same without them."""
    several: dict[str, list[str]] = defaultdict(list)
    for text in texts:
        several[text.lstrip("0")].append(text)
    return {short: found[0] for short, found in several.items() if short and len(found) == 1}


def _spelling(text: str) -> str:
    return str(cell_text(text)).casefold()
