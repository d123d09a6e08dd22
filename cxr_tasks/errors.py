"""Errors that carry one clear sentence for the person who runs the pipeline: what, where, what to do.

They are never worth a retry: the same input gives the same error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

# What a terminal obeys instead of showing it: controls, breaks of lines, and what turns the direction of text round.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


class UserError(Exception):
    """Something only a person can mend. The message says what is wrong, where, and what to do."""


class DataError(UserError, ValueError):
    """The images, their folders or a table made from them are not usable as they are."""


class SettingsError(UserError, ValueError):
    """A profile, an override or an environment variable is wrong."""


class WeightsError(UserError, RuntimeError):
    """Pretrained weights were asked for and could not be had."""


class IncompleteError(UserError):
    """A run has come to its end, and parts of it have failed."""


def shown(text: str) -> str:
    r"""``text`` as it can be printed in a line: bytes that are not UTF-8 become ``\udcXX``, an escape code ``\x1b``."""
    return UNPRINTABLE.sub(_escape_code, text.encode("utf-8", "backslashreplace").decode())


def _escape_code(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def in_one_line(error: BaseException) -> str:
    """What ``error`` says, ready to be put into a sentence."""
    return shown(" ".join(str(error).split()).rstrip(":.") or type(error).__name__)


def nearest(name: str, known: Iterable[str]) -> str:
    """What to take instead of ``name``, to end a sentence: the known name that is most like it, or all of them."""
    names = [str(each) for each in known]
    close = get_close_matches(name, names, n=1) or get_close_matches(name.lower(), names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(names)}."
