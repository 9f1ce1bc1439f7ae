"""The rule finds the step of sudden curves, through noise, and of no others."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.measure.adherence import normalised
from training.measure.convergence import Convergence, describe, find_convergence

TRIAL = {0: 0.16, 200: 0.16, 400: 0.50, 600: 0.75, 800: 0.83, 1800: 0.89}
"""Canny F1 of a trial on shapes; 0.16 without control, 0.93 through the autoencoder."""


def find(scores, every: int = 100) -> Convergence | None:
    return find_convergence(range(0, every * len(scores), every), scores)


def noise(seed: int, count: int, level: float) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-level, level, count)


def test_the_trial_on_shapes():
    scores = [normalised(score, 0.16, 0.93) for score in TRIAL.values()]
    found = find_convergence(list(TRIAL), scores)
    assert found is not None
    assert (found.before, found.step) == (200, 400)
    assert found.rise == pytest.approx((0.50 + 0.75) / 2 / 0.77 - 0.16 / 0.77)
    assert describe(found) == "sudden convergence between steps 200 and 400"


def test_the_trial_as_it_went_on():
    """Known from the probe at 600 on, and the same ever after."""
    scores = [normalised(score, 0.16, 0.93) for score in TRIAL.values()]
    found = [find_convergence(list(TRIAL)[:n], scores[:n]) for n in range(len(TRIAL) + 1)]
    assert found[:4] == [None] * 4
    assert [one.step for one in found[4:] if one] == [400] * 3


@given(
    before=st.integers(1, 12),
    behind=st.integers(3, 12),
    height=st.floats(0.4, 1.0),
    level=st.floats(0, 0.04),
    seed=st.integers(0, 1000),
)
def test_a_noisy_jump_is_found_where_it_is(before, behind, height, level, seed):
    scores = np.array([0.0] * before + [height] * behind) + noise(seed, before + behind, level)
    found = find(scores.tolist())
    assert found is not None
    assert found.step == 100 * before
    assert found.before == 100 * (before - 1)
    assert found.rise == pytest.approx(height, abs=2 * level + 1e-9)


@given(count=st.integers(0, 30), level=st.floats(0, 0.06), seed=st.integers(0, 1000))
def test_noise_alone_is_no_convergence(count, level, seed):
    assert find(noise(seed, count, level).tolist()) is None


@given(
    count=st.integers(9, 40),
    height=st.floats(0.1, 1.0),
    share=st.floats(0, 0.2),
    seed=st.integers(0, 1000),
)
def test_a_steady_climb_is_no_convergence(count, height, share, seed):
    pace = height / (count - 1)
    scores = np.linspace(0, height, count) + noise(seed, count, share * pace)
    assert find(scores.tolist()) is None


@pytest.mark.parametrize("count", range(3, 9))
def test_a_steady_climb_of_few_probes_is_none_either(count):
    assert find(np.linspace(0, 0.9, count).tolist()) is None


@pytest.mark.parametrize("probes_a_time_constant", [4, 6, 10])
def test_learning_that_slows_down_from_the_start_is_no_convergence(probes_a_time_constant):
    scores = [1 - math.exp(-at / probes_a_time_constant) for at in range(40)]
    assert find(scores) is None


@pytest.mark.parametrize("width", [0.3, 0.6, 1.0])
def test_a_steep_slope_over_a_few_probes_is_sudden(width):
    scores = [1 / (1 + math.exp(-(at - 10.5) / width)) for at in range(25)]
    found = find(scores)
    assert found is not None
    assert found.step in (1000, 1100)


def test_a_slow_improvement_behind_the_jump_changes_nothing():
    scores = [0.0, 0.02, 0.0, 0.6, *np.linspace(0.62, 0.9, 20).tolist()]
    found = find(scores)
    assert found is not None
    assert found.step == 300


def test_what_falls_back_is_no_convergence():
    assert find([0, 0, 0, 0.7, 0.7, 0.0, 0.1]) is None
    assert find([0, 0, 0, 0.7]) is None  # one probe has not kept it yet
    assert find([0, 0, 0, 0.7, 0.7]) == Convergence(before=200, step=300, rise=0.7)


def test_a_small_jump_is_none():
    assert find([0] * 5 + [0.14] * 5) is None
    assert find([0] * 5 + [0.16] * 5) is not None


def test_too_few_probes_are_not_yet():
    for scores in ([], [0.0], [0.0, 0.9], [0.9, 0.9]):
        assert find(scores) is None
    assert describe(None) == "no sudden convergence yet"


@pytest.mark.parametrize("steps", [[0, 100], [0, 200, 100], [0, 0, 100]])
def test_steps_and_scores_must_fit(steps):
    with pytest.raises(ValueError, match="ascending steps and a score for each"):
        find_convergence(steps, [0.0, 0.1, 0.2])
