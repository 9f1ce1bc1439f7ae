"""A folder of everything that goes wrong with images, each with what must become of it.

`write_bad_corpus` returns the expectation of every image by its name: the file's, or
``<container>#<member or row>``. A name that is missing there is passed over by the listing.
"""

import io
import json
import os
import struct
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

RED, BLUE, GREEN, WHITE = (255, 0, 0), (0, 0, 255), (0, 255, 0), (255, 255, 255)
QUADRANTS = (RED, BLUE, GREEN, WHITE)  # top left, top right, bottom left, bottom right

_MOST = 2**31 - 1  # of a side, in a PNG

_TURNS = {  # how a camera stores the upright picture under each EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What must become of one image.

    Attributes:
        status: of its row in the ledger.
        value: what the rule measured.
        threshold: what it was judged by.
        corners: colours of the four quadrants of the stored picture; None asks nothing.
        caption: the stored caption; None asks nothing.
    """

    status: str = "ok"
    value: float | None = None
    threshold: float | None = None
    corners: tuple[tuple[int, int, int], ...] | None = None
    caption: str | None = None


def quadrants(size: tuple[int, int] = (96, 80)) -> Image.Image:
    """Return red and blue over green and white; size is (width, height) in pixels."""
    colours = np.array(QUADRANTS, np.uint8).reshape(2, 2, 3)
    return Image.fromarray(colours).resize(size, Image.Resampling.NEAREST)


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Return the bytes of a picture."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(seed: int, side: int = 72) -> bytes:
    """Return a PNG that no other seed gives."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels))


def turned(orientation: int, kind: str = "JPEG") -> bytes:
    """Return the quadrants as a camera stores them under an EXIF orientation, 1..8."""
    picture = quadrants()
    if orientation in _TURNS:
        picture = picture.transpose(_TURNS[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture, kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))


def huge_png(side: int) -> bytes:
    """Return a black one-bit PNG of side x side pixels, without ever holding its pixels."""
    packer = zlib.compressobj(1)
    row = bytes(1 + (side + 7) // 8)
    pixels = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    return _png(struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0), pixels)


def absurd_png() -> bytes:
    """Return a PNG whose header claims the largest sides that there are, and that has no pixels."""
    return _png(struct.pack(">IIBBBBB", _MOST, _MOST, 8, 2, 0, 0, 0), zlib.compress(b""))


def _png(header: bytes, pixels: bytes) -> bytes:
    chunks = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def write_bad_corpus(folder: Path) -> dict[str, Expected]:
    """Write the corpus into a new folder; return what is expected of every image by name."""
    folder.mkdir(parents=True)
    return {
        **_bytes_that_lie(folder),
        **_modes(folder),
        **_animations(folder),
        **_orientations(folder),
        **_names(folder),
        **_sidecars(folder),
        **_tars(folder),
        **_parquets(folder),
    }


def _write(folder: Path, files: Mapping[str, tuple[bytes, Expected]]) -> dict[str, Expected]:
    for name, (data, _) in files.items():
        (folder / name).write_bytes(data)
    return {name: expected for name, (_, expected) in files.items()}


def _bytes_that_lie(folder: Path) -> dict[str, Expected]:
    damaged = Expected(status="rejected:damaged")
    jpeg = encoded(Image.open(io.BytesIO(noise(1))), "JPEG")
    (folder / "broken_link.jpg").symlink_to(folder / "nowhere.jpg")
    os.mkfifo(folder / "pipe.jpg")
    side = 20_000
    return _write(
        folder,
        {
            "truncated.jpg": (jpeg[: len(jpeg) // 2], damaged),
            "truncated_in_header.jpg": (jpeg[:150], damaged),
            "truncated.png": (noise(2)[:-400], damaged),
            "truncated.webp": (encoded(quadrants(), "WEBP")[:-40], damaged),
            "truncated.gif": (encoded(quadrants(), "GIF")[:200], damaged),
            "zero_bytes.jpg": (b"", Expected(status="rejected:empty_file", value=0)),
            "text.jpg": (b"no picture, only words\n", Expected(status="rejected:not_an_image")),
            "huge.png": (
                huge_png(side),
                Expected(status="rejected:max_pixels", value=side**2, threshold=100_000_000),
            ),
            "absurd.png": (
                absurd_png(),
                Expected(
                    status="rejected:max_pixels",
                    value=float(_MOST**2),
                    threshold=100_000_000,
                ),
            ),
            "postscript.jpg": (
                b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
                Expected(status="rejected:not_an_image"),
            ),
            "portable.jpg": (
                encoded(quadrants(), "PPM"),
                Expected(status="rejected:not_an_image"),
            ),
            "png_named.jpg": (encoded(quadrants((90, 90))), Expected(corners=QUADRANTS)),
        },
    ) | {
        "broken_link.jpg": Expected(status="failed:FileNotFoundError"),
        "pipe.jpg": Expected(status="failed:StorageError"),
    }


def _modes(folder: Path) -> dict[str, Expected]:
    grey = np.array([[0, 0x4000], [0x8000, 0xFFFF]], np.uint16).repeat(40, 0).repeat(40, 1)
    colours = np.array(QUADRANTS, np.uint16).reshape(2, 2, 3).repeat(40, 0).repeat(40, 1) * 257
    cv2.imwrite(str(folder / "grey_16_bit.png"), grey)
    cv2.imwrite(str(folder / "rgb_16_bit.png"), colours[:, :, ::-1])
    clear = quadrants((88, 88)).convert("RGBA")
    clear.putalpha(Image.fromarray(np.uint8([[255, 0], [255, 0]]).repeat(44, 0).repeat(44, 1)))
    half = Image.merge("LA", [Image.new("L", (70, 70), 0), Image.new("L", (70, 70), 128)])
    palette = quadrants((84, 84)).quantize(4)
    blue = palette.getpixel((80, 4))
    black, grey_65, grey_128 = (0, 0, 0), (0x40,) * 3, (0x80,) * 3
    return _write(
        folder,
        {
            "cmyk.jpg": (
                encoded(quadrants((100, 100)).convert("CMYK"), "JPEG", quality=95),
                Expected(corners=QUADRANTS),
            ),
            "alpha.png": (encoded(clear), Expected(corners=(RED, WHITE, GREEN, WHITE))),
            "palette_alpha.png": (
                encoded(palette, transparency=blue),
                Expected(corners=(RED, WHITE, GREEN, WHITE)),
            ),
            "grey_alpha.png": (encoded(half), Expected(corners=((127, 127, 127),) * 4)),
            "one_bit.png": (
                encoded(quadrants((82, 82)).convert("L").point(lambda v: 255 * (v > 200), "1")),
                Expected(corners=(black, black, black, WHITE)),
            ),
            "grey.jpg": (
                encoded(Image.new("L", (75, 75), 128), "JPEG"),
                Expected(corners=(grey_128,) * 4),
            ),
            "float.tif": (
                encoded(Image.new("F", (80, 80), 0.5), "TIFF"),
                Expected(status="rejected:unsupported_mode"),
            ),
            "one_pixel.png": (encoded(Image.new("RGB", (1, 1), RED)), Expected(corners=(RED,) * 4)),
        },
    ) | {
        "grey_16_bit.png": Expected(corners=(black, grey_65, grey_128, WHITE)),
        "rgb_16_bit.png": Expected(corners=QUADRANTS),
    }


def _animations(folder: Path) -> dict[str, Expected]:
    frames = [Image.new("RGB", (80, 80), colour) for colour in (RED, BLUE, GREEN)]
    moving: dict[str, Any] = {"save_all": True, "append_images": frames[1:], "duration": 100}
    animated = Expected(status="rejected:animated", value=3)
    return _write(
        folder,
        {
            "animated.gif": (encoded(frames[0], "GIF", **moving), animated),
            "animated.webp": (encoded(frames[0], "WEBP", **moving), animated),
            "animated.png": (encoded(frames[0], "PNG", **moving), animated),
            "still.gif": (encoded(quadrants((86, 86)), "GIF"), Expected(corners=QUADRANTS)),
            "still.webp": (
                encoded(quadrants((92, 92)), "WEBP", lossless=True),
                Expected(corners=QUADRANTS),
            ),
        },
    )


def _orientations(folder: Path) -> dict[str, Expected]:
    upright = Expected(corners=QUADRANTS)
    kinds = {"jpg": "JPEG", "png": "PNG", "tif": "TIFF"}
    names = {f"turned_{number}.{end}": (number, end) for number in range(1, 9) for end in kinds}
    return _write(
        folder,
        {name: (turned(number, kinds[end]), upright) for name, (number, end) in names.items()},
    )


def _names(folder: Path) -> dict[str, Expected]:
    names: list[str | bytes] = [
        "spaces in a name.png", "new\nline.png", "quo\"te's.png", "per%20cent.png", "ha#sh?.png",
        "smörgåsbord 写真 🖼.png", b"not-utf8-\xff\xfe.png", "x" * 251 + ".png", ".hidden.png",
        "UPPER.PNG", "two.dots.png", "[glob]*.png", "-flag.png", "back\\slash.png",
    ]  # fmt: skip
    expected = {}
    for number, raw in enumerate(names):
        name = os.fsdecode(raw)
        (folder / name).write_bytes(noise(100 + number))
        (folder / name).with_suffix(".txt").write_text(f"named {number}")
        expected[name] = Expected(caption=f"named {number}")
    (folder / os.fsdecode(b"no-image.\xff\xfe")).write_bytes(b"passed over")
    (folder / "duplicate_a.png").write_bytes(noise(90))
    (folder / "duplicate_b.png").write_bytes(noise(90))
    duplicate = Expected(status="rejected:duplicate")
    return expected | {"duplicate_a.png": Expected(), "duplicate_b.png": duplicate}


def _sidecars(folder: Path) -> dict[str, Expected]:
    cases: dict[str, tuple[str, bytes, str | None]] = {
        "bom": ("txt", b"\xef\xbb\xbfa bom\r\n", "a bom"),
        "invalid": ("txt", b"caf\xe9 \xff", ""),
        "control": ("txt", b"a\x00b\x1b[31m\tc\x07\n\nd\x7f", "a b [31m c d"),
        "long": ("txt", b"word " * 200_000, ("word " * 400).rstrip()),
        "good": ("json", b'{"caption": "from json", "aesthetic": 5.5}', "from json"),
        "broken": ("json", b'{"caption": "x', ""),
        "list": ("json", b'["caption"]', ""),
        "large": ("json", json.dumps({"caption": "x", "more": "y" * 2_000_000}).encode(), "x"),
        "deep": ("json", b"[" * 50_000, ""),
        "surrogate": ("json", b'{"caption": "a\\ud800b", "\\udfff": 1}', "a?b"),
        "numbers": (
            "json",
            b'{"caption": "n", "popularity": NaN, "a": Infinity, "b": 1' + b"0" * 400 + b"}",
            "n",
        ),
        "digits": ("json", b'{"caption": "n", "b": 1' + b"0" * 9000 + b"}", ""),
        "bom_json": ("json", b'\xef\xbb\xbf{"text": "bom"}', "bom"),
        "invalid_json": ("json", b'{"caption": "\xff"}', ""),
        "wrong_types": ("json", b'{"caption": 5, "popularity": "many", "x": null}', ""),
    }
    expected = {}
    for number, (name, (end, data, caption)) in enumerate(cases.items()):
        (folder / f"sidecar_{name}.png").write_bytes(noise(200 + number))
        (folder / f"sidecar_{name}.{end}").write_bytes(data)
        expected[f"sidecar_{name}.png"] = Expected(caption=caption)
    return expected


def tar_bytes(members: Mapping[str, bytes | tarfile.TarInfo]) -> bytes:
    """Return a tar with these members; a TarInfo stands for itself, without content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _tars(folder: Path) -> dict[str, Expected]:
    link = tarfile.TarInfo("link.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    hard = tarfile.TarInfo("hard.png")
    hard.type, hard.linkname = tarfile.LNKTYPE, "../../../../etc/passwd"
    evil = {"../../../../escape.png": noise(300), "/tmp/absolute.png": noise(301)}
    metadata = {"caption": "from json", "key": "1", "status": "success", "similarity": 0.3}
    crawl = {
        "000000001.jpg": encoded(Image.open(io.BytesIO(noise(302))), "JPEG"),
        "000000001.txt": b"from txt",
        "000000001.json": json.dumps(metadata).encode(),
        "000000002.jpg": encoded(Image.open(io.BytesIO(noise(303))), "JPEG"),
        "000000002.json": json.dumps(metadata).encode(),
        "000000003.jpg": b"",
        "000000004.jpg": encoded(Image.open(io.BytesIO(noise(304))), "JPEG")[:600],
    }
    whole = tar_bytes({"a.png": noise(305), "b.png": noise(306), "c.png": noise(307)})
    second = 512 + -(-len(noise(305)) // 512) * 512
    wrecked = whole[:second] + b"\xff" * 512 + whole[second + 512 :]
    end_mark = whole.rstrip(b"\0")
    unended = end_mark + bytes(-len(end_mark) % 512)
    broken, ok = Expected(status="failed:TarError"), Expected()
    _write(
        folder,
        {
            "evil.tar": (tar_bytes({**evil, "link.png": link, "hard.png": hard}), ok),
            "crawl.tar": (tar_bytes(crawl), ok),
            "truncated.tar": (
                tar_bytes({"a.png": noise(308), "b.png": noise(309)})[: second + 2000],
                ok,
            ),
            "truncated_in_header.tar": (
                tar_bytes({"a.png": noise(310), "b.png": noise(311)})[: second + 100],
                ok,
            ),
            "wrecked_header.tar": (wrecked, ok),
            "no_end_mark.tar": (unended.replace(noise(305), noise(312)), ok),
            "gzip.tar": (_gzip(tar_bytes({"a.png": noise(313)})), ok),
            "zero_bytes.tar": (b"", ok),
        },
    )
    return {
        "evil.tar#0": ok,
        "evil.tar#1": ok,
        "crawl.tar#0": Expected(caption="from txt"),
        "crawl.tar#1": Expected(caption="from json"),
        "crawl.tar#2": Expected(status="rejected:empty_file", value=0),
        "crawl.tar#3": Expected(status="rejected:damaged"),
        "truncated.tar#0": ok,
        "truncated.tar": broken,
        "truncated_in_header.tar#0": ok,
        "truncated_in_header.tar": broken,
        "wrecked_header.tar#0": ok,
        "wrecked_header.tar": broken,
        "no_end_mark.tar#0": ok,
        "no_end_mark.tar#1": Expected(),
        "no_end_mark.tar#2": Expected(),
        "gzip.tar": broken,
        "zero_bytes.tar": broken,
    }


def _gzip(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=31)
    return packer.compress(data) + packer.flush()


def _parquets(folder: Path) -> dict[str, Expected]:
    plain = {
        "image": [noise(400), None, b"garbage", b"", noise(401)],
        "text": ["one", "two", None, "", None],
        "similarity": [0.1, None, float("nan"), 1e308, 2.0],
    }
    pq.write_table(pa.table(plain), folder / "bytes.parquet", row_group_size=2)
    structs = [{"bytes": noise(402), "path": None}, {"bytes": None, "path": "beside.bin"}, None]
    structs.append({"bytes": None, "path": None})
    pq.write_table(
        pa.table({"image": structs, "caption": ["s", "t", "u", "v"]}), folder / "hf.parquet"
    )
    (folder / "beside.bin").write_bytes(noise(403))
    (folder / "pathed.bin").write_bytes(noise(404))
    paths = ["pathed.bin", "missing.png", "nosuch://x/y.png", "a\0b.png", "", None]
    paths += ["../beyond.png", "/etc/passwd", "file:///etc/passwd", "local:///dev/zero"]
    paths += ["filecache::http://169.254.169.254/latest", "http://127.0.0.1:1/x.png"]
    pq.write_table(
        pa.table({"path": paths, "caption": [f"p{n}" for n in range(len(paths))]}),
        folder / "paths.parquet",
    )
    pq.write_table(pa.table({"nothing": [1]}), folder / "no_column.parquet")
    raw = pa.StringArray.from_buffers(
        1, pa.py_buffer(struct.pack("ii", 0, 1)), pa.py_buffer(b"\xff")
    )
    pq.write_table(pa.table({"image": [noise(405)], "text": raw}), folder / "not_utf8.parquet")
    whole = (folder / "bytes.parquet").read_bytes()
    (folder / "truncated.parquet").write_bytes(whole[:-100])
    (folder / "zero_bytes.parquet").write_bytes(b"")
    empty = Expected(status="rejected:empty_file", value=0)
    return {
        "bytes.parquet#0": Expected(caption="one"),
        "bytes.parquet#1": empty,
        "bytes.parquet#2": Expected(status="rejected:not_an_image"),
        "bytes.parquet#3": empty,
        "bytes.parquet#4": Expected(caption=""),
        "hf.parquet#0": Expected(caption="s"),
        "beside.bin": Expected(caption="t"),
        "hf.parquet#2": empty,
        "hf.parquet#3": empty,
        "pathed.bin": Expected(caption="p0"),
        "paths.parquet#1": Expected(status="failed:FileNotFoundError"),
        "paths.parquet#2": Expected(status="rejected:outside_source"),
        "paths.parquet#3": Expected(status="failed:ValueError"),
        "paths.parquet#4": empty,
        "paths.parquet#5": empty,
        **{
            f"paths.parquet#{row}": Expected(status="rejected:outside_source")
            for row in range(6, 12)
        },
        "no_column.parquet": Expected(status="failed:SourceError"),
        "not_utf8.parquet": Expected(status="failed:UnicodeDecodeError"),
        "truncated.parquet": Expected(status="failed:ArrowInvalid"),
        "zero_bytes.parquet": Expected(status="failed:ArrowInvalid"),
    }
