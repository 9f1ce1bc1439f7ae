"""What is said of an image beside it: caption, popularity, scores; and what was there but not used.

A text is UTF-8, or what its byte order mark says. Anything else is no caption, and is counted.
"""

import codecs
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

CAPTION_FIELDS = ("caption", "text", "TEXT", "prompt")
"""Names of a caption in JSON and in columns; the first that holds a text counts."""

USUAL_FIELDS = ("caption", "captions", "text", "txt", "prompt", "sentence", "sentences")
"""Names that are looked for behind those, in any case."""

LIMITS = {"txt": 1 << 16, "json": 1 << 24}
"""Bytes of a text that are used, by kind; longer JSON is left out."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins as UTF-16's does
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What one file or row of columns says of an image.

    Attributes:
        caption: may be empty; None where there is none.
        popularity: None where unknown.
        scores: all other finite numbers, by name.
        unused: what was there and is not used, by kind; one entry each.
        detail: one line on it for a person.
    """

    caption: str | None = None
    popularity: float | None = None
    scores: dict[str, float] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    detail: str | None = None


def read_text(kind: str, data: bytes) -> Said:
    """Read what lies beside an image.

    Args:
        kind: ``txt`` or ``json``.
        data: at least one byte more than `LIMITS` says where the file is longer.
    """
    return _read_json(data) if kind == "json" else _read_caption(data)


def read_fields(fields: Mapping[str, Any]) -> Said:
    """Take caption, popularity and all other finite numbers from a JSON object or columns."""
    scores = {
        str(name): float(value)
        for name, value in fields.items()
        if name != "popularity" and _is_score(value)
    }
    caption, unused = _choose_caption(fields)
    popularity = _popularity(fields.get("popularity"))
    if popularity is None and _says(fields.get("popularity")):
        unused += ("popularity that is no number",)
    return Said(
        caption=caption,
        popularity=popularity,
        scores={printable(name): scores[name] for name in sorted(scores)},
        unused=unused,
    )


def is_caption_name(name: str) -> bool:
    """Say whether a column of this name is read as a caption."""
    return name in CAPTION_FIELDS or name.casefold() in USUAL_FIELDS


def printable(text: str) -> str:
    """Replace what UTF-8 cannot hold: lone surrogates from JSON escapes or raw file names."""
    return text.encode("utf-8", errors="replace").decode("utf-8")


def _read_caption(data: bytes) -> Said:
    cut = len(data) > LIMITS["txt"]
    try:
        caption = _decode(data[: LIMITS["txt"]], cut=cut)
    except ValueError as error:
        return Said(
            unused=("caption files that are no UTF-8",), detail=f"the caption is no UTF-8: {error}"
        )
    return Said(caption=caption, unused=("ends of captions beyond 64 KiB",) if cut else ())


def _read_json(data: bytes) -> Said:
    try:
        if len(data) > LIMITS["json"]:
            raise ValueError("it is longer than 16 MiB")
        found = json.loads(data)
        if not isinstance(found, dict):
            raise ValueError(f"expected an object, found {type(found).__name__}")
    except (ValueError, RecursionError) as error:
        detail = printable(f"sidecar .json is ignored: {error}"[:200])
        return Said(unused=(".json files that are no object",), detail=detail)
    return read_fields(found)


def _decode(data: bytes, *, cut: bool = False) -> str:
    """Decode by the mark; of a text that was cut a broken last character is left out."""
    encoding = "utf-8"
    for mark, name in _MARKS:
        if data.startswith(mark):
            data, encoding = data[len(mark) :], name
            break
    text = codecs.getincrementaldecoder(encoding)("strict").decode(data, not cut)
    if 4 * text.count("\0") > len(text):
        raise ValueError("it holds zero bytes, as UTF-16 without its mark does")
    return text


def _choose_caption(fields: Mapping[str, Any]) -> tuple[str | None, tuple[str, ...]]:
    """Return the first text that is not blank, and what was passed over, by kind."""
    blank: str | None = None
    unusable: tuple[str, ...] = ()
    for value in _captions(fields):
        try:
            texts = _texts(value)
        except ValueError:
            unusable = ("captions that are no text",)
            continue
        said = [text for text in texts if text.strip()]
        if said:
            return printable(said[0]), ("further captions of a list",) * (len(said) - 1)
        blank = blank if blank is not None else next(iter(texts), None)
    return blank, unusable


def _captions(fields: Mapping[str, Any]) -> Iterator[Any]:
    yield from (fields[name] for name in CAPTION_FIELDS if name in fields)
    for usual in USUAL_FIELDS:
        alike = (name for name in fields if name not in CAPTION_FIELDS and name.casefold() == usual)
        yield from (fields[name] for name in sorted(alike))


def _texts(value: Any) -> list[str]:
    """Return the texts of a value; raises ValueError where it holds none but something else."""
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if isinstance(value, bytes):
        return [_decode(value)]
    if isinstance(value, list):
        return [text for one in value for text in _texts(one)]
    raise ValueError(f"a {type(value).__name__} is no caption")


def _says(value: Any) -> bool:
    return value is not None and value != "" and value == value  # NaN is how tables say unknown


def _popularity(value: Any) -> float | None:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    return float(value) if _is_score(value) else None


def _is_score(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return False
    try:
        return math.isfinite(value)
    except (OverflowError, ValueError):
        return False
