"""Draws are named by what they are for; specs travel, never change, refuse the unknown."""

import pickle
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from detectors.base import Annotation, NetworkSpec, Refusal, Spec, generator_for
from detectors.canny import CannySpec
from detectors.graph import load
from detectors.ranges import FloatRange, IntRange, draw_float, draw_int

KEY = st.tuples(
    st.text("0123456789abcdef", max_size=64),
    st.from_regex(r"[a-z][a-z0-9_]{0,31}", fullmatch=True),
    st.integers(0, 2**128),
)


def first(key: tuple[str, str, int]) -> list[int]:
    return generator_for(*key).integers(2**63, size=2).tolist()


@given(KEY, KEY)
def test_equal_keys_draw_alike_and_others_do_not(
    one: tuple[str, str, int], other: tuple[str, str, int]
) -> None:
    assert first(one) == first(one)
    assert (first(one) == first(other)) == (one == other)


@pytest.mark.parametrize(
    ("seed", "drawn"),
    [(0, 5139342830053089090), (1, 1995721908066386659), (2**64, 6479390915806298552)],
)
def test_draws_are_what_finished_datasets_were_made_with(seed: int, drawn: int) -> None:
    assert int(generator_for("ab" * 32, "canny", seed).integers(2**63)) == drawn


def test_draws_leave_numpys_own_state_alone() -> None:
    before = pickle.dumps(np.random.get_state())
    CannySpec().annotate(np.zeros((4, 4, 3), np.uint8), None, generator_for("a", "canny", 0))
    assert pickle.dumps(np.random.get_state()) == before


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 99))
def test_a_draw_keeps_to_its_range(one: int, other: int, seed: int) -> None:
    low, high = sorted((one, other))
    generator = np.random.default_rng(seed)
    assert low <= draw_int((low, high), generator) <= high
    assert low / 7 <= draw_float((low / 7, high / 7), generator) <= high / 7


def test_a_fixed_number_takes_no_draw_from_what_follows() -> None:
    generator = np.random.default_rng(0)
    assert draw_int(7, generator) == 7
    assert draw_float(0.5, generator) == 0.5
    assert generator.random() == np.random.default_rng(0).random()


def test_a_range_of_one_number_is_that_number() -> None:
    generator = np.random.default_rng(0)
    assert draw_int((7, 7), generator) == 7
    assert draw_float((0.5, 0.5), generator) == 0.5


class _Ranges(BaseModel):
    whole: IntRange = 0
    real: FloatRange = 0.0


@pytest.mark.parametrize(
    "fields",
    [
        {"whole": (2, 1)}, {"real": (0.2, 0.1)}, {"whole": -1}, {"real": -0.1}, {"whole": (-1, 1)},
        {"whole": 0.5}, {"whole": (1,)}, {"whole": (1, 2, 3)}, {"real": float("nan")},
        {"real": (0, float("inf"))},
    ],
)  # fmt: skip
def test_an_impossible_range_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        _Ranges(**fields)


@pytest.mark.parametrize("spec", [Spec(condition="x"), NetworkSpec(checkpoint="x")])
def test_specs_are_values(spec: Spec | NetworkSpec) -> None:
    again = pickle.loads(pickle.dumps(spec))
    assert again == spec
    assert hash(again) == hash(spec)
    (name,) = type(spec).model_fields
    with pytest.raises(ValidationError, match="frozen"):
        setattr(spec, name, "y")
    with pytest.raises(ValidationError, match="Extra inputs"):
        type(spec)(**{name: "x", "other": 1})


@pytest.mark.parametrize(
    "record",
    [
        Annotation(map=np.zeros((1, 1), np.uint8)),
        Refusal(rule="keypoints", value=0.1, threshold=0.3),
    ],
)
def test_results_cannot_be_changed(record: Annotation | Refusal) -> None:
    with pytest.raises(FrozenInstanceError):
        record.parameters = {}


def test_a_detector_answers_each_image_and_asks_a_generator_for_each() -> None:
    detector = load(CannySpec())
    image, draws = np.zeros((4, 4, 3), np.uint8), [generator_for("a", "canny", 0)]
    assert detector([], []) == []
    with pytest.raises(ValueError, match="zip"):
        detector([image, image], draws)
