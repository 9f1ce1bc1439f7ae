"""The example's checks: what they find in drawn pictures, and in pictures of other prompts."""

import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "shapes"


@pytest.fixture(scope="module", autouse=True)
def _importable():
    sys.path.insert(0, str(EXAMPLE))
    yield
    sys.path.remove(str(EXAMPLE))


@pytest.fixture(scope="module")
def pictures():
    from draw import draw_picture

    return [draw_picture(np.random.default_rng((77, number))) for number in range(300)]


def test_drawn_shapes_are_recognised(pictures) -> None:
    from measure import named
    from recognise import recognise

    found = [recognise(picture.image) for picture in pictures]
    assert named(pictures, found) == pytest.approx((1, 1, 1), abs=0.01)
    assert all(len(seen) == len(p.shapes) for seen, p in zip(found, pictures, strict=True))


def test_prompts_of_other_pictures_are_right_by_chance_only(pictures) -> None:
    """A picture has 1.5 of 8 colours on average, so 3/16; of three kinds one is right by chance."""
    from measure import named
    from recognise import recognise

    found = [recognise(picture.image) for picture in pictures]
    colours, shapes, both = named([*pictures[1:], pictures[0]], found)
    assert colours == pytest.approx(3 / 16, abs=0.05)
    assert shapes < 0.5
    assert both == pytest.approx(1 / 16, abs=0.03)


def test_an_empty_ground_holds_no_shape() -> None:
    from recognise import recognise

    ground = np.random.default_rng(0).normal((39, 41, 59), 8, (64, 64, 3))
    assert recognise(ground.clip(0, 255).astype(np.uint8)) == {}


def test_a_picture_is_the_same_whatever_the_count(tmp_path: Path) -> None:
    from draw import write_pictures

    write_pictures(tmp_path / "few", 3, seed=5)
    write_pictures(tmp_path / "more", 6, seed=5)
    for path in (tmp_path / "few").glob("*.png"):
        assert path.read_bytes() == (tmp_path / "more" / path.name).read_bytes()
