"""The colour that a viewer shows is the one that is kept, whatever profile a picture brings."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from catalog.colour import in_srgb
from catalog.images import decode, decode_image

ADOBE = {
    b"rXYZ": (0.60974, 0.31111, 0.01947),
    b"gXYZ": (0.20528, 0.62567, 0.06087),
    b"bXYZ": (0.14919, 0.06322, 0.74457),
}
SWAPPED = {b"rXYZ": (0.14307, 0.06061, 0.71410), b"bXYZ": (0.43607, 0.22249, 0.01392)}


def profile(primaries: dict[bytes, tuple[float, float, float]]) -> bytes:
    """Return sRGB's profile with other primaries."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for tag in range(struct.unpack(">I", data[128:132])[0]):
        place = 132 + 12 * tag
        name, offset, _ = struct.unpack(">4sII", data[place : place + 12])
        if name in primaries:
            values = (round(one * 65536) for one in primaries[name])
            data[offset + 8 : offset + 20] = struct.pack(">iii", *values)
    return bytes(data)


def picture(mode: str = "RGB") -> Image.Image:
    row = np.linspace(0, 255, 64).astype(np.uint8)
    pixels = np.stack(
        [np.tile(row, (64, 1)), np.tile(row[:, None], (1, 64)), np.full((64, 64), 60)]
    )
    return Image.fromarray(pixels.transpose(1, 2, 0).astype(np.uint8)).convert(mode)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("primaries", [ADOBE, SWAPPED], ids=["adobe", "swapped"])
def test_another_gamut_is_converted(kind: str, primaries) -> None:
    data = encoded(picture(), kind, icc_profile=profile(primaries))
    found = decode(data)
    plain = decode_image(encoded(picture(), kind)).astype(int)
    with Image.open(io.BytesIO(data)) as image:
        shown = ImageCms.profileToProfile(
            image,
            ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"])),
            ImageCms.createProfile("sRGB"),
            outputMode="RGB",
        )
    assert np.abs(found.pixels.astype(int) - np.asarray(shown).astype(int)).max() <= 1
    assert np.abs(found.pixels - plain).mean() > 3
    assert not found.header.plain  # its bytes say other colours


def test_srgbs_own_profile_moves_nothing() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = encoded(picture(), "JPEG", icc_profile=srgb)
    found = decode(data)
    assert (found.pixels == decode_image(encoded(picture(), "JPEG"))).all()
    assert found.header.plain


@pytest.mark.parametrize("broken", [b"no profile", profile(ADOBE)[:300], profile(ADOBE)[128:]])
def test_a_profile_that_cannot_be_read_is_left_out(broken: bytes) -> None:
    data = encoded(picture(), "PNG", icc_profile=broken)
    assert (decode_image(data) == np.asarray(picture())).all()


def test_transparency_survives_the_conversion() -> None:
    clear = picture("RGBA")
    clear.putalpha(Image.fromarray(np.repeat([[0, 255]], 64, 0).repeat(32, 1).astype(np.uint8)))
    found = decode_image(encoded(clear, "PNG", icc_profile=profile(SWAPPED)))
    assert (found[:, :32] == 255).all()
    assert np.abs(found[:, 32:].astype(int) - np.asarray(picture())[:, 32:]).mean() > 10


def test_a_profile_of_grey_stays_grey() -> None:
    grey = picture("L")
    grey.info["icc_profile"] = profile(ADOBE)  # of three channels: it cannot be grey's
    assert in_srgb(grey) is None


def test_the_ground_behind_a_map_is_black_and_behind_a_photograph_white() -> None:
    lines = np.zeros((16, 16, 4), np.uint8)
    lines[4, :] = 255
    data = encoded(Image.fromarray(lines), "PNG")
    assert (decode_image(data) == 255).all()
    on_black = decode_image(data, ground="black")
    assert (on_black[4] == 255).all()
    assert on_black[5:].max() == 0
