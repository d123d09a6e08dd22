"""Errors that carry one clear sentence for the person who runs the pipeline: what, where, what to do.

They are never worth a retry: the same input gives the same error.
"""


class UserError(Exception):
    """Something only a person can mend. The message says what is wrong, where, and what to do."""


class DataError(UserError, ValueError):
    """The images, their folders or a table made from them are not usable as they are."""


class SettingsError(UserError, ValueError):
    """A profile, an override or an environment variable is wrong."""


class WeightsError(UserError, RuntimeError):
    """Pretrained weights were asked for and could not be had."""


def shown(text: str) -> str:
    r"""``text`` as it can be printed: bytes that are not UTF-8 become ``\udcXX``."""
    return text.encode("utf-8", "backslashreplace").decode()


def in_one_line(error: Exception) -> str:
    """What ``error`` says, ready to be put into a sentence."""
    return shown(" ".join(str(error).split()).rstrip(":.") or type(error).__name__)
