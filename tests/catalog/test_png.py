"""PNGs of our own: every reader sees the pixels that were written."""

import io

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PILImage

from catalog.images import decode_image, encode_png_as_before
from catalog.png import decode_png, encode_png

_RANDOM = np.random.default_rng(0)
MAPS = {
    "grey": _RANDOM.integers(0, 256, (37, 61), dtype=np.uint8),
    "binary": (_RANDOM.integers(0, 2, (37, 61)) * 255).astype(np.uint8),
    "black": np.zeros((37, 61), np.uint8),
    "white": np.full((37, 61), 255, np.uint8),
    "ones": np.ones((37, 61), np.uint8),
    "rgb": _RANDOM.integers(0, 256, (37, 61, 3), dtype=np.uint8),
    "one column": np.full((5, 1), 255, np.uint8),
    "one row of rgb": _RANDOM.integers(0, 256, (1, 9, 3), dtype=np.uint8),
}


@pytest.mark.parametrize("name", MAPS)
def test_every_reader_sees_what_was_written(name: str) -> None:
    pixels = MAPS[name]
    data = encode_png(pixels)
    rgb = pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)
    assert np.array_equal(decode_png(data), pixels)
    assert decode_png(data).dtype == np.uint8
    assert np.array_equal(decode_image(data), rgb)
    with PILImage.open(io.BytesIO(data)) as image:
        image.verify()
    with PILImage.open(io.BytesIO(data)) as image:
        assert np.array_equal(np.asarray(image.convert("RGB")), rgb)
        if pixels.ndim == 2:
            assert np.array_equal(np.asarray(image.convert("L")), pixels)
    encoded = np.frombuffer(data, np.uint8)
    assert np.array_equal(cv2.imdecode(encoded, cv2.IMREAD_COLOR)[:, :, ::-1], rgb)
    if pixels.ndim == 2:
        assert np.array_equal(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE), pixels)


@given(st.integers(1, 30), st.integers(1, 30), st.booleans(), st.integers(1, 256), st.integers(0))
def test_any_map_comes_back(
    height: int, width: int, coloured: bool, levels: int, seed: int
) -> None:
    shape = (height, width, 3) if coloured else (height, width)
    pixels = np.random.default_rng(seed).integers(0, levels, shape, dtype=np.uint8)
    assert np.array_equal(decode_png(encode_png(pixels)), pixels)


def test_part_of_a_larger_map_is_encoded_as_itself() -> None:
    whole = MAPS["rgb"]
    for part in (whole[3:20, 5:30], whole[::-1], whole[:, :, 1], MAPS["binary"][:, ::2]):
        assert np.array_equal(decode_png(encode_png(part)), part)


def test_black_and_white_takes_a_bit_a_pixel() -> None:
    with PILImage.open(io.BytesIO(encode_png(MAPS["binary"]))) as image:
        assert image.mode == "1"
    with PILImage.open(io.BytesIO(encode_png(MAPS["grey"]))) as image:
        assert image.mode == "L"
    assert len(encode_png(MAPS["binary"])) < len(encode_png_as_before(MAPS["binary"]))
