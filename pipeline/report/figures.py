"""Histograms as inline SVG: colours come from the page's style, so one drawing serves both themes.

Text goes through `Markup.format`, which escapes it.
"""

import math
from collections.abc import Iterable

from markupsafe import Markup

from pipeline.report.histogram import Histogram

_WIDTH, _PLOT, _AXIS, _LINE = 360.0, 110.0, 20.0, 14.0  # units of the drawing; a line of text
_LEFT, _RIGHT = 4.0, 356.0
_CHARACTER = 6.2  # width of one, about
_TICKS = 5
_STEPS = (1, 2, 2.5, 5, 10)


def histogram(shown: Histogram, *, title: str, behind: Histogram | None = None) -> Markup:
    """Draw a histogram with its marks and a labelled axis.

    Args:
        shown: counts of one kind of image.
        title: what is counted, for a screen reader.
        behind: counts over the same edges, drawn on top of the bars in another colour.
    """
    lines = _lines_of(shown)
    top = _LINE * max(1, len(lines)) + 4
    height = top + _PLOT + _AXIS
    parts = [
        *_bars(shown, behind, top),
        *(_mark(shown, at, label, row, top) for row, (at, label) in enumerate(lines)),
        *_axis(shown, top + _PLOT),
    ]
    frame = Markup(
        '<svg class="figure" viewBox="0 0 {width:.0f} {height:.0f}" role="img"'
        ' aria-label="{title}">{parts}</svg>'
    )
    joined = Markup("").join(parts)
    return frame.format(width=_WIDTH, height=height, title=title, parts=joined)


def bar(share: float) -> Markup:
    """Draw a bar that is `share`, 0..1, of the room it gets."""
    frame = Markup(
        '<svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" width="100" height="6"/><rect class="fill" width="{:.2f}" height="6"/>'
        "</svg>"
    )
    return frame.format(100 * min(1.0, max(share, 0.004)))


def short(value: float) -> str:
    """Write a number in few characters: 0.25, 12.5, 1,200, 3.1M."""
    size = abs(value)
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= limit:
            unit = 1e3 if suffix == "k" else limit
            return f"{value / unit:.3g}{suffix}"
    return f"{value:,.0f}" if size >= 1000 else f"{value:.3g}"


def _place(shown: Histogram, value: float) -> float:
    """Return the horizontal place of a value."""
    low, high = shown.edges[0], shown.edges[-1]
    if shown.log:
        low, high, value = math.log(low), math.log(high), math.log(max(value, low))
    share = (value - low) / (high - low)
    return _LEFT + min(1.0, max(0.0, share)) * (_RIGHT - _LEFT)


def _bars(shown: Histogram, behind: Histogram | None, top: float) -> Iterable[Markup]:
    others = behind.counts if behind else (0,) * len(shown.counts)
    most = shown.tallest(behind)
    for at, (number, other) in enumerate(zip(shown.counts, others, strict=True)):
        low, high = shown.edges[at], shown.edges[at + 1]
        left, right = _place(shown, low), _place(shown, high)
        base = top + _PLOT
        for count, kind in ((number, "fill"), (other, "lost")):
            if not count:
                continue
            tall = max(1.0, _PLOT * count / most)
            base -= tall
            yield _RECT.format(
                kind=kind,
                x=left + 0.5,
                y=base,
                width=max(0.5, right - left - 1),
                height=tall,
                hint=f"{short(low)} to {short(high)}: {count:,}",
            )


_RECT = Markup(
    '<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}">'
    "<title>{hint}</title></rect>"
)
_MARK = Markup(
    '<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{y:.1f}" y2="{end:.1f}"/>'
    '<text class="mark" x="{text:.1f}" y="{y:.1f}" text-anchor="{anchor}">{label}</text>'
)
_TICK = Markup('<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{label}</text>')
_BASE = Markup('<line class="base" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')


def _lines_of(shown: Histogram) -> list[tuple[float, str]]:
    """Return a line of text for each place that is marked; marks at one place share it."""
    places: dict[float, list[str]] = {}
    for mark in shown.marks:
        places.setdefault(mark.at, []).append(mark.label)
    return [(at, ", ".join(labels)) for at, labels in sorted(places.items())]


def _mark(shown: Histogram, at: float, label: str, row: int, top: float) -> Markup:
    x = _place(shown, at)
    fits = x + 4 + _CHARACTER * len(label) < _WIDTH
    return _MARK.format(
        x=x,
        y=_LINE * (row + 1) - 2,
        end=top + _PLOT,
        text=x + 4 if fits else x - 4,
        anchor="start" if fits else "end",
        label=label,
    )


def _axis(shown: Histogram, y: float) -> Iterable[Markup]:
    yield _BASE.format(left=_LEFT, right=_RIGHT, y=y)
    taken = -math.inf
    for value in _ticks(shown):
        x, label = _place(shown, value), short(value)
        wide = _CHARACTER * len(label)
        left = min(max(0.0, x - wide / 2), _WIDTH - wide)
        if left > taken:
            middle = left + wide / 2
            yield _TICK.format(x=middle, y=y + 14, anchor="middle", label=label)
            taken = left + wide + _CHARACTER


def _ticks(shown: Histogram) -> list[float]:
    """Return round values within the edges."""
    low, high = shown.edges[0], shown.edges[-1]
    if shown.log:
        tens = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        return [d * 10.0**ten for ten in tens for d in (1, 2, 5) if low <= d * 10.0**ten <= high]
    rough = (high - low) / _TICKS
    ten = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * ten for factor in _STEPS if factor * ten >= rough)
    first = math.ceil(low / step)
    return [k * step for k in range(first, math.floor(high / step) + 1)]
