"""LSD: straight edges of the grey image, none shorter than asked."""

import pickle

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from detectors.base import Annotation, Image, Refusal
from detectors.lsd import LsdSpec


def finish(spec: LsdSpec, image: Image) -> Annotation | Refusal:
    return spec.annotate(image, None, np.random.default_rng(0))


def square(colour: tuple[int, int, int], ground: tuple[int, int, int], side: int = 256) -> Image:
    image = np.full((side, side, 3), ground, np.uint8)
    image[side // 4 : 3 * side // 4, side // 4 : 3 * side // 4] = colour
    return image


def test_a_square_has_four_sides() -> None:
    result = finish(LsdSpec(), square((255, 255, 255), (0, 0, 0)))
    assert len(result.parameters["lines"]) == 4
    assert result.map.shape == (256, 256)
    assert set(np.unique(result.map)) == {0, 255}
    assert np.abs(np.array(result.parameters["lines"]) - 128).min() > 60  # all at its rim


def test_lengths_are_meant_at_512() -> None:
    small, great = (square((255,) * 3, (0,) * 3, side) for side in (128, 512))
    for spec, count in ((LsdSpec(min_length=240), 4), (LsdSpec(min_length=270), 0)):
        assert [len(finish(spec, image).parameters["lines"]) for image in (small, great)] == [
            count
        ] * 2


def test_colours_are_not_swapped() -> None:
    red, ground = (255, 0, 0), (76, 76, 76)  # of the same grey: red weighs 0.299
    assert not finish(LsdSpec(), square(red, ground)).map.any()
    assert finish(LsdSpec(), square((0, 0, 255), ground)).map.any()


def test_lines_are_opencvs(photographs: list[Image]) -> None:
    grey = cv2.cvtColor(photographs[1], cv2.COLOR_RGB2GRAY)
    theirs = cv2.createLineSegmentDetector().detect(grey)[0].reshape(-1, 4)
    ours = np.array(finish(LsdSpec(min_length=0), photographs[1]).parameters["lines"])
    assert np.abs(ours - theirs).max() <= 0.051
    longer = finish(LsdSpec(), photographs[1]).parameters["lines"]
    assert 5 < len(longer) < len(ours)


def test_no_line_is_a_black_map_unless_lines_are_asked_for() -> None:
    blank = np.zeros((64, 128, 3), np.uint8)
    none = finish(LsdSpec(), blank)
    assert isinstance(none, Annotation)
    assert none.map.shape == (64, 128)
    assert not none.map.any()
    assert finish(LsdSpec(min_lines=1), blank) == Refusal(
        rule="lines", value=0, threshold=1, parameters={"lines": []}
    )


def test_specs_travel_and_refuse_what_they_do_not_know() -> None:
    spec = LsdSpec(min_length=30)
    assert pickle.loads(pickle.dumps(spec)) == spec
    with pytest.raises(ValidationError, match="Extra inputs"):
        LsdSpec(checkpoint="mlsd_large")
