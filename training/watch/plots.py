"""Curves of runs as PNG: adherence over steps, loss, condition gap."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from training.measure.adherence import References
from training.measure.convergence import Convergence

STEPS = "optimizer steps"
_INCHES = (8.0, 4.8)
_DOTS_AN_INCH = 120
_FONT_POINTS = 11
_COLOURS = ("#1f6fb4", "#d1600f", "#2f8f4e", "#8a4fb0", "#b8860b", "#c2356b", "#3b7d86", "#5a5a5a")
_GREY = "#555555"
_FEW_POINTS = 60  # more are drawn as a running mean
_MEANS = 15  # windows of it in a run


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A series of one run.

    Attributes:
        label: of the run; shown where there are several.
        steps: optimizer steps, ascending.
        values: one a step, in the plot's unit.
        convergence: the sudden convergence, to mark.
    """

    label: str
    steps: Sequence[int]
    values: Sequence[float]
    convergence: Convergence | None = None


def plot_adherence(
    curves: Sequence[Curve],
    *,
    metric: str,
    references: References,
    title: str = "",
    unit: str = STEPS,
) -> bytes:
    """Draw adherence over steps between its baseline and its ceiling; return a PNG.

    Args:
        curves: one or more runs on the same held-out samples.
        metric: name of the metric, with its unit.
        references: what the scores stand beside.
        title: over the plot.
        unit: of the axis below.
    """
    figure, axes = _canvas(title)
    levels = {
        "photographs": references.real,
        "through the autoencoder": references.reconstruction,
        "no control": references.baseline,
    }
    for level in levels.values():
        axes.axhline(level, color=_GREY, linewidth=1, linestyle=(0, (5, 3)), zorder=1)
    remark = _draw(axes, curves)
    _label_levels(axes, levels)
    _label(figure, axes, f"adherence: {metric}", unit + remark, several=len(curves) > 1)
    return _png(figure)


def plot_series(curves: Sequence[Curve], *, quantity: str, title: str = "") -> bytes:
    """Draw any quantity over steps; return a PNG.

    A curve of many points is drawn pale, with its running mean over it.

    Args:
        curves: one or more runs.
        quantity: what the values are, with the unit, for the axis.
        title: over the plot.
    """
    figure, axes = _canvas(title)
    _label(figure, axes, quantity, STEPS + _draw(axes, curves), several=len(curves) > 1)
    return _png(figure)


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Return the mean of the last `window` values at each; of those there are, at the start."""
    sums = np.cumsum([0.0, *values])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    means: list[float] = ((sums[ends] - sums[starts]) / (ends - starts)).tolist()
    return means


def _canvas(title: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=_INCHES, dpi=_DOTS_AN_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=_FONT_POINTS + 1, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _draw(axes: Any, curves: Sequence[Curve]) -> str:
    """Draw the curves; return what has to be said about them."""
    remark = ""
    for at, curve in enumerate(curves):
        colour = _COLOURS[at % len(_COLOURS)]
        few = len(curve.steps) <= _FEW_POINTS
        line = {"color": colour, "linewidth": 1.8, "label": curve.label, "zorder": 3}
        if few:
            axes.plot(curve.steps, curve.values, marker="o", markersize=4, **line)
        else:
            window = len(curve.values) // _MEANS + 1
            axes.plot(curve.steps, curve.values, color=colour, alpha=0.25, linewidth=0.8)
            axes.plot(curve.steps, running_mean(curve.values, window), **line)
            remark = f"  (line: mean of the last {window} points)"
        if curve.convergence is not None and len(curves) == 1:
            _mark_between(axes, curve, curve.convergence, colour)
        elif curve.convergence is not None:
            _ring(axes, curve, curve.convergence.step, colour)
            remark = "  (ring: first probe behind the sudden convergence)"
    return remark


def _mark_between(axes: Any, curve: Curve, found: Convergence, colour: str) -> None:
    axes.axvspan(found.before, found.step, color=colour, alpha=0.15, linewidth=0)
    rises = curve.values[-1] >= curve.values[0]
    axes.annotate(
        f"sudden convergence\nsteps {found.before:,} to {found.step:,}",
        xy=(found.step, 0.2 if rises else 0.8),  # where the curve is not, from there on
        xycoords=("data", "axes fraction"),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        fontsize=_FONT_POINTS - 1,
        color=colour,
    )


def _ring(axes: Any, curve: Curve, step: int, colour: str) -> None:
    """Ring the first probe that obeys; bands of several runs would hide one another."""
    at = list(curve.steps).index(step)
    axes.plot(step, curve.values[at], "o", color=colour, markersize=12, fillstyle="none", zorder=4)


def _label_levels(axes: Any, levels: dict[str, float]) -> None:
    """Write what each level is at the right of its line; close ones are moved apart."""
    low, high = axes.get_ylim()
    at = -math.inf
    for name, level in sorted(levels.items(), key=lambda pair: pair[1]):
        at = max(level, at + 0.05 * (high - low))
        axes.annotate(
            f"{name} {level:.2f}",
            xy=(1, at),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=_FONT_POINTS - 1,
            color=_GREY,
            annotation_clip=False,
        )


def _label(figure: Figure, axes: Any, quantity: str, below: str, *, several: bool) -> None:
    axes.set_xlabel(below, fontsize=_FONT_POINTS)
    axes.set_ylabel(quantity, fontsize=_FONT_POINTS)
    axes.tick_params(labelsize=_FONT_POINTS - 1)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    axes.margins(x=0.02)
    if several:
        figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=_FONT_POINTS - 1)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
