"""Where a server may listen, and servers in trouble: a proxy that keeps a real one from answering, one that answers
with any status, and one that is busy now and then."""

from __future__ import annotations

import http.client
import queue
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil


class Proxy:
    """A server on loopback that hands on to another one, until it is told not to.

    Attributes:
        address: Where it listens, also after it refused connections for a while.
        delay: Seconds before anything is handed on.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.removeprefix("http://").partition(":")
        self.target = (host, int(port))
        self.delay = 0.0
        self.flows = threading.Event()
        self.flows.set()
        self.open: list[socket.socket] = []
        self._listen(0)
        self.port = self.listener.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"

    def leave(self, how: str) -> None:
        """Be away: ``refused``, ``silent`` or ``slow``."""
        if how == "slow":
            self.delay = 0.8
        else:
            self.flows.clear()
        if how == "refused":
            self.close()

    def come_back(self) -> None:
        """Hand on again."""
        self.delay = 0.0
        self.flows.set()
        if self.listener.fileno() < 0:
            self._listen(self.port)

    def close(self) -> None:
        """Refuse connections, and break off those that there are."""
        for each in (self.listener, *self.open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self.open = []

    def _listen(self, port: int) -> None:
        self.listener = socket.create_server(("127.0.0.1", port), reuse_port=False)
        threading.Thread(target=self._accept, args=[self.listener], daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near = listener.accept()[0]
                far = socket.create_connection(self.target)
            except OSError:
                return
            self.open += [near, far]
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=[source, target, source is near], daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, is_request: bool) -> None:
        with suppress(OSError):
            while chunk := source.recv(65536):
                self.flows.wait()
                if is_request:
                    time.sleep(self.delay)
                target.sendall(chunk)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server whose requests ``handler`` answers, each in a thread of its own."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def answering(status: int, body: bytes = b"") -> Iterator[str]:
    """The address of a server that answers every request so."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with serving(Handler) as address:
        yield address


class BusyS3:
    """A server before an S3 server that hands on to it, and refuses what it is told to.

    Attributes:
        address: Where it listens.
        each: Of the requests that write each n-th one is refused, because the server is busy; 0: none.
        refused: How many requests were refused.
    """

    def __init__(self, target: str) -> None:
        self.each = self.refused = self._written = 0
        self._target, self._counting = target.removeprefix("http://"), threading.Lock()

    @contextmanager
    def listening(self) -> Iterator[str]:
        """The address."""
        busy = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, headers, content = busy._ask(self.command, self.path, dict(self.headers), body)
                self.send_response_only(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        with serving(Handler) as address:
            yield address

    def _ask(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        with self._counting:
            self._written += method == "PUT" and self.each > 0
            is_refused = method == "PUT" and self.each > 0 and self._written % self.each == 0
            self.refused += is_refused
        if is_refused:
            content = b"<Error><Code>SlowDown</Code><Message>Not now.</Message></Error>"
            return 503, {"Content-Type": "application/xml", "Content-Length": str(len(content))}, content
        with closing(http.client.HTTPConnection(self._target, timeout=60)) as server:
            server.request(method, path, body, headers)
            answer = server.getresponse()
            told = {name: value for name, value in answer.getheaders() if name.lower() not in ("connection", "server")}
            return answer.status, told, answer.read()


@contextmanager
def listening() -> Iterator[tuple[str, queue.Queue[tuple[str, bytes]]]]:
    """The address of a server that takes everything, and what it was sent: paths and bodies."""
    said: queue.Queue[tuple[str, bytes]] = queue.Queue()

    class Ear(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            said.put((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with serving(Ear) as address:
        yield address, said


def free_port() -> int:
    """A port of loopback that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def arguments_of(processes: Iterable[psutil.Process]) -> dict[int, str]:
    """The arguments of those processes that go on, as everybody on the machine can read them, by number."""
    told = {}
    for process in processes:
        # What has just ended may still be listed.
        with suppress(psutil.NoSuchProcess):
            told[process.pid] = " ".join(process.cmdline())
    return {number: text for number, text in told.items() if text}
