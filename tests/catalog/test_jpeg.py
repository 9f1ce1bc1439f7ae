"""What a JPEG says of its maker goes; its pixels stay as they were compressed."""

import io

import numpy as np
import pytest
from PIL import Image

from catalog.images import decode_image
from catalog.jpeg import without_metadata


def jpeg(**options) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (72, 88, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def private() -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Maker", "Model"
    place = exif.get_ifd(0x8825)
    place[1], place[2], place[3], place[4] = "N", (1.0, 2.0, 3.0), "E", (4.0, 5.0, 6.0)
    return exif


KINDS = {
    "plain": {},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 2},
    "cmyk": {},
    "full": {"subsampling": 0, "quality": 100},
}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_private_stays_and_every_pixel_does(kind: str) -> None:
    told = {"exif": private(), "comment": b"private note", "icc_profile": b"p" * 70_000}
    data = jpeg(**KINDS[kind], **told) + b"preview behind the end \xff\xd8\xff\xd9"
    clean = without_metadata(data)
    for secret in (b"Maker", b"private note", b"Exif", b"pppp", b"preview"):
        assert secret in data
        assert secret not in clean
    assert (decode_image(clean) == decode_image(data)).all()
    with Image.open(io.BytesIO(clean)) as image:
        assert not image.getexif()
        assert set(image.info) <= {
            "jfif",
            "jfif_version",
            "jfif_unit",
            "jfif_density",
            "progressive",
            "progression",
        }
    assert without_metadata(clean) == clean


def test_a_jpeg_that_says_nothing_stays_as_it_is() -> None:
    assert without_metadata(jpeg()) == jpeg()


def test_adobes_colours_stay_told() -> None:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(jpeg())).convert("CMYK").save(buffer, "JPEG")
    clean = without_metadata(buffer.getvalue())
    assert b"Adobe" in clean
    assert (decode_image(clean) == decode_image(buffer.getvalue())).all()


def test_a_thumbnail_in_jfif_goes() -> None:
    data = jpeg()
    assert data[2:4] == b"\xff\xe0"
    body = data[6:18] + bytes([2, 1]) + b"thumb!"
    with_thumbnail = data[:4] + (len(body) + 2).to_bytes(2) + body + data[20:]
    clean = without_metadata(with_thumbnail)
    assert b"thumb!" not in clean
    assert (decode_image(clean) == decode_image(data)).all()


@pytest.mark.parametrize("broken", [b"", b"\xff\xd8", jpeg()[:200], jpeg()[:-2], b"x" * 50])
def test_what_cannot_be_followed_is_refused(broken: bytes) -> None:
    with pytest.raises(ValueError, match=r"no JPEG|no marker|no end"):
        without_metadata(broken)
