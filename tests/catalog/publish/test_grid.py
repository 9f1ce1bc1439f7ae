import numpy as np
import pytest
from PIL import ImageFont

from catalog.publish.grid import draw_grid, enlarged, wrap

RED = np.full((64, 64, 3), (200, 0, 0), np.uint8)
BLUE = np.full((64, 64, 3), (0, 0, 200), np.uint8)
SMALL = np.full((32, 16, 3), (0, 200, 0), np.uint8)


def spans(page: np.ndarray, image: np.ndarray) -> tuple[slice, slice]:
    """Where the page has the image's colour: rows and columns, as one block."""
    rows, columns = np.nonzero((page == image[0, 0]).all(axis=2))
    return slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)


def test_images_stand_unchanged_in_their_rows_and_columns():
    page = draw_grid([[RED, BLUE]], columns=["condition", "image"], rows=["a row"])
    red, blue = spans(page, RED), spans(page, BLUE)
    np.testing.assert_array_equal(page[red], RED)
    np.testing.assert_array_equal(page[blue], BLUE)
    assert red[0] == blue[0]
    assert red[1].stop <= blue[1].start


def test_rows_follow_each_other():
    page = draw_grid([[RED], [BLUE]], columns=["image"], rows=["first", "second"])
    assert spans(page, RED)[0].stop <= spans(page, BLUE)[0].start
    assert spans(page, RED)[1] == spans(page, BLUE)[1]


def test_a_smaller_image_stands_in_the_middle_of_its_cell():
    page = draw_grid([[RED], [SMALL]], columns=["image"], rows=["large", "small"])
    large, small = spans(page, RED)[1], spans(page, SMALL)[1]
    assert small.start - large.start == large.stop - small.stop == 24


def test_labels_are_ink_outside_the_images():
    named = draw_grid([[RED]], columns=["title"], rows=["label"])
    bare = draw_grid([[RED]], columns=[""], rows=[""])
    (rows, columns), dark = spans(named, RED), (named < 128).all(axis=2)
    assert dark[: rows.start, columns].any()
    assert dark[rows, : columns.start].any()
    assert not dark[rows, columns].any()
    assert not (bare < 128).all(axis=2).any()


@pytest.mark.parametrize("text", ["", "short", "one two three four five six " * 4, "x" * 300])
def test_wrapped_text_fits(text):
    font = ImageFont.load_default(14)
    lines = wrap(text, 100, font)
    assert 1 <= len(lines) <= 4
    assert all(font.getlength(line) <= 100 for line in lines)
    whole = " ".join(lines) == " ".join(text.split())
    assert whole or lines[-1].endswith("…")


def test_words_keep_their_order():
    assert wrap("one two three", 10_000, ImageFont.load_default(14)) == ["one two three"]


@pytest.mark.parametrize(
    ("cells", "columns", "rows"),
    [([[RED]], ["a", "b"], ["r"]), ([[RED], []], ["a"], ["r", "s"]), ([], [], []), ([], ["a"], [])],
)
def test_labels_must_fit_the_images(cells, columns, rows):
    with pytest.raises(ValueError, match="row"):
        draw_grid(cells, columns=columns, rows=rows)


@pytest.mark.parametrize(
    ("size", "expected"), [((64, 64), (192, 192)), ((32, 96), (64, 192)), ((97, 8), (97, 8))]
)
def test_small_images_are_enlarged_by_whole_pixels(size, expected):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    (large,) = enlarged([image])
    assert large.shape[:2] == expected
    step = expected[0] // size[0]
    assert (large[::step, ::step] == image).all()
    assert (large[step - 1 :: step, step - 1 :: step] == image).all()
