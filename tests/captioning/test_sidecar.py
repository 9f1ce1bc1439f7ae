"""Captions from beside the image: one clean line each, and a stated answer to a missing one."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from captioning.base import Caption
from captioning.clean import clean
from captioning.sidecar import SidecarSpec

TEXT = st.text(st.characters())


def caption(spec: SidecarSpec, found: str | None) -> str | None:
    chosen = spec.choose(found, None)
    return None if chosen is None else chosen.text


@pytest.mark.parametrize(
    ("found", "text"),
    [(" one ", "one"), (None, ""), ("", ""), ("\x00", ""), ("two\nlines", "two lines")],
)
def test_a_text_is_cleaned_and_a_missing_one_is_empty_or_rejected(
    found: str | None, text: str
) -> None:
    assert caption(SidecarSpec(), found) == text
    assert caption(SidecarSpec(when_missing="reject"), found) == (text or None)


def test_the_source_of_an_empty_caption_is_none() -> None:
    assert SidecarSpec().choose(None, None) == Caption(text="", source="none")
    assert SidecarSpec().choose("a", None) == Caption(text="a", source="sidecar", sidecar="a")


@pytest.mark.parametrize(
    ("found", "text"), [("abcd efgh", "abcd"), ("abcde", "abcde"), ("abcdef", "abcde")]
)
def test_a_long_text_is_cut_without_a_trailing_space(found: str, text: str) -> None:
    assert caption(SidecarSpec(max_characters=5), found) == text


@given(TEXT, st.integers(1, 12))
def test_captions_are_clean_and_no_longer_than_asked(text: str, limit: int) -> None:
    line = caption(SidecarSpec(max_characters=limit), text)
    assert line is not None
    assert clean(line) == line
    assert len(line) <= limit
    assert clean(text).startswith(line)
    rejecting = SidecarSpec(max_characters=limit, when_missing="reject")
    assert caption(rejecting, text) == (line or None)


def test_no_network_is_asked_for() -> None:
    assert SidecarSpec().network is None
    assert not SidecarSpec().wants(None)


def test_specs_travel_and_refuse_unknown_fields() -> None:
    spec = SidecarSpec(when_missing="reject")
    assert pickle.loads(pickle.dumps(spec)) == spec
    for fields in ({"when_missing": "guess"}, {"max_characters": 0}, {"other": 1}):
        with pytest.raises(ValidationError):
            SidecarSpec(**fields)
