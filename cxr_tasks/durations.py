"""Lengths of time, for people."""

from __future__ import annotations

UNITS_OF_TIME = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def time_taken(seconds: float) -> str:
    """The two largest units: ``42 s``, ``5 min 10 s``, ``2 h 5 min``, ``9 d 4 h`` or, with nothing left, ``7 d``."""
    left = round(seconds)
    told: list[str] = []
    for unit, length in UNITS_OF_TIME:
        # Up to two days are told in hours.
        if unit == "d" and left < 2 * length:
            continue
        if left >= length and len(told) < 2:
            told.append(f"{left // length} {unit}")
        elif told:
            break
        left %= length
    return " ".join(told) or "0 s"
