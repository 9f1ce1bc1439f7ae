"""Decoding: Pillow's pixels of every JPEG, and damage that its decoder is silent about."""

import io
from itertools import product
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage
from PIL import ImageOps

from catalog.colour import in_srgb
from catalog.errors import ImageError
from catalog.images import Image, decode, encode_jpeg, pixels_decoded
from catalog.png import encode_png
from tests.catalog.noise import noise
from tests.photographs import photographs


def jpeg(pixels: Image, mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    PILImage.fromarray(pixels).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def by_pillow(data: bytes, at_least: int | None) -> Image:
    with PILImage.open(io.BytesIO(data)) as image:
        if at_least is not None:
            image.draft(image.mode, (at_least, at_least))
        upright = ImageOps.exif_transpose(image)
        return np.asarray((in_srgb(upright) or upright).convert("RGB"))


@pytest.mark.parametrize("at_least", [None, 32, 48, 100])
@pytest.mark.parametrize(
    ("mode", "options"),
    [
        *(
            ("RGB", {"subsampling": sampling, "progressive": progressive})
            for sampling, progressive in product((0, 1, 2), (False, True))
        ),
        ("RGB", {"keep_rgb": True}),
        ("RGB", {"restart_marker_rows": 1}),
        ("L", {}),
        ("CMYK", {}),
    ],
)
def test_a_jpeg_has_the_pixels_that_pillow_gives(
    mode: str, options: dict[str, Any], at_least: int | None
) -> None:
    for seed, (height, width) in enumerate(((120, 161), (233, 97), (64, 64))):
        data = jpeg(noise(seed, height, width), mode, quality=60 + 10 * seed, **options)
        found = decode(data, at_least=at_least, strict=True)
        assert (found.pixels == by_pillow(data, at_least)).all()
        assert found.pixels.flags.c_contiguous
        assert (decode(data, at_least=at_least).pixels == found.pixels).all()
        foretold = pixels_decoded(width, height, jpeg=True, at_least=at_least)
        assert foretold == found.pixels.shape[0] * found.pixels.shape[1]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_jpeg_has_the_pixels_that_pillow_gives(orientation: int) -> None:
    exif = PILImage.Exif()
    exif[0x0112] = orientation
    data = jpeg(noise(0, 120, 161), exif=exif)
    found = decode(data, at_least=40, strict=True)
    assert (found.pixels == by_pillow(data, 40)).all()
    assert found.pixels.flags.c_contiguous
    assert (found.header.height, found.header.width) == by_pillow(data, None).shape[:2]


def test_photographs_have_the_pixels_that_pillow_gives() -> None:
    files = [path for path in photographs() if path.suffix == ".jpg"]
    if not files:
        pytest.skip("no photographs here")
    for path in files:
        data = path.read_bytes()
        found = decode(data, at_least=128, strict=True)
        assert (found.pixels == by_pillow(data, 128)).all()


def _end_at_half(data: bytes) -> bytes:
    return data[: len(data) // 2] + b"\xff\xd9"


DAMAGES = {
    "cut and ended": _end_at_half,
    "a piece is missing": lambda data: data[: len(data) // 2] + data[len(data) // 2 + 300 :],
    "zeros inside": lambda data: data[: len(data) // 2] + bytes(400) + data[len(data) // 2 + 400 :],
}


@pytest.mark.parametrize("at_least", [None, 100])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_jpeg_that_decodes_with_a_complaint_is_damaged(damage: str, at_least: int | None) -> None:
    broken = DAMAGES[damage](encode_jpeg(noise(3, 480, 640), 90))
    lenient = decode(broken, at_least=at_least)
    assert (lenient.pixels == by_pillow(broken, at_least)).all()  # Pillow says nothing
    with pytest.raises(ImageError, match="the JPEG decodes with") as caught:
        decode(broken, at_least=at_least, strict=True)
    assert caught.value.rule == "damaged"


def test_a_damaged_jpeg_with_a_profile_of_its_own_is_damaged() -> None:
    from tests.catalog.test_colour import SWAPPED, profile

    data = jpeg(noise(3, 480, 640), icc_profile=profile(SWAPPED))
    decode(data, strict=True)
    with pytest.raises(ImageError, match="the JPEG decodes with"):
        decode(DAMAGES["zeros inside"](data), strict=True)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("cut", [2, 3, 50, 5000])
def test_a_missing_end_is_damage(cut: int, strict: bool) -> None:
    data = encode_jpeg(noise(3, 480, 640), 90)[:-cut]
    if not strict and cut <= 50:
        return  # Pillow has all pixels, or nearly
    with pytest.raises(ImageError) as caught:
        decode(data, strict=strict)
    assert caught.value.rule == "damaged"


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"", "empty_file"),
        (b"no picture", "not_an_image"),
        (b"\xff\xd8\xff\xe0junk", "damaged"),
    ],
)
def test_what_is_no_jpeg_is_told_as_what_it_is(data: bytes, rule: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode(data, strict=True)
    assert caught.value.rule == rule


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_bytes_behind_a_jpegs_end_are_no_damage(mode: str, options: dict[str, Any]) -> None:
    data = jpeg(noise(), mode, **options)
    whole = decode(data, strict=True).pixels
    assert (decode(data + bytes(100), strict=True).pixels == whole).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("options", [{}, {"transparency": 3}, {"icc_profile": True}])
def test_a_png_has_the_pixels_that_pillow_gives(mode: str, options: dict[str, Any]) -> None:
    from tests.catalog.test_colour import SWAPPED, profile

    if "icc_profile" in options:
        options = {"icc_profile": profile(SWAPPED)}
    if "transparency" in options and mode not in ("L", "P"):
        return
    picture = PILImage.fromarray(noise(0, 50, 33))
    buffer = io.BytesIO()
    picture.convert("L" if mode == "I;16" else mode).convert(mode).save(buffer, "PNG", **options)
    data = buffer.getvalue()
    with PILImage.open(io.BytesIO(data)) as image:
        expected = _on_white(image)
    assert (decode(data, strict=True).pixels == expected).all()


def _on_white(image: PILImage.Image) -> Image:
    if image.mode.startswith("I;16"):
        return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    image = in_srgb(image) or image
    if image.has_transparency_data:
        ground = PILImage.new("RGBA", image.size, "white")
        ground.alpha_composite(image.convert("RGBA"))
        image = ground
    return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_png_is_judged_as_pillow_judges_it(seed: int) -> None:
    random = np.random.default_rng(seed)
    data = bytearray(encode_png(noise(0, 60, 80)))
    at = int(random.integers(8, len(data) - 20))
    if seed % 2:
        del data[at:]
    else:
        data[at] ^= 1 << int(random.integers(8))
    try:
        with PILImage.open(io.BytesIO(data)) as image:
            expected = np.asarray(image.convert("RGB"))
    except Exception:  # whatever its plugins raise
        with pytest.raises(ImageError):
            decode(bytes(data))
    else:
        assert (decode(bytes(data)).pixels == expected).all()
