"""A labelled grid of images, to look at."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

_FONT_SIZE = 14
_GAP = 8
_LINES = 4
_PAPER = (255, 255, 255)
_INK = (32, 32, 32)
_ELLIPSIS = "…"

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def draw_grid(
    cells: Sequence[Sequence[UInt8[np.ndarray, "h w 3"]]],
    *,
    columns: Sequence[str],
    rows: Sequence[str],
    notes: Sequence[Sequence[str]] | None = None,
) -> UInt8[np.ndarray, "height width 3"]:
    """Draw images in rows and columns, with a title over each column and a label before each row.

    All cells are as large as the largest image; smaller ones stand in the middle of theirs. Long
    texts are wrapped, and cut after four lines.

    Args:
        cells: rows of RGB images, 0..255; all rows of one length.
        columns: a title a column.
        rows: a label a row.
        notes: a text under each image.

    Raises:
        ValueError: the numbers of images and labels do not fit, or there are none.
    """
    _check(cells, columns, rows)
    font = ImageFont.load_default(_FONT_SIZE)
    height = max(image.shape[0] for row in cells for image in row)
    width = max(image.shape[1] for row in cells for image in row)
    titles = [wrap(title, width, font) for title in columns]
    labels = [wrap(label, max(width, 8 * _FONT_SIZE), font) for label in rows]
    line = _line_height(font)
    left = _GAP + max(_text_width(label, font) for label in labels)
    top = _GAP + line * max(len(title) for title in titles)
    texts = [[wrap(note, width, font) for note in row] for row in notes or [[""] * len(columns)]]
    below = line * max(len(text) for row in texts for text in row) if notes else 0
    row_height = max(height + below, line * max(len(label) for label in labels))
    size = (
        left + (width + _GAP) * len(columns) + _GAP,
        top + (row_height + _GAP) * len(rows) + _GAP,
    )
    page = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(page)
    for column, title in enumerate(titles):
        x = left + _GAP + column * (width + _GAP)
        _write(pen, x, top - line * len(title) + _GAP // 2, title, font)
    for index, (label, row) in enumerate(zip(labels, cells, strict=True)):
        y = top + _GAP + index * (row_height + _GAP)
        _write(pen, _GAP, y, label, font)
        for column, image in enumerate(row):
            x = left + _GAP + column * (width + _GAP)
            middle = (x + (width - image.shape[1]) // 2, y + (height - image.shape[0]) // 2)
            page.paste(Image.fromarray(image), middle)
            if notes:
                _write(pen, x, y + height + _GAP // 2, texts[index][column], font)
    return np.asarray(page).copy()


def enlarged(
    images: Sequence[UInt8[np.ndarray, "h w 3"]], side: int = 192
) -> list[UInt8[np.ndarray, "height width 3"]]:
    """Repeat the pixels of small images a whole number of times, so that labels fit beside them.

    Args:
        images: RGB, 0..255.
        side: pixels; a longer side of half of it or less is enlarged up to it.
    """
    factors = [max(1, side // max(image.shape[:2])) for image in images]
    return [
        image.repeat(factor, axis=0).repeat(factor, axis=1)
        for image, factor in zip(images, factors, strict=True)
    ]


def wrap(text: str, width: int, font: _Font) -> list[str]:
    """Break `text` into at most four lines that fit into `width` pixels, and cut the rest."""
    lines: list[str] = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(word)
    cut = lines[:_LINES]
    if len(lines) > _LINES:
        cut[-1] += _ELLIPSIS
    return [_fit(line, width, font) for line in cut] or [""]


def _fit(line: str, width: int, font: _Font) -> str:
    """Cut `line` to `width` pixels."""
    if font.getlength(line) <= width:
        return line
    kept = line.removesuffix(_ELLIPSIS)
    while kept and font.getlength(kept + _ELLIPSIS) > width:
        kept = kept[:-1]
    return kept + _ELLIPSIS


def _write(pen: ImageDraw.ImageDraw, x: int, y: int, lines: list[str], font: _Font) -> None:
    for number, line in enumerate(lines):
        pen.text((x, y + number * _line_height(font)), line, fill=_INK, font=font)


def _line_height(font: _Font) -> int:
    top, bottom = font.getbbox("Ag")[1::2]
    return round(bottom - top) + _FONT_SIZE // 2


def _text_width(lines: list[str], font: _Font) -> int:
    return max(round(font.getlength(line)) for line in lines) + 1


def _check(
    cells: Sequence[Sequence[UInt8[np.ndarray, "h w 3"]]],
    columns: Sequence[str],
    rows: Sequence[str],
) -> None:
    if not columns or not rows:
        raise ValueError("a grid needs at least one row and one column")
    lengths = [len(row) for row in cells]
    if lengths != [len(columns)] * len(rows):
        raise ValueError(
            f"expected {len(rows)} rows of {len(columns)} images, got rows of lengths {lengths}"
        )
