"""What is measured of a picture: colour, sharpness, contrast, missing data."""

from dataclasses import asdict

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.images import Image, decode, decode_image, encode_jpeg
from catalog.png import encode_png
from catalog.source.quality import measure
from tests.catalog.noise import noise
from tests.photographs import photographs


def grey(pixels: Image) -> Image:
    return np.repeat(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9))
def test_any_size_is_measured_and_finite(height: int, width: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    found = measure(pixels)
    assert 0 <= found.chroma <= 181
    assert 0 <= found.contrast <= 127.5
    assert 0 <= found.grey_tail <= 1
    assert found.sharpness >= 0


@pytest.mark.parametrize("quality", [30, 60, 95])
def test_grey_stays_without_colour_however_it_is_encoded(quality: int) -> None:
    assert measure(decode_image(encode_jpeg(grey(noise()), quality))).chroma < 1
    assert measure(decode_image(encode_jpeg(noise(), quality))).chroma > 20


def test_an_even_tint_is_no_colour() -> None:
    tinted = np.clip(grey(noise()).astype(int) // 2 + [60, 50, 30], 0, 255).astype(np.uint8)
    assert measure(tinted).chroma < 1


def test_sharpness_falls_with_blur_and_not_with_size() -> None:
    sharp = cv2.resize(
        np.random.default_rng(1).integers(0, 256, (256, 256, 3), dtype=np.uint8),
        (512, 512),
        interpolation=cv2.INTER_CUBIC,
    )
    blurred = [measure(cv2.GaussianBlur(sharp, (0, 0), sigma)).sharpness for sigma in (1, 2, 4)]
    assert measure(sharp).sharpness > blurred[0] > blurred[1] > blurred[2]
    twice = cv2.resize(sharp, (1024, 1024), interpolation=cv2.INTER_CUBIC)
    assert measure(twice).sharpness == pytest.approx(measure(sharp).sharpness, rel=0.3)


def test_a_sharp_subject_before_a_blurred_ground_is_sharp() -> None:
    pixels = cv2.GaussianBlur(noise(2, 512, 512), (0, 0), 8)
    assert measure(pixels).sharpness < 60
    subject = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    pixels[150:350, 150:350] = subject
    assert measure(pixels).sharpness > 60


@pytest.mark.parametrize("rows", [0, 6, 60, 120])
def test_a_grey_tail_is_measured_from_the_bottom(rows: int) -> None:
    pixels = noise()
    pixels[120 - rows :] = 128
    assert measure(pixels).grey_tail == pytest.approx(rows / 120)
    pixels[:6] = 128
    assert measure(decode_image(encode_png(pixels))).grey_tail == pytest.approx(rows / 120)


def test_the_photographs_are_clean_but_for_those_without_colour() -> None:
    """The defaults reject no clean photograph; two of those here have no colour at all."""
    from pipeline.recipe.recipe import Rules
    from pipeline.unit.image_rules import broken_rule

    without_colour = {"COCO_train2014_000000571503.jpg", "000000040083.jpg"}
    rejected = {}
    for path in photographs():
        found = measure(decode(path.read_bytes(), strict=True).pixels)
        if path.name in without_colour:
            assert found.chroma == 0
            continue
        verdict = broken_rule(asdict(found), Rules())
        if verdict is not None:
            rejected[path.name] = verdict
    assert rejected == {}
