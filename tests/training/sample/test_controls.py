import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.sample.controls import acts


def steps_within(window: tuple[float, float], steps: int) -> list[int]:
    return [done for done in range(steps) if acts(window, done, steps)]


@pytest.mark.parametrize(
    ("window", "steps", "within"),
    [
        ((0.0, 0.5), 20, range(10)),
        ((0.5, 1.0), 20, range(10, 20)),
        ((0.0, 1.0), 20, range(20)),
        ((0.25, 0.75), 20, range(5, 15)),
        ((0.0, 0.5), 3, range(1)),
        ((0.0, 0.35), 20, range(7)),
        ((0.51, 0.54), 20, range(0)),
    ],
)
def test_a_window_holds_whole_steps(window, steps, within):
    assert steps_within(window, steps) == list(within)


@given(cut=st.floats(0.01, 0.99), steps=st.integers(1, 100))
def test_two_windows_that_meet_share_no_step(cut, steps):
    before, after = steps_within((0, cut), steps), steps_within((cut, 1), steps)
    assert not set(before) & set(after)
    assert len(before) + len(after) in (steps - 1, steps)
