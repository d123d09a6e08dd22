"""Names that people give: one spelling for each, and keys that are made from them.

macOS writes an accent as a letter and a mark, other systems as one letter. Both look the same, so names are compared
in Unicode's composed form (NFC) everywhere.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

# A key of MLflow may have 250 characters, and other words stand around a name in it.
LONGEST_SLUG = 100
HASH_DIGITS = 8


def composed(name: str) -> str:
    """``name`` in Unicode's composed form (NFC)."""
    return unicodedata.normalize("NFC", name)


def normal_form(name: str, *, zeros: bool = False) -> str:
    """What is left of a name without case, blanks and punctuation: ``COVID (12)`` and ``covid_12`` give ``covid 12``.

    Args:
        name: Any text.
        zeros: Whether leading zeros of numbers count.

    Returns:
        The runs of letters and of digits, with a blank between them; '' where the name has neither.
    """
    # Marks that stay apart after composing belong to the letter before them.
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    runs: list[str] = []
    last = ""
    for character in folded:
        kind = {"L": "letter", "M": "letter", "N": "number"}.get(unicodedata.category(character)[0], "")
        if kind and kind == last:
            runs[-1] += character
        elif kind:
            runs.append(character)
        last = kind
    return " ".join(run if zeros or not run.isdecimal() else run.lstrip("0") or "0" for run in runs)


def slug(name: str) -> str:
    """Write a name as part of a key: ``"Viral Pneumonia"`` becomes ``"Viral_Pneumonia"``.

    MLflow takes letters and digits of every script, ``_``, ``-`` and ``.``. A blank becomes ``_``. Where anything else
    would be lost, a hash of the name follows, so that two names have two keys.
    """
    name = composed(name)
    key = re.sub(r"[^\w.-]+", "_", name)
    if key == name.replace(" ", "_") and len(key) <= LONGEST_SLUG:
        return key
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:HASH_DIGITS]
    return f"{key[: LONGEST_SLUG - HASH_DIGITS - 1].strip('_')}_{digest}"


def param_part(name: str) -> str:
    """``name`` as a part of a param's name: as it is where MLflow takes it, else its :func:`slug`."""
    return name if re.fullmatch(r"[\w.\- ]+", name) and len(name) <= LONGEST_SLUG else slug(name)
