"""Captions by an endpoint: what it is asked, its troubles, and whose fault they are."""

import pickle
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from captioning.base import Caption, Image
from captioning.endpoint import EndpointSpec
from captioning.endpoint_client import Endpoint, why_not
from captioning.errors import CaptionError
from catalog.errors import of_the_place
from tests.caption_server import MODEL, CaptionServer, serving

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture
def server() -> Iterator[CaptionServer]:
    with serving() as running:
        yield running


def spec(server: CaptionServer | None = None, captioner: Any = "endpoint", **more: Any) -> Any:
    given = {"model": MODEL, "batch_size": 4, **more}
    if server is not None:
        given["url"] = server.url
    return EndpointSpec(captioner=captioner, **given)


def plain(*colour: int) -> Image:
    return np.full((32, 48, 3), colour, np.uint8)


PICTURES = [plain(200, 10, 10), plain(10, 200, 10), plain(10, 10, 200), plain(90, 90, 90)]


def asked(network: Endpoint, pictures: list[Image]) -> list[str]:
    return network([network.prepare(picture) for picture in pictures])


def test_each_image_gets_its_own_text(server: CaptionServer) -> None:
    network = Endpoint(spec(server, prompt="What is it?", max_tokens=9, temperature=0.5))
    texts = asked(network, PICTURES)
    assert [text.strip()[:15] for text in texts] == ["a picture of #c", *["a picture of #0"] * 2,
                                                     "a picture of #5"]  # fmt: skip
    assert len(set(texts)) == 4
    assert network.tokens == 4 * 7
    body = server.requests[0]
    assert (body["model"], body["max_tokens"], body["temperature"]) == (MODEL, 9, 0.5)
    assert body["messages"][0]["content"][0] == {"type": "text", "text": "What is it?"}


def test_the_key_is_the_environments(
    server: CaptionServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked(Endpoint(spec(server)), PICTURES[:1])
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    asked(Endpoint(spec(server)), PICTURES[:1])
    assert server.keys == [None, "Bearer secret"]


def test_a_busy_endpoint_is_asked_again(server: CaptionServer) -> None:
    server.troubles = [429, 503, 500]
    assert len(asked(Endpoint(spec(server)), PICTURES)) == 4
    assert len(server.requests) == 7


@pytest.mark.parametrize(("status", "said"), [(500, "500"), (401, "OPENAI_API_KEY"), (404, "404")])
def test_what_the_endpoint_cannot_do_says_nothing_of_an_image(
    server: CaptionServer, status: int, said: str
) -> None:
    server.troubles = [status] * 9
    with pytest.raises(ConnectionError, match=said) as caught:
        asked(Endpoint(spec(server, max_retries=1)), PICTURES[:1])
    assert of_the_place(caught.value)


def test_a_refused_image_costs_the_others_nothing(server: CaptionServer) -> None:
    network = Endpoint(spec(server))
    server.refused = {asked(network, PICTURES[1:2])[0].strip().rpartition(" ")[2]}
    server.requests.clear()
    with pytest.raises(CaptionError, match="not this one") as caught:
        asked(network, PICTURES)
    assert not of_the_place(caught.value)
    alone = [asked(network, [picture]) for picture in (PICTURES[0], *PICTURES[2:])]
    assert len(server.requests) == 4  # each once, although they were asked for again
    assert all(text for (text,) in alone)


def test_no_more_than_so_many_a_minute(server: CaptionServer) -> None:
    network = Endpoint(spec(server, requests_per_minute=600))
    start = time.monotonic()
    asked(network, PICTURES)
    assert time.monotonic() - start >= 0.3


def test_an_endpoint_that_is_away_or_has_another_model_is_told(server: CaptionServer) -> None:
    assert why_not(spec(server)) is None
    assert "has no model 'other', it has a-vision-model" in str(
        why_not(spec(server, model="other"))
    )
    assert "cannot be reached" in str(why_not(spec(url="http://127.0.0.1:9/v1")))


@pytest.mark.parametrize(
    ("captioner", "found", "generated", "chosen"),
    [
        ("endpoint", "s", " a\ndog ", Caption(text="a dog", source="endpoint")),
        ("endpoint", "s", " \n", None),
        ("sidecar_or_endpoint", " s ", None, Caption(text="s", source="sidecar", sidecar="s")),
        ("sidecar_or_endpoint", None, "e", Caption(text="e", source="endpoint")),
        (
            "endpoint_with_sidecar_kept",
            "s",
            "e",
            Caption(text="e", source="endpoint", sidecar="s"),
        ),
    ],
)
def test_the_caption_is_chosen_by_source(
    captioner: str, found: str | None, generated: str | None, chosen: Caption | None
) -> None:
    made = spec(captioner=captioner)
    assert made.wants(found) is (generated is not None)
    assert made.choose(found, generated) == chosen


def test_where_and_how_fast_it_is_asked_is_no_part_of_the_identity() -> None:
    other = spec(url="https://elsewhere.example/v1/", batch_size=1, requests_per_minute=3)
    assert other.identity == spec().identity
    for field, value in (
        ("model", "m"), ("prompt", "p"), ("max_tokens", 3), ("temperature", 1), ("revision", "r"),
    ):  # fmt: skip
        assert spec(**{field: value}).network_identity != spec().network_identity
    assert spec(captioner="sidecar_or_endpoint").network_identity == spec().network_identity
    assert spec(captioner="sidecar_or_endpoint").identity != spec().identity


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"url": "localhost:8000"}, "no http or https URL"),
        ({"url": "https://me:secret@x.example/v1"}, "OPENAI_API_KEY"),
        ({"url": "https://x.example/v1?key=1"}, "OPENAI_API_KEY"),
        ({"prompt": ""}, "prompt"),
        ({"model": ""}, "model"),
    ],
)
def test_a_wrong_spec_says_what_is_wrong(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        spec(**fields)


def test_specs_travel() -> None:
    assert pickle.loads(pickle.dumps(spec())) == spec()
