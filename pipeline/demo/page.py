"""One offline page with what the demonstration made, and the commands that made it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.demo.walk import Step
from pipeline.report import offline
from training.measure.convergence import describe
from training.watch.run_plots import PLOTS, run_convergence

_STYLE = """
ol { margin: 1rem 0 0; padding: 0; list-style: none; }
ol li { border-top: 1px solid var(--line); padding: 0.5rem 0; }
ol span { float: right; color: var(--soft); font-size: 0.875rem; }
pre { margin: 0.25rem 0 0; white-space: pre-wrap; }
figure { margin-top: 1.5rem; }
figure img { background: #fff; }
.lead { margin-top: 0.75rem; max-width: 44rem; }
.lead a { color: var(--fill); text-underline-offset: 0.2em; }
.narrow { max-width: 52rem; }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A picture of the page.

    Attributes:
        uri: ``data:``.
        text: beneath it.
    """

    uri: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What the evaluation of the run found.

    Attributes:
        metric: of adherence.
        rows: kind of picture and its mean, as text.
        convergence: where the run began to obey, in words.
    """

    metric: str
    rows: tuple[tuple[str, str], ...]
    convergence: str


def write_page(
    folder: Path,
    photographs: Sequence[Step],
    shapes: Sequence[Step],
    seconds: Mapping[str, float],
) -> str:
    """Return the page as HTML.

    Args:
        folder: of the demonstration, where the steps are done.
        photographs: steps of the first part.
        shapes: of the second.
        seconds: that each took, by command.
    """
    run = folder / "shapes" / "run"
    template = offline.environment().from_string(offline.read(__package__, "page.html.jinja"))
    return offline.fill(
        template,
        offline.read("pipeline.report", "style.css") + _STYLE,
        conditions=_figure(
            folder / "conditions.png",
            "Conditions of the photographs; a cell without a map says why.",
        ),
        plot=_figure(
            run / PLOTS / "adherence.png",
            "Adherence of the held-out pictures over the steps of the training.",
        ),
        grid=_figure(
            run / PLOTS / "progress.png",
            "The same noise and prompts as the training goes on; with each column its adherence.",
        ),
        measured=_measured(run),
        photographs=photographs,
        shapes=shapes,
        seconds=seconds,
        minutes=f"{sum(seconds[str(step)] for step in shapes) / 60:.1f}",
    )


def _figure(path: Path, text: str) -> Figure:
    return Figure(uri=offline.data_uri(path.read_bytes()), text=text)


def _measured(run: Path) -> Measured:
    found = json.loads((run / "evaluation" / "evaluation.json").read_text())
    return Measured(
        metric=found["metric"],
        rows=tuple((row["pictures"], f"{row['mean']:.3f}") for row in found["rows"]),
        convergence=describe(run_convergence(run)),
    )
