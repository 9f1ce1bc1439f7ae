"""Canny: OpenCV's own edges at thresholds that are drawn, kept, and depend on the image alone."""

import pickle

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from catalog.images import decode_image
from detectors.base import Annotation, Image, generator_for
from detectors.canny import CannySpec
from detectors.graph import load
from tests.photographs import photographs


def noise(height: int, width: int, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def detect(spec: CannySpec, image: Image, sha256: str = "a", seed: int = 0) -> Annotation:
    made = spec.annotate(image, None, generator_for(sha256, spec.condition, seed))
    assert isinstance(made, Annotation)
    return made


@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 9))
def test_maps_keep_the_size_and_are_opencvs(height: int, width: int, seed: int) -> None:
    image = noise(height, width, seed)
    made = detect(CannySpec(), image, seed=seed)
    assert made.map.shape == (height, width)
    assert made.map.dtype == np.uint8
    assert set(np.unique(made.map)) <= {0, 255}
    drawn = made.parameters
    assert (made.map == cv2.Canny(image, drawn["low"], drawn["high"])).all()


@pytest.mark.parametrize("ends", [(0, 0), (1, 1), (100, 100), (0, 2040), (700, 700)])
def test_maps_are_opencvs_on_photographs_and_on_the_steepest_edges(ends: tuple[int, int]) -> None:
    spec = CannySpec(low=ends[0], gap=ends[1])
    pictures = [decode_image(path.read_bytes()) for path in photographs()[::9]]
    for image in (*pictures, noise(64, 96) // 128 * 255, np.zeros((40, 40, 3), np.uint8)):
        assert (detect(spec, image).map == cv2.Canny(image, ends[0], sum(ends))).all()


def test_draws_reach_both_ends_of_their_ranges_and_no_further() -> None:
    spec, image = CannySpec(low=(5, 8), gap=(1, 3)), noise(4, 4)
    drawn = [detect(spec, image, str(number)).parameters for number in range(200)]
    assert {one["low"] for one in drawn} == {5, 6, 7, 8}
    assert {one["high"] - one["low"] for one in drawn} == {1, 2, 3}


def test_a_number_fixes_a_threshold() -> None:
    drawn = {str(detect(CannySpec(low=80, gap=40), noise(4, 4), str(n)).parameters) for n in "abc"}
    assert drawn == {str({"low": 80, "high": 120})}


def test_draws_do_not_depend_on_order_or_company() -> None:
    detector = load(CannySpec(), "cpu")
    images = [noise(32, 32, number) for number in range(5)]

    def run(order: list[int]) -> dict[int, tuple[object, bytes]]:
        draws = [generator_for(str(number), "canny", 0) for number in order]
        made = detector([images[number] for number in order], draws)
        pairs = zip(order, made, strict=True)
        return {number: (one.parameters, one.map.tobytes()) for number, one in pairs}

    together = run([0, 1, 2, 3, 4])
    assert together == run([4, 2, 0, 1, 3])
    assert together[3] == run([3])[3]


def test_a_generator_is_named_by_image_condition_and_seed() -> None:
    def first(sha256: str, condition: str, seed: int) -> int:
        return int(generator_for(sha256, condition, seed).integers(2**62))

    keys = [("a", "canny", 0), ("b", "canny", 0), ("a", "hed", 0), ("a", "canny", 1)]
    assert len({first(*key) for key in keys}) == 4
    assert first(*keys[0]) == first(*keys[0])


@pytest.mark.parametrize("ends", [(0, 0), (2040, 2040)])
def test_thresholds_reach_every_gradient(ends: tuple[int, int]) -> None:
    made = detect(CannySpec(low=ends, gap=ends), noise(32, 32))
    assert made.map.any() == (ends == (0, 0))
    assert made.parameters == {"low": ends[0], "high": 2 * ends[0]}


def test_colour_edges_count() -> None:
    """Red beside a blue of the same grey: an edge to OpenCV on RGB, none on grey."""
    image = np.zeros((32, 32, 3), np.uint8)
    image[:, :16, 0], image[:, 16:, 2] = 57, 150
    spec = CannySpec(low=100, gap=100)
    assert detect(spec, image).map.any()
    assert not cv2.Canny(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), 100, 200).any()


def test_specs_travel_and_are_equal() -> None:
    spec = CannySpec(low=(1, 2))
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert hash(spec) == hash(CannySpec(low=(1, 2)))
    with pytest.raises(ValidationError, match="frozen"):
        spec.low = 3


@pytest.mark.parametrize(
    "fields",
    [
        {"low": (150, 50)}, {"low": -1}, {"low": 2041}, {"gap": 2041}, {"gap": (0, 2041)},
        {"gap": (9, 8)}, {"low": (0, 1, 2)}, {"high": 9},
        {"condition": "a.b"}, {"condition": "Canny"}, {"condition": "x" * 33}, {"low": 1.5},
    ],
)  # fmt: skip
def test_impossible_specs_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        CannySpec(**fields)
