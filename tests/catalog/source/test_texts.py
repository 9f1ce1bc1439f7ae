"""What lies beside an image is read as what it is; what cannot be used is told, never garbled."""

import json
from decimal import Decimal
from typing import Any

import pytest

from catalog.source.rows import SourceRow, with_said
from catalog.source.texts import LIMITS, read_fields, read_text


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-be", "utf-32-le"]
)
def test_a_caption_is_decoded_by_its_mark(encoding: str) -> None:
    mark = "\ufeff" if encoding[-3:] in ("-be", "-le") else ""
    said = read_text("txt", f"{mark}a caf\u00e9".encode(encoding))
    assert (said.caption, said.unused) == ("a caf\u00e9", ())


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-32-be", "cp1252", "shift_jis"])
def test_what_is_no_utf8_is_told(encoding: str) -> None:
    text = "\u8d64\u3044\u56db\u89d2" if encoding == "shift_jis" else "caf\u00e9 red"
    said = read_text("txt", text.encode(encoding))
    assert said.caption is None
    assert said.unused == ("caption files that are no UTF-8",)
    assert "no UTF-8" in (said.detail or "")


def test_a_long_text_is_cut_between_characters_and_told() -> None:
    said = read_text("txt", ("x" + "\u00e9" * LIMITS["txt"]).encode())
    assert said.caption == "x" + "\u00e9" * (LIMITS["txt"] // 2 - 1)
    assert said.unused == ("ends of captions beyond 64 KiB",)


def test_long_json_is_read_and_endless_json_is_told() -> None:
    said = read_text("json", json.dumps({"caption": "c", "exif": "x" * 70_000}).encode())
    assert said.caption == "c"
    said = read_text("json", b" " * (LIMITS["json"] + 1))
    assert said.unused == (".json files that are no object",)


@pytest.mark.parametrize(
    "data", [b"{'caption': 'x'}", b'[{"caption": "x"}]', '{"caption": "\u00e9"}'.encode("cp1252")]
)
def test_json_that_is_no_object_is_told(data: bytes) -> None:
    said = read_text("json", data)
    assert said.caption is None
    assert said.unused == (".json files that are no object",)


@pytest.mark.parametrize(
    ("fields", "caption", "unused"),
    [
        ({"caption": "", "text": "t"}, "t", ()),
        ({"caption": " "}, " ", ()),
        ({"caption": ["one", "two", ""]}, "one", ("further captions of a list",)),
        ({"captions": ["one"]}, "one", ()),
        ({"Caption": "upper"}, "upper", ()),
        ({"sentence": "s", "txt": b"t"}, "t", ()),
        ({"sentences": [None, ["deep"]]}, "deep", ()),
        ({"caption": b"\xff"}, None, ("captions that are no text",)),
        ({"caption": {"en": "x"}}, None, ("captions that are no text",)),
        ({"caption": 5, "text": "t"}, "t", ()),
        ({"caption": None}, None, ()),
        ({"caption": []}, None, ()),
    ],
)
def test_a_caption_arrives_or_is_told(
    fields: dict[str, Any], caption: str | None, unused: tuple[str, ...]
) -> None:
    said = read_fields(fields)
    assert (said.caption, said.unused) == (caption, unused)


@pytest.mark.parametrize(
    ("value", "popularity"),
    [(3, 3.0), (Decimal("1.5"), 1.5), ("12", 12.0), ("1e3", 1000.0), ("nan", None), ("many", None)],
)
def test_popularity_as_number_decimal_or_text(value: Any, popularity: float | None) -> None:
    said = read_fields({"popularity": value, "key": "00012", "score": Decimal("0.5")})
    assert said.popularity == popularity
    assert said.scores == {"score": 0.5}
    assert bool(said.unused) is (popularity is None)


def test_an_empty_text_hides_no_other() -> None:
    beside = {kind: read_text(kind, data) for kind, data in
              (("txt", b"\n"), ("json", b'{"caption": "c"}'))}  # fmt: skip
    row = SourceRow(uri="a")
    assert with_said(row, beside).caption == "c"
    beside["json"] = read_text("json", b"{}")
    assert with_said(row, beside).caption == "\n"
