import numpy as np
import pytest

from catalog.images import fit, target_size
from training.data.augment import Augment
from training.data.examples import Examples
from training.data.micro_conditions import micro_conditions, uncut


def of(width: int, height: int) -> dict:
    return {"source": {"width": width, "height": height, "format": "JPEG"}}


@pytest.mark.parametrize(
    ("source", "stored", "told"),
    [
        ((640, 480), (512, 512), (480, 640, 0, 85, 512, 512)),  # 512 of 683 columns
        ((480, 640), (512, 512), (640, 480, 85, 0, 512, 512)),
        ((512, 512), (512, 512), (512, 512, 0, 0, 512, 512)),
        ((256, 128), (512, 512), (128, 256, 0, 256, 512, 512)),  # enlarged
        ((1000, 700), (512, 704), (700, 1000, 0, 0, 512, 704)),  # whole, on the grid
    ],
)
def test_what_is_stored_tells_how_it_was_cut(source, stored, told):
    assert micro_conditions(of(*source), stored) == told


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (517, 900), (100, 51)])
def test_the_crop_is_where_the_factory_cut(size):
    """A picture whose pixels name their place shows which of them the factory stored first."""
    width, height = size
    place = np.zeros((height, width, 3), np.uint8)
    side = min(size)
    top, left = (height - side) // 2, (width - side) // 2
    place[top : top + side, left : left + side] = 255
    stored = fit(place, resolution=side, crop="center")
    assert stored.min() == 255
    assert target_size(width, height, resolution=side, crop="center") == (side, side)
    assert micro_conditions(of(width, height), (side, side))[2:4] == (top, left)


def test_a_square_of_what_is_stored_is_cut_further_in():
    square = (slice(10, 74), slice(20, 84))
    assert micro_conditions(of(640, 480), (512, 512), square=square) == (480, 640, 10, 105, 64, 64)
    mirrored = micro_conditions(of(640, 480), (512, 512), square=square, mirrored=True)
    assert mirrored == (480, 640, 10, 683 - 105 - 64, 64, 64)


def test_examples_tell_what_they_show(view_type):
    view = view_type(rows=4, sizes=((64, 128),))
    whole = Examples(view, "canny", seed=0, prompt_dropout=0, multiple=8)
    assert whole[0].sizes == uncut(64, 128)
    cut = Examples(
        view, "canny", seed=0, prompt_dropout=0, multiple=8, augment=Augment(crop=32, flip=True),
        detector="canny",
    )  # fmt: skip
    sizes = [cut[index].sizes for index in range(8)]
    assert {one[4:] for one in sizes} == {(32, 32)}
    assert len({one[2:4] for one in sizes}) == 8
    assert all(0 <= top <= 32 and 0 <= left <= 96 for _, _, top, left, _, _ in sizes)
