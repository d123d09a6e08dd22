"""A proxy before an S3 server that spoils answers: what S3 does when it is busy, broken, slow or cut off."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

ERROR = b"<Error><Code>%s</Code><Message>Not now.</Message></Error>"
SLOW_SECONDS = 4.0
HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive", "content-length"}


class S3InTrouble:
    """Hands on to an S3 server, unless it is told how to be in trouble.

    Attributes:
        address: Where it listens.
        trouble: ``""``, ``500``, ``503``, ``slow`` or ``half``: half of each answer's body, or no answer to what was
            written.
        share: Of the requests each n-th one is spoiled.
        method: Of the requests that are spoiled; ``""``: of any.
        spoiled: How many requests were spoiled, by trouble.
    """

    def __init__(self, target: str) -> None:
        """Listen. ``target``: the address of the server."""
        self.trouble, self.share, self.method, self.spoiled = "", 1, "", Counter[str]()
        self._asked, self._counting = 0, threading.Lock()
        self._target = urlsplit(target).netloc
        trouble = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def hand_on(self) -> None:
                trouble.answer(self)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = hand_on

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()

    def answer(self, asked: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        body, trouble = _body(asked), self._next_trouble(asked.command)
        with suppress(ConnectionError, TimeoutError):
            if trouble in ("500", "503"):
                code = b"InternalError" if trouble == "500" else b"SlowDown"
                _send(asked, int(trouble), {"Content-Type": "application/xml"}, ERROR % code)
                return
            if trouble == "slow":
                time.sleep(SLOW_SECONDS)
            status, headers, content = self._ask(asked, body)
            if trouble == "half":
                _send(asked, status, headers, content[: len(content) // 2], told=len(content))
                # What was written has been written, and the writer does not hear of it.
                asked.connection.shutdown(socket.SHUT_RDWR)
                asked.close_connection = True
                return
            _send(asked, status, headers, content)

    def _next_trouble(self, method: str) -> str:
        with self._counting:
            self._asked += self.method in ("", method)
            is_spoiled = self.method in ("", method) and self._asked % self.share == 0
            trouble = self.trouble if is_spoiled else ""
            self.spoiled[trouble] += 1
        return trouble

    def _ask(self, asked: BaseHTTPRequestHandler, body: bytes) -> tuple[int, dict[str, str], bytes]:
        server = http.client.HTTPConnection(self._target, timeout=60)
        try:
            headers = {name: value for name, value in asked.headers.items() if name.lower() not in HOP_BY_HOP}
            server.request(asked.command, asked.path, body, {**headers, "Content-Length": str(len(body))})
            answered = server.getresponse()
            told = {name: value for name, value in answered.getheaders() if name.lower() not in HOP_BY_HOP}
            if asked.command == "HEAD":
                told["Content-Length"] = answered.getheader("Content-Length", "0")
            return answered.status, told, answered.read()
        finally:
            server.close()


def _body(asked: BaseHTTPRequestHandler) -> bytes:
    if asked.headers.get("Transfer-Encoding", "").lower() != "chunked":
        return asked.rfile.read(int(asked.headers.get("Content-Length") or 0))
    body = b""
    while size := int(asked.rfile.readline().split(b";")[0], 16):
        body += asked.rfile.read(size)
        asked.rfile.readline()
    asked.rfile.readline()
    return body


def _send(
    asked: BaseHTTPRequestHandler, status: int, headers: dict[str, str], content: bytes, told: int | None = None
) -> None:
    asked.send_response_only(status)
    for name, value in headers.items():
        asked.send_header(name, value)
    if "Content-Length" not in headers:
        asked.send_header("Content-Length", str(len(content) if told is None else told))
    asked.end_headers()
    if asked.command != "HEAD":
        asked.wfile.write(content)
        asked.wfile.flush()
