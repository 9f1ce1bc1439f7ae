"""Requests to an OpenAI-compatible endpoint, several at once, patiently."""

import base64
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests
import simplejpeg
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from captioning.base import Image
from captioning.endpoint import API_KEY, EndpointSpec
from captioning.errors import CaptionError

_QUALITY = 95  # of the JPEG that the model is sent
_BUSY = (408, 409, 425, 429, 500, 502, 503, 504)
_OF_THE_IMAGE = (400, 413, 415, 422)
_SHOWN = 200  # characters of an answer, in a message
_ASKED = 10.0  # seconds for the list of models


class Endpoint:
    """Asks for a text for each image; safe in several threads."""

    def __init__(self, spec: EndpointSpec) -> None:
        """Prepare the requests of a spec; none is made yet."""
        self._spec = spec
        self._session = _session(spec.batch_size, spec.max_retries)
        self._pace = _Pace(spec.requests_per_minute)
        self._pool = ThreadPoolExecutor(spec.batch_size)
        self._lock = threading.Lock()
        self._paid: dict[str, str] = {}
        self.tokens = 0
        """Tokens of prompts and answers that the endpoint counted so far."""

    def prepare(self, image: Image) -> str:
        """Return one image, uint8 RGB (h, w, 3), as the URL of a JPEG."""
        jpeg = simplejpeg.encode_jpeg(image, _QUALITY, "RGB", "444")
        return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"

    def __call__(self, prepared: Sequence[str]) -> list[str]:
        """Return a text for each prepared image, in order, uncleaned.

        Raises:
            CaptionError: the endpoint refuses an image, or says nothing of it. What it said of the
                others is kept, so that asking again for these costs nothing.
            ConnectionError: it cannot be had, or its answer is none: it says nothing of the image.
        """
        futures = [self._pool.submit(self._text, image) for image in prepared]
        errors = [error for one in futures if (error := one.exception()) is not None]
        if errors:  # what is of the place goes before what is of an image
            raise min(errors, key=lambda error: isinstance(error, CaptionError))
        with self._lock:
            for image in prepared:
                self._paid.pop(image, None)
        return [one.result() for one in futures]

    def _text(self, image: str) -> str:
        with self._lock:
            if image in self._paid:
                return self._paid[image]
        text = self._ask(image)
        with self._lock:
            self._paid[image] = text
        return text

    def _ask(self, image: str) -> str:
        spec = self._spec
        content = [
            {"type": "text", "text": spec.prompt},
            {"type": "image_url", "image_url": {"url": image}},
        ]
        self._pace.wait()
        answer = _request(
            self._session,
            "POST",
            f"{spec.url}/chat/completions",
            timeout=spec.timeout,
            json={
                "model": spec.model,
                "messages": [{"role": "user", "content": content}],
                "max_tokens": spec.max_tokens,
                "temperature": spec.temperature,
            },
        )
        try:
            said = answer["choices"][0]["message"]
            used = int((answer.get("usage") or {}).get("total_tokens") or 0)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise ConnectionError(
                f"{spec.url} answers with no completion: {str(answer)[:_SHOWN]}"
            ) from error
        with self._lock:
            self.tokens += used
        text = said.get("content")
        if not isinstance(text, str):
            raise CaptionError(f"the model refuses the image: {said.get('refusal') or said}")
        return text


def why_not(spec: EndpointSpec) -> str | None:
    """Return why the endpoint of a spec cannot be used, in words; None where it can."""
    try:
        answer = _request(_session(1, 0), "GET", f"{spec.url}/models", timeout=_ASKED)
        names = [str(one["id"]) for one in answer["data"]]
    except (ConnectionError, CaptionError) as error:
        return str(error)
    except (KeyError, TypeError):
        return None  # not all have the list
    if spec.model in names:
        return None
    return f"{spec.url} has no model {spec.model!r}, it has {', '.join(names) or 'none'}"


def _session(connections: int, retries: int) -> requests.Session:
    retry = Retry(
        total=retries,
        backoff_factor=1,
        backoff_jitter=0.5,
        status_forcelist=_BUSY,
        allowed_methods=None,  # a question changes nothing, however often it is asked
        raise_on_status=False,
    )
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=connections, max_retries=retry))
    if key := os.environ.get(API_KEY):
        session.headers["Authorization"] = f"Bearer {key}"
    return session


def _request(session: requests.Session, method: str, url: str, **options: Any) -> Any:
    """Return the JSON of an answer.

    Raises:
        ConnectionError: the endpoint cannot be had, or does not let us in.
        CaptionError: it refuses what it was sent.
    """
    try:
        answer = session.request(method, url, **options)
    except requests.RequestException as error:
        raise ConnectionError(f"{url} cannot be reached: {error}") from None
    if answer.ok:
        try:
            return answer.json()
        except requests.JSONDecodeError:
            raise ConnectionError(f"{url} answers with no JSON: {answer.text[:_SHOWN]}") from None
    message = f"{url} answers {answer.status_code}: {answer.text[:_SHOWN]}"
    if answer.status_code in _OF_THE_IMAGE:
        raise CaptionError(message)
    if answer.status_code in (401, 403):
        message += f"; the key is taken from {API_KEY}"
    raise ConnectionError(message)


class _Pace:
    """Lets no more than so many begin in a minute, evenly."""

    def __init__(self, per_minute: float | None) -> None:
        self._each = 60 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Wait for one's turn."""
        if not self._each:
            return
        with self._lock:
            at = max(self._next, time.monotonic())
            self._next = at + self._each
        time.sleep(max(at - time.monotonic(), 0))
