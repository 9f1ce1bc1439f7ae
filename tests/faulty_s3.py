"""A proxy before an S3 server that answers some requests with trouble, by a fixed turn."""

import http.client
import socket
import struct
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, TypeAlias

Trouble: TypeAlias = Literal["409", "412", "500", "503", "reset", "slow", "lost answer"]

_CODES = {
    "409": "ConditionalRequestConflict",
    "412": "PreconditionFailed",
    "500": "InternalError",
    "503": "SlowDown",
}

SECONDS = 0.3  # that a slow answer takes longer


class FaultyS3(ThreadingHTTPServer):
    """Forwards to `target`; every `each`-th request meets the next of the troubles instead.

    ``lost answer`` forwards the request and then cuts the line, so that the client asks again for
    what has been done already.
    """

    daemon_threads = True

    def __init__(self, target: tuple[str, int], troubles: tuple[Trouble, ...], each: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = target
        self.met: Counter[str] = Counter()
        self._troubles = troubles
        self._each = each
        self._asked = 0
        self._lock = threading.Lock()

    def next_trouble(self) -> str:
        """Return what the next request meets; empty for nothing."""
        with self._lock:
            self._asked += 1
            turn, rest = divmod(self._asked, self._each)
            trouble = "" if rest else self._troubles[turn % len(self._troubles)]
            self.met[trouble] += 1
        return trouble

    def handle_error(self, *_: Any) -> None:
        """Say nothing of lines that we cut."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyS3

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        trouble = self.server.next_trouble()
        if trouble == "reset":
            self._cut()
            return
        if trouble in _CODES:
            answer = f"<Error><Code>{_CODES[trouble]}</Code></Error>"
            self._answer(int(trouble), {}, answer.encode())
            return
        if trouble == "slow":
            time.sleep(SECONDS)
        upstream = http.client.HTTPConnection(*self.server.target)
        upstream.request(self.command, self.path, body, dict(self.headers.items()))
        answered = upstream.getresponse()
        data = answered.read()
        upstream.close()
        if trouble == "lost answer":
            self._cut()
            return
        self._answer(answered.status, dict(answered.getheaders()), data)

    def _answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _cut(self) -> None:
        """Close with a TCP reset."""
        at_once = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        self.connection.close()
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Say nothing of each request."""

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _forward
