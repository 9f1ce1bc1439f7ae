"""Plots are pictures that show what they are given."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.images import decode_image
from training.measure.adherence import References
from training.measure.convergence import Convergence
from training.watch.plots import Curve, plot_adherence, plot_series, running_mean

REFERENCES = References(baseline=0.16, real=0.99, reconstruction=0.93)
FOUND = Convergence(before=100, step=200, rise=0.6)


def curve(count: int = 6, label: str = "a run", found: Convergence | None = None) -> Curve:
    steps = range(0, 100 * count, 100)
    return Curve(label=label, steps=steps, values=np.linspace(0.16, 0.9, count), convergence=found)


def adherence(*curves: Curve, references: References = REFERENCES) -> np.ndarray:
    return decode_image(plot_adherence(curves, metric="Canny F1 (1 px)", references=references))


def ink(plot: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((np.abs(plot.astype(int) - colour).max(axis=2) < 20).sum())


def level_rows(plot: np.ndarray) -> list[float]:
    """The rows of dashed grey lines across the plot, from the top."""
    long = np.flatnonzero((np.abs(plot.astype(int) - 0x55).max(axis=2) < 40).sum(axis=1) > 250)
    lines = np.split(long, np.flatnonzero(np.diff(long) > 1) + 1)
    return [float(line.mean()) for line in lines]


def test_a_plot_has_its_size_and_its_line():
    plot = adherence(curve())
    assert plot.shape == (576, 960, 3)
    assert ink(plot, (0x1F, 0x6F, 0xB4)) > 1000


def test_references_and_convergence_show():
    plain = adherence(curve())
    band = (0xDD, 0xE9, 0xF3)  # the line's colour, pale
    assert ink(adherence(curve(found=FOUND)), band) > ink(plain, band) + 10_000
    top, reconstruction, bottom = level_rows(plain)  # 0.99, 0.93 and 0.16: the axis is linear
    a_unit = (bottom - top) / (0.99 - 0.16)
    assert reconstruction - top == pytest.approx(0.06 * a_unit, abs=1.5)
    moved = References(baseline=0.5, real=0.99, reconstruction=0.6)
    rows = level_rows(adherence(curve(), references=moved))
    below = [row - rows[0] for row in rows]
    assert below == pytest.approx([0, 0.39 * a_unit, 0.49 * a_unit], abs=1.5)


def test_several_runs_have_their_colours_and_rings():
    one, two, second = curve(label="1k"), curve(label="10k"), (0xD1, 0x60, 0x0F)
    plain = adherence(one, two)
    assert ink(plain, second) > 1000
    ringed = adherence(one, curve(label="10k", found=FOUND))
    assert 20 < ink(ringed, second) - ink(plain, second) < 400  # one circle of 12 points


@pytest.mark.parametrize("count", [1, 2, 60, 61, 5000])
def test_a_series_of_any_length_is_drawn(count):
    plot = decode_image(plot_series([curve(count)], quantity="loss", title="a loss"))
    assert ink(plot, (0x1F, 0x6F, 0xB4)) > (10 if count == 1 else 500)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=30), st.integers(1, 8))
def test_a_running_mean_is_the_mean_of_the_last_values(values, window):
    means = running_mean(values, window)
    assert means == pytest.approx(
        [np.mean(values[max(0, at + 1 - window) : at + 1]) for at in range(len(values))], abs=1e-9
    )
