"""Maps and pictures as PNG, lossless, in a fraction of the time that libpng and zlib take.

A map of black and white alone is stored with one bit a pixel, as every reader of PNG knows it.
libdeflate makes the same bytes of the same pixels on every processor.
"""

import struct
import zlib

import cv2
import deflate
import numpy as np
from jaxtyping import UInt8, UInt16

from catalog.errors import ImageError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB = 0, 2  # colour types
_NONE, _UP = 0, 2  # filters: as it is; minus the row above
_LEVEL = 1  # of libdeflate: on edge maps level 6 takes twice as long for a fiftieth less


def encode_png(pixels: UInt8[np.ndarray, "h w *c"]) -> bytes:
    """Encode a map or picture, (h, w) or RGB (h, w, 3), losslessly.

    Grey of 0 and 255 alone has one bit a pixel: Pillow opens it in mode ``1``, and all that convert
    to ``L`` or ``RGB``, and OpenCV, read 0 and 255.
    """
    height, width = pixels.shape[:2]
    if pixels.ndim == 3:
        depth, colours, data = 8, _RGB, _filtered(pixels.reshape(height, -1), _UP)
    elif _is_binary(pixels):
        depth, colours, data = 1, _GREY, _filtered(np.packbits(pixels, axis=1), _NONE)
    else:
        depth, colours, data = 8, _GREY, _filtered(pixels, _UP)
    header = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    parts = (
        (b"IHDR", header),
        (b"IDAT", bytes(deflate.zlib_compress(data, _LEVEL))),
        (b"IEND", b""),
    )
    return _SIGNATURE + b"".join(_chunk(kind, body) for kind, body in parts)


def decode_png(data: bytes) -> UInt8[np.ndarray, "h w *c"] | UInt16[np.ndarray, "h w"]:
    """Decode what `encode_png` made, bit for bit, or another lossless map.

    Raises:
        ImageError: rule ``damaged``.
    """
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None:
        raise ImageError("damaged", "the bytes of a map are no PNG")
    colours = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB) if decoded.ndim == 3 else decoded
    return np.asarray(colours)


def _is_binary(grey: UInt8[np.ndarray, "h w"]) -> bool:
    return not ((grey + np.uint8(1)) & np.uint8(0xFE)).any()  # 255 + 1 is 0 here


def _filtered(rows: UInt8[np.ndarray, "h n"], kind: int) -> bytes:
    """Return the rows behind their filter's number."""
    made = np.empty((rows.shape[0], 1 + rows.shape[1]), np.uint8)
    made[:, 0] = kind
    made[:, 1:] = rows
    if kind == _UP:
        np.subtract(rows[1:], rows[:-1], out=made[1:, 1:])
    return made.tobytes()


def _chunk(kind: bytes, body: bytes) -> bytes:
    body = kind + body
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
