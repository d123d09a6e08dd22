"""What stands before the application: who may ask, how much, and how many at once."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

# What tells nothing but whether the server works, and is asked by those who watch it.
OPEN_PATHS = ("/live", "/ready", "/ping", "/health")


@dataclass(frozen=True)
class CallLimits:
    """What is taken at most.

    Attributes:
        body_bytes: Of one call.
        images: Of one call.
        pixels: Of one image. A model whose training took fewer refuses more than those.
        calls: That are worked on at once; more are told to come again.
        body_seconds: That the body of a call may take to arrive.
    """

    body_bytes: int = 64 * 2**20
    images: int = 256
    pixels: int = 50_000_000
    calls: int = 128
    body_seconds: float = 60.0


class Guard:
    """An ASGI application around another one. It answers in its place where a call is not allowed."""

    def __init__(self, application: Application, limits: CallLimits, token: str) -> None:
        """Stand before ``application``; an empty ``token`` lets everybody ask."""
        self.application, self.limits, self.token = application, limits, token
        self.calls = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one call."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self.application(scope, receive, send)
            return
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if self.token and not self._is_known(headers.get(b"authorization", "")):
            more = [(b"www-authenticate", b'Basic realm="any name, and the token as password", charset="UTF-8"')]
            await _refuse(send, 401, "Name the token: Authorization: Bearer TOKEN, or as a password.", more)
            return
        length = headers.get(b"content-length", "")
        if length.isdigit() and int(length) > self.limits.body_bytes:
            await _refuse(send, 413, self._too_large)
            return
        if scope["method"] != "POST":
            await self.application(scope, receive, send)
            return
        if self.calls >= self.limits.calls:
            await _refuse(send, 503, f"{self.calls} calls are worked on: ask again.", [(b"retry-after", b"1")])
            return
        self.calls += 1
        try:
            try:
                body = await asyncio.wait_for(self._body(receive), self.limits.body_seconds)
            except TimeoutError:
                await _refuse(send, 408, f"The call did not arrive within {self.limits.body_seconds:g} seconds.")
                return
            if body is None:
                await _refuse(send, 413, self._too_large)
                return
            await self.application(scope, _giving(body, receive), send)
        finally:
            self.calls -= 1

    @property
    def _too_large(self) -> str:
        return f"The call has more than {self.limits.body_bytes / 2**20:g} MiB: send fewer images at once."

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

    async def _body(self, receive: Receive) -> bytes | None:
        """The whole body, or ``None`` where it is too long: a caller need not say its length, nor the true one."""
        parts, length, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                break
            parts.append(message.get("body", b""))
            length += len(parts[-1])
            more = message.get("more_body", False)
            if length > self.limits.body_bytes:
                return None
        return b"".join(parts)


def _giving(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that gives ``body`` once."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def give() -> Message:
        return messages.pop() if messages else await receive()

    return give


async def _refuse(send: Send, status: int, sentence: str, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    body = json.dumps({"error": sentence}).encode()
    told = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    # What was not read of the call would otherwise be taken for the next one.
    told.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": told + (headers or [])})
    await send({"type": "http.response.body", "body": body})
