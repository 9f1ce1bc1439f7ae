"""The gate, on numbers: what passes, and the sentence where something does not."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.retrain.gate import Figures, Limits, judge, noise

PROMOTED = Figures(adherence=(0.78, 0.80, 0.82), images=1000, samples=900, failed=5)
LIMITS = Limits(adherence_margin=0.02, coverage_drop=0.05, failed_share=0.01, size_drop=0.1)


def test_what_is_as_good_passes_without_a_word() -> None:
    verdict = judge(PROMOTED, PROMOTED, LIMITS)
    assert verdict.passed
    assert verdict.sentences == ()
    assert verdict.figures["candidate"]["coverage"] == 0.9
    assert verdict.figures["noise"] == pytest.approx(0.02 * math.sqrt(2 / 3))


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            {"adherence": (0.70, 0.72, 0.74)},
            "Adherence is 0.720, 0.800 before; it may fall by 0.02 and the noise of 0.016 over "
            "3 seeds.",
        ),
        (
            {"images": 1100},
            "81.8% of the images are samples, 90.0% before; it may fall by 5.0%.",
        ),
        ({"failed": 20}, "20 of 1,000 images failed (2.0%); at most 1.0% may."),
        (
            {"images": 880, "samples": 800},
            "The dataset has 800 samples, 900 before; 10.0% of them may go.",
        ),
        (
            {"adherence": ()},
            "The adherence of the run was not measured; that of the promoted one was.",
        ),
        (
            {"adherence": (0.9, math.nan, 0.9)},
            "The adherence of the run is no finite number.",
        ),
    ],
)
def test_what_is_worse_is_refused_with_its_figures(changed: dict, sentence: str) -> None:
    verdict = judge(replace(PROMOTED, **changed), PROMOTED, LIMITS)
    assert not verdict.passed
    assert verdict.sentences == (sentence,)
    json.dumps(verdict.figures, allow_nan=False)


@pytest.mark.parametrize(
    "changed",
    [
        {"adherence": (0.765, 0.765, 0.765)},  # below by more than the margin, within the noise
        {"images": 1050},
        {"failed": 10},
        {"images": 900, "samples": 810},
        {"adherence": (0.95,)},
    ],
)
def test_what_is_within_the_limits_passes(changed: dict) -> None:
    assert judge(replace(PROMOTED, **changed), PROMOTED, LIMITS).passed


def test_a_run_that_scatters_buys_no_room_by_it() -> None:
    wild = replace(PROMOTED, adherence=(0.95, 0.10, 0.95))
    assert noise(wild, PROMOTED) == noise(PROMOTED, PROMOTED)
    assert not judge(wild, PROMOTED, LIMITS).passed


def test_one_seed_tells_of_no_noise() -> None:
    one = replace(PROMOTED, adherence=(0.80,))
    assert judge(replace(PROMOTED, adherence=(0.781,)), one, LIMITS).passed
    assert not judge(replace(PROMOTED, adherence=(0.779,)), one, LIMITS).passed


def test_the_first_night_is_judged_by_itself() -> None:
    assert judge(PROMOTED, None, LIMITS).passed
    bad = Figures(adherence=(math.inf,), images=10, samples=0, failed=10)
    assert len(judge(bad, None, LIMITS).sentences) == 3


def test_datasets_alone_are_compared_as_datasets() -> None:
    alone = replace(PROMOTED, adherence=())
    assert judge(alone, alone, LIMITS).passed
    assert not judge(replace(alone, samples=700), alone, LIMITS).passed
    assert judge(PROMOTED, alone, LIMITS).passed


def test_a_source_that_vanished_is_refused() -> None:
    verdict = judge(Figures(images=0, samples=0, failed=0), PROMOTED, LIMITS)
    assert "The dataset has no sample." in verdict.sentences
    assert len(verdict.sentences) == 4


def test_a_poisoned_batch_does_not_hide_among_many() -> None:
    promoted = Figures(images=100_000, samples=90_000, failed=0)
    came = Figures(images=500, samples=60, failed=440)
    whole = Figures(images=100_500, samples=90_060, failed=440)
    assert judge(whole, promoted, LIMITS).passed
    verdict = judge(whole, promoted, LIMITS, came=came)
    assert verdict.sentences == (
        "12.0% of the 500 images that came are samples, 90.0% of those before; it may fall by "
        "20.0%.",
    )
    assert verdict.figures["came"]["failed"] == 440
    few = Figures(images=19, samples=0, failed=0)
    assert judge(promoted, promoted, LIMITS, came=few).passed


@given(
    st.lists(st.floats(-1, 1), min_size=1, max_size=5),
    st.lists(st.floats(-1, 1), min_size=1, max_size=5),
    st.floats(0, 1),
)
def test_a_higher_adherence_never_makes_it_worse(
    ours: list[float], theirs: list[float], more: float
) -> None:
    promoted = replace(PROMOTED, adherence=tuple(theirs))
    lower = replace(PROMOTED, adherence=tuple(ours))
    higher = replace(PROMOTED, adherence=tuple(value + more for value in ours))
    assert judge(higher, promoted, LIMITS).passed >= judge(lower, promoted, LIMITS).passed
