"""open_nsfw: what its own preparation of a picture gives."""

import io

import numpy as np
import pytest
from PIL import Image as PILImage

from catalog.images import decode_image
from detectors.base import Image
from detectors.graph import Graph
from detectors.nsfw import NsfwNetwork
from tests.photographs import photographs
from tests.weights import need_file


@pytest.fixture(scope="module")
def graph() -> Graph:
    need_file("open_nsfw")
    return Graph([], more=[NsfwNetwork()])


def scores(graph: Graph, images: list[Image]) -> list[float]:
    return [found[NsfwNetwork()] for found in graph.run(images)]


def test_photographs_score_low_and_as_in_the_original_pipeline(graph: Graph) -> None:
    import cv2

    network = cv2.dnn.readNetFromONNX(str(need_file("open_nsfw")))
    images = [decode_image(path.read_bytes()) for path in photographs()[::9]]
    found = scores(graph, images)
    for image, score in zip(images, found, strict=True):
        network.setInput(_as_caffe(image))
        assert score == pytest.approx(float(network.forward()[0, 1]), abs=1e-4)
    assert np.median(found) < 0.05


def _as_caffe(image: Image) -> np.ndarray:
    """Prepare as classify_nsfw.py does: bilinear to 256, JPEG, the middle 224, BGR less a mean."""
    buffer = io.BytesIO()
    small = PILImage.fromarray(image).resize((256, 256), PILImage.Resampling.BILINEAR)
    small.save(buffer, "JPEG")
    seen = np.asarray(PILImage.open(buffer), np.float32)[16:240, 16:240, ::-1]
    return np.ascontiguousarray(seen - np.array([104, 117, 123], np.float32))[None]


def test_skin_scores_higher_than_the_same_in_blue(graph: Graph) -> None:
    """The channels' order: a mix-up would give the blue picture the score of the skin."""
    pixels = np.zeros((300, 300, 3), np.uint8)
    pixels[:] = (224, 172, 140)
    pixels[100:200, 50:250] = (200, 130, 110)
    skin, blue = scores(graph, [pixels, np.ascontiguousarray(pixels[:, :, ::-1])])
    assert skin > blue


@pytest.mark.parametrize("shape", [(1, 1), (17, 900), (600, 600)])
def test_any_shape_gives_a_score_and_batches_do_not_matter(
    graph: Graph, shape: tuple[int, int]
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    (alone,) = scores(graph, [image])
    assert 0 <= alone <= 1
    assert scores(graph, [image, image]) == [alone, alone]
