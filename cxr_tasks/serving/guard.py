"""What stands before the application: who may ask, how much, and how many at once; and what is counted of calls."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cxr_tasks.serving.call_metrics import CallMetrics

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

# What is asked by those who watch the server. Who does not name the token learns nothing but whether it works.
OPEN_PATHS = ("/live", "/ready", "/ping", "/health")
COUNTED = ("/invocations", "/image")
# Where the application reads, in a call's scope, whether the caller may know more.
MAY_KNOW = "cxr.may_know"
SERVER_FAILED = "The server failed: its log says why."
AGAIN = [(b"retry-after", b"1")]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CallLimits:
    """What is taken at most.

    Attributes:
        body_bytes: Of one call.
        images: Of one call.
        pixels: Of one image. A model whose training took fewer refuses more than those.
        calls: That are worked on at once; more are told to come again.
        bodies_bytes: Of all calls together that are worked on; more are told to come again.
        explanations: Calls with Grad-CAM that are worked on at once or wait for that.
        body_seconds: That the body of a call may take to arrive.
    """

    body_bytes: int = 64 * 2**20
    images: int = 256
    pixels: int = 50_000_000
    calls: int = 128
    bodies_bytes: int = 256 * 2**20
    explanations: int = 8
    body_seconds: float = 60.0


class RefusedCallError(Exception):
    """A call that is not answered. ``status``: of HTTP. ``headers``: of the answer."""

    def __init__(self, status: int, sentence: str, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        """Note the status of HTTP, what the caller is told, and headers."""
        super().__init__(sentence)
        self.status, self.headers = status, headers or []


class Guard:
    """An ASGI application around another one. It answers in its place where a call is not allowed.

    Attributes:
        calls: That are worked on.
        held_bytes: Of the bodies of these calls.
    """

    def __init__(self, application: Application, limits: CallLimits, token: str, metrics: CallMetrics) -> None:
        """Stand before ``application``; an empty ``token`` lets everybody ask."""
        self.application, self.limits, self.token, self.metrics = application, limits, token, metrics
        self.calls, self.held_bytes = 0, 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one call, and count it."""
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        begun, status = time.perf_counter(), 0

        async def tell(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            with self.metrics.at_work.track_inprogress():
                await self._answer(scope, receive, tell)
        except RefusedCallError as refusal:
            await refuse(tell, refusal)
        except Exception:
            # What the application has answered, it has logged.
            if not status:
                log.exception("%s %s failed", scope["method"], scope["path"])
                await refuse(tell, RefusedCallError(500, SERVER_FAILED))
        path = scope["path"] if scope["path"] in COUNTED else "other"
        self.metrics.calls.labels(path, status).inc()
        self.metrics.seconds.labels(path).observe(time.perf_counter() - begun)

    async def _answer(self, scope: Message, receive: Receive, send: Send) -> None:
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        known = not self.token or self._is_known(headers.get(b"authorization", ""))
        if not known and scope["path"] not in OPEN_PATHS:
            realm = b'Basic realm="any name, and the token as password", charset="UTF-8"'
            told = "Name the token: Authorization: Bearer TOKEN, or as a password."
            raise RefusedCallError(401, told, [(b"www-authenticate", realm)])
        scope[MAY_KNOW] = known
        length = headers.get(b"content-length", "")
        if length.isdigit() and int(length) > self.limits.body_bytes:
            raise self._too_large
        if scope["method"] != "POST":
            await self.application(scope, receive, send)
            return
        if self.calls >= self.limits.calls:
            raise RefusedCallError(503, f"{self.calls} calls are worked on: ask again.", AGAIN)
        self.calls += 1
        body = _Body(self)
        try:
            await asyncio.wait_for(body.read(receive), self.limits.body_seconds)
            await self.application(scope, body.giving(receive), send)
        except TimeoutError:
            if body.is_whole:
                raise
            told = f"The call did not arrive within {self.limits.body_seconds:g} seconds."
            raise RefusedCallError(408, told) from None
        finally:
            self.calls -= 1
            body.let_go()

    @property
    def _too_large(self) -> RefusedCallError:
        told = f"The call has more than {self.limits.body_bytes / 2**20:g} MiB: send fewer images at once."
        return RefusedCallError(413, told)

    def _is_known(self, authorization: str) -> bool:
        kind, _, given = authorization.partition(" ")
        if kind.lower() == "basic":
            try:
                given = base64.b64decode(given).decode().partition(":")[2]
            except (binascii.Error, ValueError):
                return False
        elif kind.lower() != "bearer":
            return False
        return secrets.compare_digest(given.strip().encode(), self.token.encode())

    def hold(self, length: int, more: int) -> None:
        """Count ``more`` bytes of a body that had ``length``. A caller need not say the length, nor the true one.

        Raises:
            RefusedCallError: The body is too long, or there are too many bodies.
        """
        if length + more > self.limits.body_bytes:
            raise self._too_large
        if self.held_bytes + more > max(self.limits.bodies_bytes, self.limits.body_bytes):
            raise RefusedCallError(503, "Other calls take all the memory that there is for them: ask again.", AGAIN)
        self.held_bytes += more


class _Body:
    """What arrives of a call."""

    def __init__(self, guard: Guard) -> None:
        self._guard, self._length, self.is_whole = guard, 0, False
        self._parts: list[bytes] | None = None

    async def read(self, receive: Receive) -> None:
        parts, more = [], True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise RefusedCallError(400, "The call was broken off.")
            part = message.get("body", b"")
            self._guard.hold(self._length, len(part))
            parts.append(part)
            self._length += len(part)
            more = message.get("more_body", False)
        self._parts, self.is_whole = parts, True

    def giving(self, receive: Receive) -> Receive:
        """A ``receive`` that gives the body once, and keeps nothing of it."""

        async def give() -> Message:
            if self._parts is None:
                return await receive()
            body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._parts = None
            return {"type": "http.request", "body": body, "more_body": False}

        return give

    def let_go(self) -> None:
        self._guard.held_bytes -= self._length


async def refuse(send: Send, refusal: RefusedCallError) -> None:
    """Answer with a status and a sentence, as JSON."""
    body = json.dumps({"error": str(refusal)}).encode()
    told = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    # What was not read of the call would otherwise be taken for the next one.
    told.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refusal.status, "headers": told + refusal.headers})
    await send({"type": "http.response.body", "body": body})
