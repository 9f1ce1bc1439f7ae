"""Texts made fit to be captions: one line each, without BLIP's own oddities, idempotent."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from captioning.clean import clean, clean_generated

TEXT = st.text(st.characters())  # lone surrogates too, as file names and JSON may hold
FEW_WORDS = st.lists(st.sampled_from(["a", "b", "c", "arafed"]), max_size=40).map(" ".join)


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


@pytest.mark.parametrize(
    ("generated", "text"),
    [
        ("a man in a tie", "a man in a tie"),
        ("arafed image of a dog", "image of a dog"),
        ("there are two araffes, on a hill", "there are two on a hill"),
        ("a giraffe and a carafe", "a giraffe and a carafe"),
        ("Yasser Arafat", "Yasser Arafat"),
        ("a tie tie tie tie", "a tie"),
        ("bye bye", "bye bye"),
        ("a dog and a cat and a cat and a cat", "a dog and a cat"),
        ("a dog and a cat and a cat and a cat and a", "a dog and a cat"),  # cut off by its length
        ("red and red and red and blue", "red and blue"),
        ("a a a b a a a b a a a b", "a b"),
        ("a\x00b\n\nc", "a b c"),
        ("  ", ""),
        ("arafed", ""),
    ],
)
def test_generated_texts_lose_artefacts_and_loops(generated: str, text: str) -> None:
    assert clean_generated(generated) == text


@given(st.one_of(TEXT, FEW_WORDS))
def test_cleaning_a_generated_text_twice_changes_nothing(text: str) -> None:
    once = clean_generated(text)
    assert clean_generated(once) == once == clean(once)
    assert set(once.split()) <= set(clean(text).split())
    words = once.split()
    for at in range(len(words)):
        for length in range(1, 9):
            phrase = words[at : at + length]
            assert len(phrase) < length or words[at : at + 3 * length] != phrase * 3
