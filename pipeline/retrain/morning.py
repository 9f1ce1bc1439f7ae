"""The page of the morning: what came, what went, what was refused and why; offline, one file."""

import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalog import storage
from pipeline.compare.compare import compare_runs
from pipeline.errors import UsageError
from pipeline.report import offline
from pipeline.retrain.journal import NIGHTS, Journal, Outcome
from pipeline.retrain.nightly import Nightly
from pipeline.retrain.promotions import current
from training.errors import TrainingError

PAGE = "morning.html"

_PICTURES = 4
_STYLE = """
.lead { margin-top: 0.75rem; max-width: 44rem; }
figure { margin-top: 1.5rem; }
figure img { background: #fff; }
.narrow { max-width: 52rem; }
"""
_ADHERENCE = "adherence, 0 no control, 1 photographs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A figure of the gate, as text.

    Attributes:
        name: what it is.
        promoted: of what is promoted; "" where nothing is.
        candidate: of this night.
    """

    name: str
    promoted: str
    candidate: str


def write_morning(config: Nightly, night: str) -> str:
    """Write the page of a night that has ended; return where it lies.

    The curves and pictures of the candidate stand beside those of the run that it was compared
    with, where both were probed on the same samples.
    """
    journal = Journal(config.folder, night)
    ended = journal.outcome
    assert ended is not None, "the page of a night that has not ended"
    outcome, sentence = ended
    taken, verdict = journal.read("snapshot") or {}, journal.read("gate") or {}
    changes = journal.read("changes")
    template = offline.environment().from_string(offline.read(__package__, "morning.html.jinja"))
    html = offline.fill(
        template,
        offline.read("pipeline.report", "style.css") + _STYLE,
        night=night,
        outcome=outcome.value,
        sentence=sentence,
        taken=taken,
        changes=changes,
        came=None if changes else (verdict.get("figures") or {}).get("came"),
        rejects=sorted((taken.get("rejects") or {}).items(), key=lambda pair: (-pair[1], pair[0])),
        report=journal.read("views") is not None,
        compared=_compared(verdict.get("figures") or {}),
        plots=_plots(journal, taken),
        is_current=_is_current(config, night, outcome),
    )
    uri = config.path(NIGHTS, night, PAGE)
    storage.write_atomic(uri, html.encode())
    return uri


def _compared(figures: Mapping[str, Any]) -> list[Compared]:
    """Return what the gate compared, a line each."""
    candidate, promoted = figures.get("candidate") or {}, figures.get("promoted") or {}
    lines = []
    for name, key, form in (
        ("images", "images", ","),
        ("samples", "samples", ","),
        ("samples of the images", "coverage", ".1%"),
        ("failed of the images", "failed_share", ".2%"),
        (_ADHERENCE, "adherence_mean", ".3f"),
    ):
        if candidate.get(key) is not None:
            shown = [
                "" if one.get(key) is None else format(one[key], form)
                for one in (promoted, candidate)
            ]
            lines.append(Compared(name=name, promoted=shown[0], candidate=shown[1]))
    return lines


def _plots(journal: Journal, taken: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return pictures as ``data:`` URIs with what they show; none where nothing was trained."""
    trained = journal.read("train")
    if trained is None:
        return []
    candidate = {f"night {journal.run_id}": Path(trained["run"])}
    beside = (journal.read("measure") or {}).get("beside")
    if beside:
        with suppress(TrainingError, UsageError):
            return _draw({"promoted": Path(beside), **candidate}, taken["dataset"], "")
    left_out = " The promoted run cannot be shown: its probes are of other samples."
    with suppress(TrainingError):  # it was not probed
        return _draw(candidate, taken["dataset"], left_out if beside else "")
    return []


def _draw(runs: Mapping[str, Path], dataset: str, note: str) -> list[tuple[str, str]]:
    with tempfile.TemporaryDirectory() as folder:
        compare_runs(runs, Path(folder), dataset=dataset, samples=_PICTURES)
        return [
            (offline.data_uri((Path(folder) / name).read_bytes()), text)
            for name, text in (
                ("adherence.png", f"Adherence of the held-out pictures over the training.{note}"),
                ("grid.png", "Condition, photograph, and what each run made of it in the end."),
            )
        ]


def _is_current(config: Nightly, night: str, outcome: Outcome) -> str:
    newest = current(config.folder)
    if newest is None:
        return "Nothing is current yet."
    if newest.night == night and outcome == Outcome.PROMOTED:
        return f"Current is this night's, promotion {newest.number}."
    return f"Current is that of night {newest.night}, promotion {newest.number}."
