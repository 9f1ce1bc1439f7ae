"""Which steps the grid of progress shows; the grid itself is tested with the probes of a run."""

from hypothesis import given
from hypothesis import strategies as st

from training.measure.convergence import Convergence
from training.watch.step_pictures import choose_steps


@given(data=st.data(), count=st.integers(1, 30))
def test_the_steps_to_show(data, count):
    steps = [100 * at for at in range(count)]
    found = None
    if count > 1 and data.draw(st.booleans()):
        at = data.draw(st.integers(1, count - 1))
        found = Convergence(before=steps[at - 1], step=steps[at], rise=1.0)
    chosen = choose_steps(steps, found)
    assert len(chosen) == min(count, 6)
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(steps)
    assert {steps[0], steps[-1]} <= set(chosen)
    assert found is None or {found.before, found.step} <= set(chosen)
