"""A JPEG's segments: what it says of its maker is taken out, and not a pixel is decoded."""

import re

_START, _END, _SCAN = b"\xff\xd8", b"\xff\xd9", 0xDA
_COMMENT, _EXTENDED = 0xFE, range(0xE0, 0xF0)  # of the extended ones, JFIF and Adobe are needed
_NEEDED = {0xE0: b"JFIF\0", 0xEE: b"Adobe"}
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # within a scan neither stuffing nor restarts


def without_metadata(jpeg: bytes) -> bytes:
    """Return a whole JPEG without EXIF, place, profile, comment and what lies behind its end.

    Its compressed pixels stay byte for byte, so that it decodes to the same picture. JFIF's
    thumbnail goes.

    Args:
        jpeg: that a decoder has found whole.

    Raises:
        ValueError: its segments cannot be followed.
    """
    if not jpeg.startswith(_START):
        raise ValueError("no JPEG: it does not begin with its mark")
    kept, at = [_START], len(_START)
    while True:
        while jpeg[at : at + 2] == b"\xff\xff":  # fill bytes
            at += 1
        if jpeg[at : at + 2] == _END:
            return b"".join([*kept, _END])
        if at + 4 > len(jpeg) or jpeg[at] != 0xFF:
            raise ValueError(f"no marker at byte {at}")
        kind, end = jpeg[at + 1], at + 2 + int.from_bytes(jpeg[at + 2 : at + 4])
        if kind == _SCAN:
            found = _MARKER.search(jpeg, end)
            if found is None:
                raise ValueError("a scan has no end")
            end = found.start()
        if kind != _COMMENT and (kind not in _EXTENDED or _is_needed(jpeg, at, kind)):
            kept.append(_without_thumbnail(jpeg[at:end]) if kind == 0xE0 else jpeg[at:end])
        at = end


def _is_needed(jpeg: bytes, at: int, kind: int) -> bool:
    return kind in _NEEDED and jpeg.startswith(_NEEDED[kind], at + 4)


def _without_thumbnail(jfif: bytes) -> bytes:
    """Return a JFIF segment with version and density alone."""
    if len(jfif) <= 18:
        return jfif
    return jfif[:2] + (16).to_bytes(2) + jfif[4:16] + b"\0\0"
