"""What may pass by itself: servers that are away, busy or slow, and connections that break off.

An error is either the user's, one sentence that is never tried again, or the world's. Here is the one place that tells
them apart, whichever library raises them. Nothing is imported for that: a library that was not imported raised nothing.
"""

from __future__ import annotations

import errno
import http.client
import logging
import ssl
import sys
import time
import urllib.error
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from cxr_tasks.errors import UserError, in_one_line

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

# What a server answers that is in trouble, is busy, or did not get the request in time. 425: too early.
PASSING_STATUS = frozenset({408, 425, 429})
# How long work that is under way waits for a server, and how long between two attempts.
OUTAGE_SECONDS = 1800.0
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 1.0, 60.0
# Errors of the network, and of disks that are somewhere else.
PASSING_ERRNO = frozenset(
    {
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.EPIPE,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENETRESET,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ETIMEDOUT,
        errno.ESTALE,
        errno.EIO,
        errno.EAGAIN,
    }
)
# Errors of other libraries that say that no answer came, or not a whole one, by the module that defines them.
NO_ANSWER = {
    "requests.exceptions": ("ConnectionError", "Timeout", "ChunkedEncodingError"),
    "urllib3.exceptions": ("TimeoutError", "ProtocolError", "NewConnectionError", "MaxRetryError", "IncompleteRead"),
    "httpx": ("TransportError",),
    "botocore.exceptions": (
        "ConnectionError",
        "HTTPClientError",
        "IncompleteReadError",
        "ResponseStreamingError",
        "CredentialRetrievalError",
    ),
    "s3transfer.exceptions": ("RetriesExceededError",),
}
# Requests of MLflow that a server in trouble refuses, by the name that MLflow gives the trouble.
MLFLOW_TROUBLE = frozenset({"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED"})

# Whoever asks has no right to, until a person gives it.
DENIED_STATUS = frozenset({401, 403, 407})
DENIED_BY_MLFLOW = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED"})

_patience: ContextVar[float] = ContextVar("patience", default=0.0)


def is_passing_status(status: int) -> bool:
    """Whether a server that answers so may answer otherwise later."""
    return status >= 500 or status in PASSING_STATUS


def is_passing(error: BaseException | None) -> bool:
    """Whether ``error`` may pass by itself.

    Libraries wrap what went wrong: the errors that ``error`` was raised from count too. What says that a person has to
    act is nobody else's, whatever it was raised from.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, UserError):
            return False
        if (answer := _verdict(error)) is not None:
            return answer
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def is_denied(error: BaseException | None) -> bool:
    """Whether a server says that whoever asks has no right to; of ``error``, or of what it was raised from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if _status(error) in DENIED_STATUS or getattr(error, "error_code", None) in DENIED_BY_MLFLOW:
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def _verdict(error: BaseException) -> bool | None:
    """Whether this error, taken alone, may pass; ``None`` where the error does not say."""
    if getattr(error, "passes", False):
        return True
    if isinstance(error, FileNotFoundError | PermissionError):
        return None
    if (status := _status(error)) is not None:
        return is_passing_status(status)
    if isinstance(error, ssl.SSLCertVerificationError) or _is_of(error, "requests.exceptions", ("SSLError",)):
        return False
    if getattr(error, "error_code", None) in MLFLOW_TROUBLE:
        # MLflow says so of what it did not understand itself, too: what it was raised from knows more.
        return is_passing(error.__cause__ or error.__context__) or _cannot_be_reached(error)
    if isinstance(
        error, ConnectionError | TimeoutError | urllib.error.URLError | http.client.HTTPException | ssl.SSLError
    ):
        return True
    if any(_is_of(error, module, names) for module, names in NO_ANSWER.items()):
        return True
    if isinstance(error, OSError) and (error.errno in PASSING_ERRNO or type(error).__name__ == "gaierror"):
        return True
    return None


def _cannot_be_reached(error: BaseException) -> bool:
    return "API request to" in str(error) or "failed with exception" in str(error)


def _status(error: BaseException) -> int | None:
    """The HTTP status that ``error`` tells of, if there was an answer."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code
    if callable(ask := getattr(error, "get_http_status_code", None)) and type(error).__name__ == "RestException":
        return int(ask())
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    status = getattr(response, "status_code", None)
    return status if isinstance(status, int) else None


def _is_of(error: BaseException, module: str, names: tuple[str, ...]) -> bool:
    there = sys.modules.get(module)
    return there is not None and isinstance(
        error, tuple(getattr(there, name) for name in names if hasattr(there, name))
    )


@contextmanager
def patience(seconds: float | None = None) -> Iterator[Callable[[], None]]:
    """Let everything in the block that asks a server wait for it so long, and not fail at once.

    Args:
        seconds: For each request; :data:`OUTAGE_SECONDS` unless it is given.

    Yields:
        A function that lets the rest of the block wait for :data:`OUTAGE_SECONDS`.
    """
    token = _patience.set(OUTAGE_SECONDS if seconds is None else seconds)
    try:
        yield lambda: (_patience.set(OUTAGE_SECONDS), None)[1]
    finally:
        _patience.reset(token)


def patiently(call: Callable[[], Answer], what: str) -> Answer:
    """What ``call`` returns, tried again for as long as :func:`patience` says while its errors may pass.

    Args:
        call: May be called many times.
        what: Whom it asks, for the log.
    """
    deadline, wait = time.monotonic() + _patience.get(), FIRST_WAIT_SECONDS
    while True:
        try:
            return call()
        except Exception as error:
            if time.monotonic() + wait > deadline or not is_passing(error):
                raise
            log.warning("%s does not answer (%s): asking again in %.0f s", what, in_one_line(error), wait)
        time.sleep(wait)
        wait = min(2 * wait, LONGEST_WAIT_SECONDS)
