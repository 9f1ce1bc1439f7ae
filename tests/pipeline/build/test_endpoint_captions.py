"""A build whose captions come from an endpoint: asked once an image, and in trouble."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from catalog.dataset.dataset import Dataset
from pipeline.build.build import BuildResult
from pipeline.errors import BuildError, UsageError
from pipeline.recipe.recipe import Recipe, load_recipe
from tests.caption_server import MODEL, CaptionServer, serving
from tests.rules import ANY_LOOK

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

Make = Callable[..., BuildResult]


@pytest.fixture
def server() -> Iterator[CaptionServer]:
    with serving() as running:
        yield running


def recipe_of(server: CaptionServer, *more: str) -> Recipe:
    captions = {
        "captioner": "sidecar_or_endpoint",
        "url": server.url,
        "model": MODEL,
        "batch_size": 2,
        "max_retries": 1,
    }
    small = ["image.resolution=64", "samples_per_unit=3", *ANY_LOOK]
    return load_recipe("canny", [*small, f"captions={json.dumps(captions)}", *more])


def test_images_without_a_text_are_asked_for_once(
    pictures: Path, tmp_path: Path, make: Make, server: CaptionServer
) -> None:
    make(pictures, tmp_path / "d", recipe=recipe_of(server))
    view = Dataset.open(str(tmp_path / "d")).view()
    captions = [view.read(at).metadata["caption"] for at in range(len(view))]
    said = [one for one in captions if one["source"] == "endpoint"]
    assert len(said) == len(server.requests) == 3  # three pictures have no text beside them
    assert all(one["text"].startswith("a picture of #") for one in said)
    assert len({one["text"] for one in said}) == 3
    assert {one["source"] for one in captions} == {"endpoint", "sidecar"}
    (log,) = (tmp_path / "d" / "logs").glob("*.jsonl")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert max(event.get("caption_tokens", 0) for event in events) == 3 * 7
    make(pictures, tmp_path / "other", recipe=recipe_of(server, "detectors.0.low=60"))
    assert len(server.requests) == 3


def test_a_refused_image_is_a_row(
    pictures: Path, tmp_path: Path, make: Make, server: CaptionServer
) -> None:
    make(pictures, tmp_path / "d", recipe=recipe_of(server))
    view = Dataset.open(str(tmp_path / "d")).view()
    texts = [view.read(at).caption for at in range(len(view))]
    server.refused = {next(text for text in texts if "#" in text).rpartition(" ")[2]}
    make(pictures, tmp_path / "e", recipe=recipe_of(server, 'captions.prompt="Well?"'))
    rejects = Dataset.open(str(tmp_path / "e")).status().rejects
    assert rejects == {"failed:CaptionError": 1}


def test_an_endpoint_that_is_away_is_told_before_any_work(
    pictures: Path, tmp_path: Path, make: Make, server: CaptionServer
) -> None:
    away = recipe_of(server, "captions.url=http://127.0.0.1:9/v1")
    with pytest.raises(UsageError, match=r"(?s)3 of 10 images .* cannot be reached.*captions\.url"):
        make(pictures, tmp_path / "d", recipe=away)
    assert not (tmp_path / "d" / "plan.parquet").exists()


def test_an_endpoint_that_fails_costs_no_image(
    pictures: Path, tmp_path: Path, make: Make, server: CaptionServer
) -> None:
    server.troubles = [500] * 100
    with pytest.raises(BuildError, match="answers 500"):
        make(pictures, tmp_path / "d", recipe=recipe_of(server))
    server.troubles = []
    make(pictures, tmp_path / "d", recipe=recipe_of(server))
    assert Dataset.open(str(tmp_path / "d")).status().rejects == {}
    assert len(Dataset.open(str(tmp_path / "d")).view()) == 10
