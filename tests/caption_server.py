"""A server that speaks OpenAI's chat completions, on loopback, and can be in trouble."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cv2
import numpy as np

MODEL = "a-vision-model"


class CaptionServer(ThreadingHTTPServer):
    """Says the mean colour of each image that it is sent.

    Attributes:
        requests: bodies of what it was asked.
        keys: of those who asked.
        troubles: statuses to answer with first, one a request.
        refused: images, by their mean colours, that it answers 400 to.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.troubles: list[int] = []
        self.refused: set[str] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: CaptionServer

    def do_GET(self) -> None:
        self._answer(200, {"data": [{"id": MODEL}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(body)
        self.server.keys.append(self.headers.get("Authorization"))
        if self.server.troubles:
            self._answer(self.server.troubles.pop(), {"error": "in trouble"})
            return
        text = f"a picture of {colour_of(body['messages'][0]['content'][1]['image_url']['url'])}"
        if text.rpartition(" ")[2] in self.server.refused:
            self._answer(400, {"error": "not this one"})
            return
        choice = {"message": {"role": "assistant", "content": f" {text}\n"}}
        self._answer(200, {"choices": [choice], "usage": {"total_tokens": 7}})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if status == 429:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def colour_of(url: str) -> str:
    """Return the mean colour of an image in a data URL, as ``#rrggbb``."""
    head, _, data = url.partition(",")
    assert head == "data:image/jpeg;base64"
    image = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR_RGB)
    return "#" + bytes(image.mean(axis=(0, 1)).round().astype(np.uint8)).hex()


@contextmanager
def serving() -> Iterator[CaptionServer]:
    """Run a server while the block runs."""
    server = CaptionServer()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
