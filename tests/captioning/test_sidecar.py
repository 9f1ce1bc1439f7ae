"""Captions from beside the image: one clean line each, and a stated answer to a missing one."""

import pickle
import unicodedata

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from captioning.sidecar import SidecarSpec, clean

TEXT = st.text(st.characters())  # lone surrogates too, as file names and JSON may hold


@given(TEXT)
@example("a\u2028b\u2029c\x85d\x1ce")
@example(" \t\n\x00 ")
def test_clean_gives_one_printable_line_and_is_idempotent(text: str) -> None:
    line = clean(text)
    assert clean(line) == line
    assert len(line.splitlines()) <= 1
    assert not any(unicodedata.category(letter) in ("Cc", "Cs") for letter in line)
    assert line == " ".join(line.split())
    line.encode("utf-8")


@given(st.lists(st.text(st.characters(categories=["L", "N"]), min_size=1), min_size=1))
def test_clean_keeps_every_word(words: list[str]) -> None:
    assert clean("\n".join(words)).split(" ") == words


def caption(spec: SidecarSpec, found: list[str | None]) -> list[str | None]:
    images = [np.zeros((1, 1, 3), np.uint8)] * len(found)
    return spec.load("cpu")(images, found)


def test_answers_stand_by_their_images() -> None:
    found = [" one ", None, "", "\x00", "two\nlines"]
    assert caption(SidecarSpec(), found) == ["one", "", "", "", "two lines"]
    rejecting = SidecarSpec(when_missing="reject")
    assert caption(rejecting, found) == ["one", None, None, None, "two lines"]
    assert caption(SidecarSpec(), []) == []


def test_a_long_text_is_cut_without_a_trailing_space() -> None:
    assert caption(SidecarSpec(max_characters=5), ["abcd efgh", "abcde", "abcdef"]) == [
        "abcd",
        "abcde",
        "abcde",
    ]


@given(TEXT, st.integers(1, 12))
def test_captions_are_clean_and_no_longer_than_asked(text: str, limit: int) -> None:
    (line,) = caption(SidecarSpec(max_characters=limit), [text])
    assert line is not None
    assert clean(line) == line
    assert len(line) <= limit
    assert clean(text).startswith(line)
    assert caption(SidecarSpec(max_characters=limit, when_missing="reject"), [text]) == [
        line or None
    ]


def test_specs_travel_and_refuse_unknown_fields() -> None:
    spec = SidecarSpec(when_missing="reject")
    assert pickle.loads(pickle.dumps(spec)) == spec
    for fields in ({"when_missing": "guess"}, {"max_characters": 0}, {"other": 1}):
        with pytest.raises(ValidationError):
            SidecarSpec(**fields)
